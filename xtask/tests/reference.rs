//! The configuration's reference names every key that the agent knows.

use std::fs;
use std::process::Command;

use kobune_tests::{CliOutput, Programs};

/// Tables of the file, and how their keys begin in the reference.
const TABLES: [(&str, &str); 7] = [
    ("", ""),
    ("[images]", "images."),
    ("[network]", "network."),
    ("[registry]", "registry."),
    ("[registry.metered]", "registry.metered."),
    ("[userns]", "userns."),
    ("[registry.host.\"a\"]", "registry.host.\"NAME\"."),
];

/// Tables that [`TABLES`] or the page about hubs have.
const ELSEWHERE: [&str; 9] = [
    "images",
    "network",
    "registry",
    "registry.metered",
    "registry.host",
    "userns",
    "provisioning",
    "trust_bundle_cert",
    "agent",
];

/// The keys of a table, from the complaint about one that is none of them.
fn keys(table: &str) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("config.toml");
    fs::write(&file, format!("{table}\nnonsense = 1\n")).expect("the file");
    let mut kobune = Command::new(Programs::built().agent("kobune"));
    let apply = ["config", "apply"];
    let refused = CliOutput::of(kobune.arg("--config").arg(file).args(apply)).failed(1);
    let (_, keys) = refused.split_once("expected one of ").expect("a list");
    let keys = keys.trim().split(", ");
    keys.map(|key| key.trim_matches('`').to_owned()).collect()
}

#[test]
fn every_key_is_in_the_reference() {
    let page = format!("{}/../docs/configuration.md", env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(page).expect("the page");
    let rows: String = page.lines().filter(|line| line.starts_with("| ")).collect();
    let missing: Vec<String> = TABLES
        .iter()
        .flat_map(|(table, prefix)| keys(table).into_iter().map(move |key| (*prefix, key)))
        .filter(|(prefix, key)| !ELSEWHERE.contains(&format!("{prefix}{key}").as_str()))
        .filter(|(prefix, key)| {
            !rows.contains(&format!("`{prefix}{key}`")) && !rows.contains(&format!("`.{key}`"))
        })
        .map(|(prefix, key)| format!("{prefix}{key}"))
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}
