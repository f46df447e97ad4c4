use std::path::PathBuf;

use super::*;

/// A key of this test's own (Ed25519); nobody has its other half.
const KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";

struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("a.pub"), KEY).expect("written");
        std::fs::write(directory.path().join("bad.pub"), "no key").expect("written");
        Self { directory }
    }

    fn key(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn load(&self, text: &str) -> Result<SignaturePolicy, ConfigError> {
        let path = self.path("policy.toml");
        std::fs::write(&path, text).expect("written");
        load_policy(&path)
    }
}

#[test]
fn rules_become_requirements() {
    let scene = Scene::new();
    let (key, public) = (scene.key("a.pub"), PublicKey::from_pem(KEY.as_bytes()));
    let key_text = format!("keys = [\"{key}\"]");
    let policy = scene.load(&format!(
        "default = \"reject\"\n\
         [[rule]]\nimages = \"lab:5000/*\"\nrequire = \"accept\"\n\
         [[rule]]\nimages = \"acme.example/led\"\nrequire = \"signed-by\"\n{key_text}\n\
         [[rule]]\nimages = \"acme.example/*\"\nrequire = \"signed-by\"\n{key_text}\nidentity = \"*\"\n\
         [[rule]]\nimages = \"acme.example/copy/*\"\nrequire = \"signed-by\"\n{key_text}\n\
         identity = \"origin.example/led\"\n",
    ));
    let signed = |signer| {
        Requirement::Signed(SignedBy {
            keys: vec![public.as_ref().expect("a key").clone()],
            signer,
        })
    };
    let pattern = |text| ImagePattern::parse(text).expect("a pattern");
    let expected = SignaturePolicy::new(
        Requirement::Reject,
        vec![
            (pattern("lab:5000/*"), Requirement::Accept),
            (pattern("acme.example/led"), signed(Signer::SameRepository)),
            (pattern("acme.example/*"), signed(Signer::Anything)),
            (
                pattern("acme.example/copy/*"),
                signed(Signer::Repository("origin.example/led".to_owned())),
            ),
        ],
    );
    assert_eq!(policy.expect("good"), expected);
}

#[test]
fn every_mistake_names_its_line_and_key() {
    let scene = Scene::new();
    let (good, bad) = (scene.key("a.pub"), scene.key("bad.pub"));
    let rule = |text: &str| format!("default = \"accept\"\n[[rule]]\n{text}");
    let signed = |keys: &str| {
        let text = format!("images = \"a.io/b\"\nrequire = \"signed-by\"\nkeys = [{keys}]\n");
        rule(&text)
    };
    for (text, line, word) in [
        ("[[rule]]\n".to_owned(), 1, "images"),
        ("\n".to_owned(), 1, "default"),
        ("default = \"maybe\"\n".to_owned(), 1, "maybe"),
        ("default = \"accept\"\nrules = 1\n".to_owned(), 2, "rules"),
        (
            rule("images = \"a.io/b:1\"\nrequire = \"reject\"\n"),
            3,
            "a.io/b:1",
        ),
        (rule("images = \"A B\"\nrequire = \"reject\"\n"), 3, "A B"),
        (
            rule("images = \"a.io/b\"\nrequire = \"signed\"\n"),
            4,
            "signed",
        ),
        (signed(""), 4, "signed-by"),
        (signed("\"relative.pub\""), 5, "not absolute"),
        (signed("\"/nowhere/key.pub\""), 5, "/nowhere/key.pub"),
        (signed(&format!("\"{bad}\"")), 5, "bad.pub"),
        (
            rule("images = \"a.io/b\"\nrequire = \"reject\"\nidentity = \"*\"\n"),
            4,
            "identity",
        ),
        (
            signed(&format!("\"{good}\"")) + "identity = \"a.io/*\"\n",
            6,
            "a.io/*",
        ),
        (
            rule(
                "images = \"a.io/b\"\nrequire = \"accept\"\n[[rule]]\nimages = \"a.io/b\"\nrequire = \"reject\"\n",
            ),
            6,
            "two rules",
        ),
    ] {
        let error = scene.load(&text).expect_err(&text);
        let ConfigError::Invalid {
            line: found,
            reason,
            ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(*found, line, "{text}: {error}");
        assert!(reason.contains(word), "{text}: {error}");
    }
    let missing = load_policy(&scene.path("none.toml")).expect_err("missing");
    assert!(matches!(missing, ConfigError::Read { .. }), "{missing}");
}
