use super::*;

/// A bus that remembers writes, and answers until it is broken.
#[derive(Default)]
struct Wire {
    written: Vec<(u8, u16)>,
    broken: bool,
}

impl Bus for Wire {
    fn read_byte(&mut self, _: u8) -> io::Result<u8> {
        Ok(0)
    }

    fn write_byte(&mut self, register: u8, value: u8) -> io::Result<()> {
        self.write_word(register, value.into())
    }

    fn write_word(&mut self, register: u8, value: u16) -> io::Result<()> {
        if self.broken {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.written.push((register, value));
        Ok(())
    }
}

#[test]
fn requests_become_actions() {
    let bad = |text: &str| Action::BadState(text.to_owned());
    for (method, path, action) in [
        ("POST", "/True", Action::Set(true)),
        ("POST", "/off", Action::Set(false)),
        ("POST", "/1?x=y", Action::Set(true)),
        ("POST", "/maybe", bad("maybe")),
        ("POST", "/", Action::NoSuchPath),
        ("POST", "/a/true", Action::NoSuchPath),
        ("POST", "true", Action::NoSuchPath),
        ("GET", "/", Action::Show),
        ("GET", "/True", Action::NoSuchPath),
        ("DELETE", "/", Action::NoSuchMethod),
    ] {
        assert_eq!(Action::parse(method, path), action, "{method} {path}");
    }
}

#[test]
fn request_lines_are_read_strictly() {
    for (head, expected) in [
        ("POST /True HTTP/1.1\r\nHost: x", Some(("POST", "/True"))),
        ("GET / HTTP/1.0", Some(("GET", "/"))),
        ("GET /", None),
        ("GET / HTTP/2", None),
        ("GET / HTTP/1.1 x", None),
        ("GET /\x1b[2J HTTP/1.1", None),
        ("", None),
    ] {
        assert_eq!(request_line(head), expected, "{head:?}");
    }
}

#[test]
fn a_body_is_read_before_the_answer() {
    let mut stream = &b"POST /on HTTP/1.1\r\nContent-Length: 4\r\n\r\nbodyREST"[..];
    assert_eq!(
        read_request(&mut stream).unwrap(),
        "POST /on HTTP/1.1\r\nContent-Length: 4"
    );
    for wrong in [&b""[..], b"GET / HTTP/1.1\r\n", &[b'x'; 40_000]] {
        let error = read_request(&mut &wrong[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

#[test]
fn the_led_answers_what_it_did() {
    let mut led = Led::new(Button::new(Wire::default())).unwrap();
    for (action, status, body) in [
        (Action::Show, 200, r#"{"led":false}"#),
        (Action::Set(true), 200, r#"{"led":true}"#),
        (Action::Show, 200, r#"{"led":true}"#),
        (
            Action::BadState("x\"".to_owned()),
            400,
            r#"{"error":"\"x\\\"\" is no state: use true or false"}"#,
        ),
    ] {
        let (given, text) = led.perform(&action);
        assert_eq!(given, status, "{action:?}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        if status == 200 {
            assert_eq!(text, body, "{action:?}");
        } else {
            assert!(text.contains("is no state"), "{text}");
        }
    }
}

#[test]
fn a_silent_bus_is_an_error_and_keeps_the_state() {
    let broken = Wire {
        broken: true,
        ..Wire::default()
    };
    let mut led = Led {
        button: Button::new(broken),
        on: true,
    };
    assert_eq!(led.perform(&Action::Set(false)).0, 500);
    assert_eq!(led.perform(&Action::Show).1, r#"{"led":true}"#);
    let mute = Wire {
        broken: true,
        ..Wire::default()
    };
    let error = Led::new(Button::new(mute)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
}
