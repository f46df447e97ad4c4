//! The external tree for Buildroot: its files satisfy Buildroot's rules, GNU make reads them, and
//! the package's steps do what they are for.

mod broken;
mod rules;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use broken::BROKEN;
use kobune_tests::{CliOutput, full};
use rules::{Kind, complaints};
use serde_json::Value;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn tree() -> PathBuf {
    workspace().join("packaging/buildroot")
}

/// Files below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => files(&path),
            false => vec![path],
        })
        .collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_file_satisfies_buildroots_rules() {
    let mut checked = 0;
    let script = workspace().join("packaging/init/kobune");
    let named = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy();
        (name.into_owned(), path)
    };
    let files = files(&tree()).into_iter().map(named);
    for (name, path) in files.chain([("S70kobune".to_owned(), script)]) {
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o111, 0, "{} is executable", path.display());
        if let Some(kind) = Kind::of(&name) {
            let found = complaints(kind, &name, &read(&path));
            assert_eq!(found, Vec::<String>::new(), "{}", path.display());
            checked += 1;
        }
    }
    assert_eq!(checked, 7, "a file was not recognised");
    let description = read(&tree().join("external.desc"));
    assert!(description.starts_with("name: KOBUNE\ndesc: "));
}

#[test]
fn each_broken_rule_is_noticed() {
    let header = format!("{0}\n#\n# p\n#\n{0}\n\n", "#".repeat(80));
    for (name, text, complaint) in BROKEN {
        let kind = Kind::of(name).expect("a kind");
        let header = if *name == "p.mk" { header.as_str() } else { "" };
        let found = complaints(kind, name, &format!("{header}{text}"));
        let [only] = &found[..] else {
            panic!("{name}: {text:?}: {found:?}");
        };
        assert!(only.contains(complaint), "{text:?}: {only}");
    }
}

/// `make` with a stand-in for Buildroot's infrastructure around the external tree.
fn make(source: &Path, target: &Path, goals: &[&str]) -> CliOutput {
    let tree = tree().canonicalize().expect("the tree");
    let infrastructure = "tests/buildroot/infrastructure.mk";
    let infrastructure = Path::new(env!("CARGO_MANIFEST_DIR")).join(infrastructure);
    let external = tree.join("external.mk");
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut make = Command::new("make");
    make.args([
        "--no-print-directory",
        "--silent",
        "--warn-undefined-variables",
    ]);
    make.arg("-f").arg(infrastructure).arg("-f").arg(external);
    make.arg(format!("BR2_EXTERNAL_KOBUNE_PATH={}", tree.display()));
    make.arg(format!("SOURCE_DIR={}", source.display()));
    make.arg(format!("TARGET_DIR={}", target.display()));
    make.arg(format!("TARGET={host}"));
    make.args(["BR2_PACKAGE_KOBUNE_REVISION=", "BR2_ENABLE_DEBUG="]);
    make.arg("BR2_PACKAGE_KOBUNE_REPOSITORY=\"file:///a/repository\"");
    make.args([
        "BR2_PACKAGE_KOBUNE_NETWORK_MODULES=y",
        "KOBUNE_SOURCE=p.tar.gz",
    ]);
    make.arg("BR_NO_CHECK_HASH_FOR=");
    make.args(goals.iter().map(|goal| source.join(goal)));
    CliOutput::of(&mut make)
}

#[test]
fn make_reads_the_package() {
    let shown = make(Path::new("/nowhere"), Path::new("/nowhere"), &["show"]);
    assert_eq!(shown.stderr, "");
    let head = CliOutput::of(
        Command::new("git")
            .args(["rev-parse", "HEAD"])
            .current_dir(workspace()),
    );
    let expected = format!(
        "version {}site file:///a/repository\nusers - - kobune -1 * - - - Kobune's command line\n\
         permissions /var/lib/kobune d 711 0 0 - - - - -\nhooks KOBUNE_PATCH_CRATES\n",
        head.ok()
    );
    assert_eq!(shown.ok(), expected);
}

#[test]
fn yocto_buildroot_and_the_page_have_the_same_options_of_the_kernel() {
    let printed = make(Path::new("/nowhere"), Path::new("/nowhere"), &["kernel"]).ok();
    let fragment = "packaging/yocto/meta-kobune/recipes-kernel/linux/files/kobune.cfg";
    let fragment = read(&workspace().join(fragment));
    let options = |text: &str| {
        let options = text.lines().filter_map(|line| line.split('=').next());
        let mut options: Vec<String> = options.map(str::to_owned).collect();
        options.sort();
        options
    };
    assert_eq!(options(&printed), options(&fragment));
    let page = read(&workspace().join("docs/porting.md"));
    for option in options(&fragment) {
        let option = option.trim_start_matches("CONFIG_");
        assert!(page.contains(&format!("`{option}`")), "{option}");
    }
}

