//! docker-registry on a loopback port, open, with a password file, or with a token server.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

use super::images::run;

pub(crate) const USER: &str = "device";
pub(crate) const PASSWORD: &str = "letmein";
const SERVICE: &str = "test-registry";
const ISSUER: &str = "test-issuer";

/// A running registry; ends with this value.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
}

/// Signs what docker-registry accepts as a token: a JWT with its certificate.
struct Signer {
    key: EcdsaKeyPair,
    certificate: String,
}

impl Server {
    pub(crate) fn open(work: &Path) -> Self {
        Self::start(work, "open", &json!({}))
    }

    pub(crate) fn with_password_file(work: &Path) -> Self {
        let file = work.join("htpasswd");
        let path = file.to_str().expect("a path in UTF-8");
        run("htpasswd", ["-Bbc", path, USER, PASSWORD]);
        Self::start(
            work,
            "password",
            &json!({"htpasswd": {"realm": "test", "path": path}}),
        )
    }

    pub(crate) fn with_token_server(work: &Path) -> Self {
        let (signer, bundle) = Signer::new(work);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let realm = format!(
            "http://{}/token",
            listener.local_addr().expect("an address")
        );
        // Serves until the test's process ends.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that hangs up spoils only its own answer.
                let _ = answer(stream, &signer);
            }
        });
        let auth = json!({"token": {
            "realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle,
        }});
        Self::start(work, "token", &auth)
    }

    /// Speaks TLS with a certificate for 127.0.0.1, whose path is given too.
    pub(crate) fn with_tls(work: &Path) -> (Self, String) {
        let at = |name: &str| {
            work.join(name)
                .to_str()
                .expect("a path in UTF-8")
                .to_owned()
        };
        let (key, certificate) = (at("tls.key"), at("tls.crt"));
        run(
            "openssl",
            [
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-keyout",
                &key,
                "-out",
                &certificate,
                "-days",
                "2",
                "-subj",
                "/CN=test",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ],
        );
        let tls = json!({"tls": {"certificate": certificate, "key": key}});
        (Self::start_with(work, "tls", &json!({}), &tls), certificate)
    }

    /// With the key and certificate that [`Self::with_tls`] made there; lets in whoever has them
    /// too. Gives the key's path.
    pub(crate) fn with_client_certificates(work: &Path) -> (Self, String) {
        let at = |name: &str| work.join(name).display().to_string();
        let (key, certificate) = (at("tls.key"), at("tls.crt"));
        let tls = json!({"tls": {
            "certificate": certificate, "key": key, "clientcas": [certificate],
        }});
        (Self::start_with(work, "mutual", &json!({}), &tls), key)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn start(work: &Path, name: &str, auth: &Value) -> Self {
        Self::start_with(work, name, auth, &json!({}))
    }

    fn start_with(work: &Path, name: &str, auth: &Value, http: &Value) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let mut config = json!({
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": work.join("registry")}},
            "http": {"addr": address.to_string()},
        });
        for (field, value) in http.as_object().into_iter().flatten() {
            config["http"][field] = value.clone();
        }
        if auth.as_object().is_some_and(|auth| !auth.is_empty()) {
            config["auth"] = auth.clone();
        }
        // YAML contains JSON.
        let file = work.join(format!("{name}.yml"));
        fs::write(&file, config.to_string()).expect("a configuration");
        let log = fs::File::create(work.join(format!("{name}.log"))).expect("a log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        let server = Self { child, address };
        for _ in 0..200 {
            if TcpStream::connect(address).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(work.join(format!("{name}.log"))).unwrap_or_default();
        panic!("docker-registry does not listen: {log}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Signer {
    fn new(work: &Path) -> (Self, String) {
        let at = |name: &str| {
            work.join(name)
                .to_str()
                .expect("a path in UTF-8")
                .to_owned()
        };
        let (key, certificate, der, key_der) = (at("k.pem"), at("c.pem"), at("c.der"), at("k.der"));
        let curve = "ec_paramgen_curve:P-256";
        run(
            "openssl",
            [
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                curve,
                "-nodes",
                "-keyout",
                &key,
                "-out",
                &certificate,
                "-days",
                "2",
                "-subj",
                "/CN=test",
            ],
        );
        run(
            "openssl",
            ["x509", "-in", &certificate, "-outform", "der", "-out", &der],
        );
        run(
            "openssl",
            [
                "pkcs8", "-topk8", "-nocrypt", "-in", &key, "-outform", "der", "-out", &key_der,
            ],
        );
        let bytes = fs::read(key_der).expect("a key");
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, &bytes, &SystemRandom::new()).expect("a key");
        let certificate_der = STANDARD.encode(fs::read(der).expect("a certificate"));
        (
            Self {
                key,
                certificate: certificate_der,
            },
            certificate,
        )
    }

    fn token(&self, scope: &str) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        let parts: Vec<&str> = scope.split(':').collect();
        let access = match parts.as_slice() {
            [kind, name, actions] => {
                json!([{"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}])
            }
            _ => json!([]),
        };
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [self.certificate]});
        let claims = json!({
            "iss": ISSUER, "sub": USER, "aud": SERVICE, "jti": "1",
            "nbf": now - 60, "iat": now, "exp": now + 300, "access": access,
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn answer(stream: TcpStream, signer: &Signer) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let login = format!("basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let mut let_in = false;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        let given = value.trim().replacen("Basic", "basic", 1);
        let_in |= name.eq_ignore_ascii_case("authorization") && given == login;
    }
    let query = request.split(['?', ' ']).nth(2).unwrap_or_default();
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let scope = pairs
        .find(|(name, _)| *name == "scope")
        .map(|(_, value)| value);
    let scope = scope
        .unwrap_or_default()
        .replace("%3A", ":")
        .replace("%2F", "/")
        .replace("%2C", ",");
    let (status, body) = if let_in {
        (
            "200 OK",
            json!({"token": signer.token(&scope), "expires_in": 300}),
        )
    } else {
        (
            "401 Unauthorized",
            json!({"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]}),
        )
    };
    let body = body.to_string();
    let length = body.len();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
