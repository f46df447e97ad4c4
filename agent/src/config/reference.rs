//! The reference of all keys: the comments in `raw.rs` are the table in `docs/configuration.md`.
//!
//! A field's comment ends with `Default:` and what that is: a value in backquotes is TOML, and is
//! tried out, anything else is words.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::Config;

const SOURCE: &str = include_str!("raw.rs");
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
const BEGIN: &str = "<!-- keys -->";
const END: &str = "<!-- end of keys -->";

/// What is documented elsewhere: IoT Edge's own keys, in docs/iot-hub.md.
const ELSEWHERE: [&str; 3] = ["provisioning", "trust_bundle_cert", "agent"];

/// A key of the file.
#[derive(Debug)]
struct Key {
    /// With its tables.
    name: String,
    default: String,
    effect: String,
}

/// The keys of the struct `table` in `source`, each below `prefix`, in the order of the source.
fn keys(source: &str, table: &str, prefix: &str) -> Vec<Key> {
    let start = format!("struct {table} {{\n");
    let (_, body) = source.split_once(&start).expect("the struct");
    let (body, _) = body.split_once("\n}").expect("its end");
    let (mut found, mut comment) = (Vec::new(), Vec::new());
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            comment.push(text.trim());
        } else if let Some((name, kind)) = line.trim_end_matches(',').split_once(": ") {
            let text = std::mem::take(&mut comment).join(" ");
            let name = name.trim_start_matches("pub(super) ");
            found.extend(key(source, &format!("{prefix}{name}"), kind, &text));
        }
    }
    found
}

/// The key of one field, or those of the table that it is.
fn key(source: &str, name: &str, kind: &str, comment: &str) -> Vec<Key> {
    if ELSEWHERE.contains(&name) {
        return Vec::new();
    }
    match kind {
        "BTreeMap<Spanned<String>, RawHost>" => {
            return keys(source, "RawHost", &format!("{name}.\"NAME\"."));
        }
        table if table.starts_with("Raw") => return keys(source, table, &format!("{name}.")),
        _ => {}
    }
    let parts = comment.rsplit_once(" Default: ");
    let (effect, default) = parts.unwrap_or_else(|| panic!("{name}: no default in {comment:?}"));
    vec![Key {
        name: name.to_owned(),
        default: default.trim_end_matches('.').to_owned(),
        effect: effect.trim_end_matches('.').to_owned(),
    }]
}

fn all() -> Vec<Key> {
    keys(SOURCE, "RawConfig", "")
}

fn markdown() -> String {
    let mut text = String::from("| key | default | |\n|---|---|---|\n");
    for key in all() {
        writeln!(
            text,
            "| `{}` | {} | {} |",
            key.name, key.default, key.effect
        )
        .expect("a string");
    }
    text
}

#[test]
fn the_documentation_has_every_key_as_the_code_has_it() {
    let text = fs::read_to_string(DOCUMENT).expect("the document");
    let (head, rest) = text.split_once(BEGIN).expect("the table begins");
    let (_, tail) = rest.split_once(END).expect("the table ends");
    let expected = format!("{head}{BEGIN}\n{}{END}{tail}", markdown());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(DOCUMENT, &expected).expect("the document");
    }
    let written = fs::read_to_string(DOCUMENT).expect("the document");
    assert!(
        written == expected,
        "docs/configuration.md is not of the comments in config/raw.rs: UPDATE_DOCS=1 writes it anew"
    );
}

#[test]
fn every_key_is_one_and_its_default_is_the_default() {
    let mut tried = 0;
    for key in all() {
        let value = key
            .default
            .strip_prefix('`')
            .and_then(|text| text.strip_suffix('`'));
        let Some(value) = value else {
            continue;
        };
        let text = format!("{} = {value}", key.name.replace("NAME", "docker.io"));
        let config = Config::parse(Path::new("c.toml"), &text);
        let config = config.unwrap_or_else(|error| panic!("{text}: {error}"));
        if !key.name.contains("NAME") {
            assert_eq!(plain(config), plain(Config::default()), "{text}");
        }
        tried += 1;
    }
    assert!(tried > 8, "{tried} defaults");
}

/// With what the puller decides where nobody says otherwise.
fn plain(mut config: Config) -> Config {
    let spool = config.registry.spool_from;
    config.registry.spool_from = spool.filter(|bytes| *bytes != 64 << 20);
    config
}
