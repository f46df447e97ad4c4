//! The fixtures' images, built for every processor and published as one index each:
//! `cargo xtask images`.
//!
//! A directory in OCI's image layout first, then from there to a registry with skopeo.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kobune_fixtures::{Content, Format, Index, Platform, layout, module_image};

use crate::cross::{self, ARCHES, Arch, Built, Profile};
use crate::setup;

/// Modules and the ports that their images expose.
const MODULES: [(&str, &[&str]); 3] = [("button", &[]), ("led", &["80/tcp"]), ("probe", &[])];
/// Tag of all of them.
const TAG: &str = "1.0";

/// Builds the images; with `--push HOST[:PORT][/PATH]` publishes them there, `--plain-http`
/// without TLS, with the credentials that skopeo has.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let (registry, tls) = match *args {
        [] => (None, true),
        ["--push", registry] => (Some(registry), true),
        ["--push", registry, "--plain-http"] => (Some(registry), false),
        _ => return Err("usage: cargo xtask images [--push REGISTRY [--plain-http]]".to_owned()),
    };
    let builds = ARCHES
        .into_iter()
        .map(|arch| Ok((arch, cross::build_fixtures(arch, Profile::Dist)?)))
        .collect::<Result<Vec<_>, String>>()?;
    let dir = write(&content(&builds)?)?;
    println!("{}", dir.display());
    let Some(registry) = registry else {
        return Ok(());
    };
    setup::install(&[("skopeo", "/usr/bin/skopeo")])?;
    for (module, _) in MODULES {
        publish(&dir, module, registry, tls)?;
    }
    Ok(())
}

/// An index over all processors for each module.
fn content(builds: &[(Arch, Built)]) -> Result<Content, String> {
    let mut content = Content::new();
    for (module, ports) in MODULES {
        let images = builds.iter().map(|(arch, built)| {
            let path = built.program(module);
            let program = fs::read(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
            Ok(module_image(platform(*arch), module, &program, ports))
        });
        let images = images.collect::<Result<Vec<_>, String>>()?;
        content.add_index(module, TAG, &Index::new(Format::Oci, images));
    }
    Ok(content)
}

/// A processor as image indexes name it.
fn platform(arch: Arch) -> Platform {
    match arch.name {
        "x86_64" => Platform::linux("amd64", ""),
        "arm64" => Platform::linux("arm64", "v8"),
        "armv7" => Platform::linux("arm", "v7"),
        _ => Platform::linux("arm", "v6"),
    }
}

fn write(content: &Content) -> Result<PathBuf, String> {
    let dir = cross::target_dir()?.join("images");
    // What a former build left would be published beside.
    let _ = fs::remove_dir_all(&dir);
    layout::write(&dir, content).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    })?;
    Ok(dir)
}

fn publish(layout: &Path, module: &str, registry: &str, tls: bool) -> Result<(), String> {
    let to = format!("docker://{registry}/{module}:{TAG}");
    println!("publishing {to}");
    setup::run(
        Command::new("skopeo")
            .args(["copy", "--quiet", "--all"])
            .arg(format!("--dest-tls-verify={tls}"))
            .arg(format!("oci:{}:{module}:{TAG}", layout.display()))
            .arg(to),
    )
}
