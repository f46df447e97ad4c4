//! Layouts and the registry as other people's tools see them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic and print"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use kobune_fixtures::{
    Compression, Content, Format, ImageBuilder, Index, LayerBuilder, Options, Platform, Registry,
    layout, module_image,
};

/// Runs a tool and gives what it printed; a missing tool is an error only where CI is true.
fn tool(command: &[&str]) -> Option<String> {
    let output = match Command::new(command[0]).args(&command[1..]).output() {
        Ok(output) => output,
        Err(error) if std::env::var_os("CI").is_none_or(|ci| ci != "true") => {
            eprintln!("skipped: {} cannot be run: {error}", command[0]);
            return None;
        }
        Err(error) => panic!("{} cannot be run: {error}", command[0]),
    };
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    Some(String::from_utf8(output.stdout).unwrap())
}

fn content() -> Content {
    let base = LayerBuilder::new()
        .dir("dir", 0o755)
        .file("dir/old", 0o644, "old")
        .file("dir/kept", 0o600, "kept")
        .dir("dir/opaque", 0o755)
        .file("dir/opaque/hidden", 0o644, "hidden")
        .build();
    let odd = LayerBuilder::new()
        .whiteout("dir/old")
        .opaque("dir/opaque")
        .file("dir/opaque/new", 0o644, "new")
        .symlink("dir/link", "/dir/kept")
        .hardlink("dir/hard", "dir/opaque/new")
        .file(format!("dir/{}", "long".repeat(50)), 0o644, "long")
        .compression(Compression::None)
        .build();
    let image = |architecture: &str| {
        ImageBuilder::new(Platform::linux(architecture, ""))
            .layer(base.clone())
            .layer(odd.clone())
            .env("A", "b")
            .build()
    };
    let mut content = Content::new();
    content.add_image("odd", "1.0", &image("amd64"));
    let index = Index::new(Format::Oci, vec![image("amd64"), image("arm64")]);
    content.add_index("multi", "1.0", &index);
    let led = module_image(Platform::host(), "led", b"not a program", &["80/tcp"]);
    content.add_image("led-acr", "1.0", &led);
    content
}

#[test]
fn a_layout_reads_back_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    layout::write(&first, &content()).unwrap();
    layout::write(&second, &layout::read(&first).unwrap()).unwrap();
    let listing = |dir: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(dir.join("blobs/sha256"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        (names, std::fs::read(dir.join("index.json")).unwrap())
    };
    assert_eq!(listing(&first), listing(&second));
}

#[test]
fn a_damaged_layout_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let missing = layout::read(dir.path()).unwrap_err().to_string();
    assert!(missing.contains("index.json"), "{missing}");
    std::fs::write(
        dir.path().join("index.json"),
        r#"{"manifests":[{"digest":"sha256:../x"}]}"#,
    )
    .unwrap();
    let hostile = layout::read(dir.path()).unwrap_err().to_string();
    assert!(hostile.contains("sha256:../x"), "{hostile}");
}

#[test]
fn skopeo_reads_the_layout() {
    let dir = tempfile::tempdir().unwrap();
    layout::write(dir.path(), &content()).unwrap();
    let source = format!("oci:{}:odd:1.0", dir.path().display());
    let Some(text) = tool(&["skopeo", "inspect", &source]) else {
        return;
    };
    let inspected: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(inspected["Architecture"], "amd64");
    assert_eq!(inspected["Layers"].as_array().unwrap().len(), 2);
}

#[test]
fn umoci_unpacks_what_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    layout::write(&dir.path().join("layout"), &content()).unwrap();
    let copied = format!("oci:{}:odd", dir.path().join("plain").display());
    let source = format!("oci:{}:odd:1.0", dir.path().join("layout").display());
    if tool(&["skopeo", "copy", &source, &copied]).is_none() {
        return;
    }
    let image = format!("{}:odd", dir.path().join("plain").display());
    let bundle = dir.path().join("bundle");
    let bundle = bundle.to_str().unwrap();
    if tool(&["umoci", "unpack", "--rootless", "--image", &image, bundle]).is_none() {
        return;
    }
    let rootfs = Path::new(bundle).join("rootfs/dir");
    assert!(!rootfs.join("old").exists());
    assert_eq!(
        std::fs::read_to_string(rootfs.join("kept")).unwrap(),
        "kept"
    );
    assert!(!rootfs.join("opaque/hidden").exists());
    assert_eq!(std::fs::read_to_string(rootfs.join("hard")).unwrap(), "new");
    assert_eq!(
        std::fs::read_link(rootfs.join("link")).unwrap(),
        Path::new("/dir/kept")
    );
    assert!(rootfs.join("long".repeat(50)).exists());
}

#[test]
fn skopeo_pulls_with_a_token() {
    let registry = Registry::start(content(), Options::with_token("led", "lamp")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let source = format!("docker://{}", registry.reference("led-acr", "1.0"));
    let copied = format!("oci:{}:led", dir.path().display());
    let login = "--src-creds=led:lamp";
    if tool(&[
        "skopeo",
        "copy",
        "--src-tls-verify=false",
        login,
        &source,
        &copied,
    ])
    .is_none()
    {
        return;
    }
    assert!(
        registry
            .requests()
            .iter()
            .any(|request| request.path == "/oauth2/token")
    );
    let pulled = std::fs::read_dir(dir.path().join("blobs/sha256"))
        .unwrap()
        .count();
    assert_eq!(pulled, 3, "manifest, config and one layer");
}

#[test]
fn the_program_serves_a_layout_to_those_with_the_password() {
    let dir = tempfile::tempdir().unwrap();
    layout::write(dir.path(), &content()).unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_kobune-fixture-registry"))
        .args([
            "--listen",
            "127.0.0.1:0",
            "--user",
            "led",
            "--password-env",
            "PASSWORD",
        ])
        .arg("--layout")
        .arg(dir.path())
        .env("PASSWORD", "lamp")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    let addr = line.trim_end().strip_prefix("listening on ").unwrap();
    let source = format!("docker://{addr}/led-acr:1.0");
    let inspect = |login: &str| {
        let arguments = ["inspect", "--tls-verify=false", "--creds", login, &source];
        Command::new("skopeo")
            .args(arguments)
            .output()
            .map(|output| output.status.success())
    };
    let answers = (inspect("led:lamp"), inspect("led:dark"));
    server.kill().unwrap();
    server.wait().unwrap();
    match answers {
        (Ok(right), Ok(wrong)) => assert_eq!((right, wrong), (true, false)),
        (error, _) => assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "skopeo: {error:?}"
        ),
    }
}
