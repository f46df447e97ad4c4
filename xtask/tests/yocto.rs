//! The Yocto layer: its list of crates is that of the lock file, and its linter has no complaint.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kobune_tests::CliOutput;
use kobune_tests::packages::python;
use serde_json::Value;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A pair `NAME-VERSION` and checksum for each crate of the registry.
fn locked() -> Vec<(String, String)> {
    let lock = fs::read_to_string(workspace().join("Cargo.lock")).expect("the lock file");
    let mut lines = lock.lines();
    let mut crates = Vec::new();
    let value = |line: &str| line.split('"').nth(1).expect("a value").to_owned();
    while let Some(line) = lines.next() {
        if line == "[[package]]" {
            let name = value(lines.next().expect("a name"));
            let version = value(lines.next().expect("a version"));
            let sum = lines.clone().take_while(|line| !line.is_empty());
            let sum = sum.filter(|line| line.starts_with("checksum")).map(value);
            crates.extend(sum.map(|sum| (format!("{name}-{version}"), sum)));
        }
    }
    crates
}

#[test]
fn the_recipe_has_the_crates_of_the_lock_file() {
    let layer = "packaging/yocto/meta-kobune/recipes-containers/kobune/kobune-crates.inc";
    let listed = fs::read_to_string(workspace().join(layer)).expect("the list");
    let locked = locked();
    assert!(locked.len() > 100, "{locked:?}");
    let sums = listed.lines().filter_map(|line| {
        let (name, sum) = line
            .strip_prefix("SRC_URI[")?
            .split_once(".sha256sum] = ")?;
        Some((name.to_owned(), sum.trim_matches('"').to_owned()))
    });
    let hint = "run 'cargo xtask yocto'";
    assert_eq!(sums.collect::<Vec<_>>(), locked, "{hint}");
    let addresses = listed.lines().filter_map(|line| {
        let address = line.trim().strip_prefix("crate://crates.io/")?;
        Some(address.trim_end_matches(" \\").replace('/', "-"))
    });
    let names: Vec<String> = locked.into_iter().map(|(name, _)| name).collect();
    assert_eq!(addresses.collect::<Vec<_>>(), names, "{hint}");
}

/// Recipes below `dir`.
fn recipes(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").flatten();
    let paths = entries.map(|entry| entry.path());
    let is_recipe = |path: &PathBuf| {
        path.extension()
            .is_some_and(|kind| kind == "bb" || kind == "bbappend")
    };
    paths
        .flat_map(|path| match path.is_dir() && !path.is_symlink() {
            true => recipes(&path),
            false => Some(path).filter(is_recipe).into_iter().collect(),
        })
        .collect()
}

#[test]
fn the_layer_satisfies_its_linter() {
    let Some(python) = python("oelint", &["oelint-adv==9.11.2"]) else {
        return;
    };
    let recipes = recipes(&workspace().join("packaging/yocto/meta-kobune"));
    assert_eq!(recipes.len(), 5, "{recipes:?}");
    // A ping is no business of a test, and nothing is gained by variants that nobody builds.
    let rules = ["oelint.vars.homepageping", "oelint.var.bbclassextend"];
    let mut oelint = Command::new(python.with_file_name("oelint-adv"));
    oelint.args(["--quiet", "--release", "wrynose"]);
    oelint.args(rules.iter().flat_map(|rule| ["--suppress", rule]));
    let said = CliOutput::of(oelint.args(recipes));
    assert_eq!(
        (said.code, said.stdout, said.stderr),
        (0, String::new(), String::new())
    );
}

/// What BitBake's parser makes of the layer, by recipe; `None` where there is no BitBake. In
/// `dir` are then what the binary recipe unpacked and where it would install that.
fn parsed(dir: &Path) -> Option<Value> {
    let python = python("bitbake", &["bitbake-setup==2.19.0"])?;
    let programs = dir.join("programs");
    fs::create_dir(&programs).expect("a directory");
    for name in ["kobune", "kobune-shim", "kobune-monitor"] {
        fs::write(programs.join(name), name).expect("a program");
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut parse = Command::new(python);
    parse.arg(own.join("tests/yocto/parse.py"));
    parse.arg(workspace().join("packaging/yocto/meta-kobune"));
    let parsed = CliOutput::of(parse.args([dir.join("stubs"), programs])).ok();
    Some(serde_json::from_str(&parsed).expect("JSON"))
}

/// The patches of packaging/patches, each with its crate's directory.
fn patches() -> BTreeSet<String> {
    let dir = workspace().join("packaging/patches");
    let entries = |dir: &Path| fs::read_dir(dir).expect("a directory").flatten();
    let crates = entries(&dir).filter(|entry| entry.path().is_dir());
    let patches = crates.flat_map(|entry| entries(&entry.path()));
    let paths = patches.map(|patch| patch.path().strip_prefix(&dir).map(Path::to_owned));
    paths
        .map(|path| path.expect("below it").display().to_string())
        .collect()
}

#[test]
fn the_recipes_are_understood_by_bitbake() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(parsed) = parsed(dir.path()) else {
        return;
    };
    let recipe = &parsed["kobune_0.1.0.bb"];
    assert_eq!(recipe["INITSCRIPT_NAME"], "kobune");
    let sources = recipe["SRC_URI"].as_str().expect("sources");
    let sources: Vec<&str> = sources.split_whitespace().collect();
    let listed: BTreeSet<&str> = sources
        .iter()
        .filter_map(|source| source.strip_prefix("file://")?.split(';').next())
        .collect();
    assert_eq!(sources.len(), locked().len() + 1 + listed.len());
    let patches = patches();
    assert_eq!(listed, patches.iter().map(String::as_str).collect());
    assert_eq!(parsed["kobune-bin_0.1.0.bb"]["RPROVIDES:${PN}"], "kobune");
    let image = &parsed["kobune-image-example.bb"];
    assert_eq!(
        image["IMAGE_FEATURES"].as_str().map(str::trim),
        Some("read-only-rootfs")
    );
}

#[test]
fn the_binary_recipe_installs_programs_that_bitbake_fetched() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(parsed) = parsed(dir.path()) else {
        return;
    };
    let install = parsed["kobune-bin_0.1.0.bb"]["do_install"].as_str();
    let mut shell = Command::new("sh");
    let _ = CliOutput::of(shell.arg("-ec").arg(install.expect("a task"))).ok();
    let image = dir.path().join("stubs/image");
    let mut find = Command::new("find");
    let find = find.arg(&image).args(["-printf", "%P %m\n"]);
    let found = CliOutput::of(find).ok();
    let mut found: Vec<&str> = found.lines().collect();
    found.retain(|line| line.contains("kobune"));
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "usr/bin/kobune 755",
            "usr/lib/systemd/system/kobune.service 644",
            "usr/libexec/kobune 755",
            "usr/libexec/kobune/kobune-monitor 755",
            "usr/libexec/kobune/kobune-shim 755",
            "var/lib/kobune 711",
        ]
    );
    let program = fs::read_to_string(image.join("usr/bin/kobune")).expect("the program");
    assert_eq!(program, "kobune");
}
