//! Someone who talks to the portal as a browser does, or would be glad if it did.

use std::io::Write as _;
use std::process::Stdio;

use kobune_tests::{Device, Hub, Programs};
use serde_json::{Value, json};

pub(crate) const PASSWORD: &str = "a password of a test";
pub(crate) const SESSION: &str = "/portal/api/session";

/// An answer, with its headers as text.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
}

/// Someone with a browser: its cookie, and the token of its page.
pub(crate) struct Visitor<'h> {
    pub(crate) hub: &'h Hub<'h>,
    pub(crate) device: &'h Device,
    pub(crate) cookie: String,
    pub(crate) token: String,
}

impl<'h> Visitor<'h> {
    pub(crate) fn new(hub: &'h Hub<'h>, device: &'h Device) -> Self {
        let (cookie, token) = (String::new(), String::new());
        Self {
            hub,
            device,
            cookie,
            token,
        }
    }

    pub(crate) fn signed_in(hub: &'h Hub<'h>, device: &'h Device, user: &str) -> Self {
        let mut visitor = Self::new(hub, device);
        let answer = visitor.sign_in(user, PASSWORD, &[]);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let cookie = answer.headers.lines().find_map(|line| {
            let value = line.strip_prefix("set-cookie: ")?;
            value.split(';').next().map(str::to_owned)
        });
        visitor.cookie = cookie.expect("a cookie");
        visitor.token = answer.json()["csrf"].as_str().expect("a token").to_owned();
        visitor
    }

    pub(crate) fn sign_in(&self, user: &str, password: &str, headers: &[&str]) -> Answer {
        let body = json!({"user": user, "password": password}).to_string();
        let json = ["content-type: application/json"];
        let headers = if headers.is_empty() { &json } else { headers };
        self.send("POST", SESSION, headers, Some(&body))
    }

    /// As the page sends it.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let path = format!("/portal/api/hub{path}");
        let token = format!("x-csrf-token: {}", self.token);
        let headers = ["content-type: application/json", token.as_str()];
        let text = body.map(Value::to_string);
        self.send(method, &path, &headers, text.as_deref())
    }

    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: Option<&str>,
    ) -> Answer {
        let mut curl = self.device.command("curl");
        curl.args(["--silent", "--include", "--max-time", "60", "--cacert"])
            .arg(self.hub.ca())
            .args(["--request", method, "--cookie", &self.cookie]);
        for header in headers {
            curl.args(["--header", header]);
        }
        if let Some(body) = body {
            curl.args(["--data-binary", body]);
        }
        let output = curl.arg(format!("https://localhost{path}")).output();
        let text = output.expect("curl runs").stdout;
        let text = String::from_utf8(text).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Answer {
            status: status.expect("a status"),
            headers: head.replace('\r', ""),
            body: body.to_owned(),
        }
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// `kobune-hub user ...` on the hub's machine.
pub(crate) fn user(device: &Device, words: &[&str]) {
    let mut child = device
        .command(Programs::built().hub())
        .arg("user")
        .args(words)
        .arg("--state")
        .arg(device.dir().join("hub"))
        .stdin(Stdio::piped())
        .spawn()
        .expect("kobune-hub runs");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // Whoever removes a user reads nothing.
    let _ = writeln!(stdin, "{PASSWORD}");
    drop(stdin);
    assert!(child.wait().expect("a child").success());
}