#[test]
fn the_licence_has_the_hash_that_the_package_says() {
    let mut sum = Command::new("sha256sum");
    let sum = CliOutput::of(sum.arg("LICENSE").current_dir(workspace())).ok();
    let hash = read(&tree().join("package/kobune/kobune.hash"));
    assert!(
        hash.lines()
            .any(|line| line == format!("sha256  {}", sum.trim()))
    );
}

/// Sources of the crates that are patched, by name.
fn patched() -> Vec<(String, PathBuf)> {
    let mut metadata = Command::new("cargo");
    let metadata = metadata.args(["metadata", "--locked", "--format-version", "1"]);
    let metadata = CliOutput::of(metadata.current_dir(workspace())).ok();
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let sources = packages.iter().filter_map(|package| {
        let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
        let patches = workspace().join("packaging/patches");
        let is_patched = patches.join(format!("{name}-{version}")).is_dir();
        let manifest = Path::new(package["manifest_path"].as_str()?);
        is_patched.then(|| (name.to_owned(), manifest.with_file_name("")))
    });
    sources.collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
    let mut copy = Command::new("cp");
    let _ = CliOutput::of(copy.arg("-r").arg(from).arg(to)).ok();
}

#[test]
fn vendored_crates_are_patched_and_cargo_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    copy(
        &workspace().join("packaging"),
        &dir.path().join("packaging"),
    );
    let patched = patched();
    let directories = fs::read_dir(workspace().join("packaging/patches"));
    let directories = directories.expect("the patches").count();
    assert_eq!(patched.len(), directories, "{patched:?}");
    for (name, source) in &patched {
        let vendored = dir.path().join("VENDOR").join(name);
        copy(source, &vendored);
        let sums = "{\"files\":{\"a.rs\":\"00\"},\"package\":\"11\"}";
        fs::write(vendored.join(".cargo-checksum.json"), sums).expect("the sums");
    }
    let said = make(dir.path(), Path::new("/nowhere"), &["patch"]).ok();
    assert_eq!(said.matches("patching file").count(), said.lines().count());
    for (name, _) in &patched {
        let vendored = dir.path().join("VENDOR").join(name);
        let sums = read(&vendored.join(".cargo-checksum.json"));
        assert_eq!(sums, "{\"files\":{},\"package\":\"11\"}");
    }
    // The wrong version of a crate is no success.
    let again = make(dir.path(), Path::new("/nowhere"), &["patch"]);
    assert_ne!(again.code, 0, "{again:?}");
}

/// Paths below `dir` and their permissions, sorted.
fn listed(dir: &Path) -> Vec<String> {
    let mut listed: Vec<String> = files(dir)
        .iter()
        .map(|path| {
            let mode = fs::metadata(path).expect("a file").permissions().mode();
            let path = path.strip_prefix(dir).expect("below");
            format!("{} {:o}", path.display(), mode & 0o777)
        })
        .collect();
    listed.sort();
    listed
}

const INSTALLED: [&str; 5] = [
    "etc/init.d/S70kobune 755",
    "usr/bin/kobune 755",
    "usr/lib/systemd/system/kobune.service 644",
    "usr/libexec/kobune/kobune-monitor 755",
    "usr/libexec/kobune/kobune-shim 755",
];

#[test]
fn programs_unit_and_scripts_go_to_their_places() {
    let dir = tempfile::tempdir().expect("a directory");
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    copy(&workspace().join("packaging"), &source.join("packaging"));
    let built = format!(
        "target/{}-unknown-linux-gnu/release",
        std::env::consts::ARCH
    );
    let built = source.join(built);
    fs::create_dir_all(&built).expect("a directory");
    for name in ["kobune", "kobune-shim", "kobune-monitor"] {
        fs::write(built.join(name), name).expect("a program");
    }
    let _ = make(&source, &target, &["install"]).ok();
    assert_eq!(listed(&target), INSTALLED);
    let _ = make(&source, &target, &["openrc"]).ok();
    assert_eq!(listed(&target)[1], "etc/init.d/kobune 755");
}

/// All of it, from the commit that is checked out to programs that run: minutes.
#[test]
fn the_package_is_vendored_patched_built_and_installed() {
    if !full() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    fs::create_dir(&source).expect("a directory");
    let checkout = "git archive HEAD | tar -x -C \"$1\"";
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", checkout, "sh"]).arg(&source);
    let _ = CliOutput::of(shell.current_dir(workspace())).ok();
    let built = make(&source, &target, &["all"]);
    assert_eq!(built.code, 0, "{built:?}");
    assert_eq!(listed(&target), INSTALLED);
    let version = CliOutput::of(Command::new(target.join("usr/bin/kobune")).arg("version"));
    assert!(version.ok().contains("0.1.0"));
}
