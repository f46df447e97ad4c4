//! Images republished so that devices fetch single files of them.

use std::path::Path;
use std::process::Command;

use kobune_fixtures::chunk_layout;

use crate::setup;

/// Compression level of zstd.
const LEVEL: i32 = 15;

/// `chunk [--plain-http] SOURCE DESTINATION`: both are what `skopeo copy` takes.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let (plain_http, source, destination) = match *args {
        ["chunk", "--plain-http", source, destination] => (true, source, destination),
        ["chunk", source, destination] => (false, source, destination),
        _ => return Err("usage: image chunk [--plain-http] SOURCE DESTINATION".to_owned()),
    };
    setup::install(&[("skopeo", "skopeo")])?;
    let directory = std::env::temp_dir().join(format!("kobune-chunk-{}", std::process::id()));
    let done = republish(&directory, plain_http, source, destination);
    let _ = std::fs::remove_dir_all(&directory);
    done
}

fn republish(
    directory: &Path,
    plain_http: bool,
    source: &str,
    destination: &str,
) -> Result<(), String> {
    let layout = format!("oci:{}:image", directory.display());
    copy(
        source,
        &layout,
        plain_http.then_some("--src-tls-verify=false"),
    )?;
    let report = chunk_layout(directory, LEVEL).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    })?;
    for (layer, before, after) in &report.layers {
        println!("{layer}: {before} bytes before, {after} now");
    }
    for (layer, why) in &report.kept {
        println!("{layer}: left as it is: {why}");
    }
    copy(
        &layout,
        destination,
        plain_http.then_some("--dest-tls-verify=false"),
    )
}

/// Copies an image for all platforms.
fn copy(from: &str, to: &str, option: Option<&str>) -> Result<(), String> {
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["--insecure-policy", "copy", "--quiet", "--all"]);
    setup::run(skopeo.args(option).args([from, to]))
}
