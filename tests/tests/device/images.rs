//! The images that `cargo xtask images` publishes: one index over all processors for each module.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kobune_tests::{CliOutput, Device, cross_built, full, privileged, root, until};
use serde_json::{Value, json};

use crate::leave_out;

const REGISTRY: &str = "127.0.0.1:5000";
const MODULES: [&str; 3] = ["button", "led", "probe"];
/// Architecture and variant as an index has them, and the processor as ELF files have it.
const PLATFORMS: [(&str, &str, u8); 4] = [
    ("amd64", "", 62),
    ("arm64", "v8", 183),
    ("arm", "v7", 40),
    ("arm", "v6", 40),
];

#[test]
fn each_module_is_published_as_one_index_with_an_image_for_every_processor() {
    if !cross_built() || !privileged() {
        return;
    }
    if !full() {
        leave_out("programs of four processors are built for minutes");
        return;
    }
    // Builds, outside, where there is a network.
    let _ = CliOutput::of(xtask(Command::new(cargo())).arg("images")).ok();
    let lab = Device::new();
    let _registry = Registry::start(&lab);
    let mut push = xtask(lab.command(PathBuf::from(cargo())));
    let _ = CliOutput::of(push.args(["images", "--push", REGISTRY, "--plain-http"])).ok();
    for module in MODULES {
        let image = format!("docker://{REGISTRY}/{module}:1.0");
        let raw = skopeo(&lab, &["inspect", "--raw", "--tls-verify=false", &image]);
        let index: Value = serde_json::from_str(&raw).expect("an index");
        let wanted = PLATFORMS.map(|(arch, variant, _)| platform(arch, variant));
        assert_eq!(platforms(&index), wanted, "{raw}");

        let programs: BTreeSet<_> = PLATFORMS
            .into_iter()
            .map(|platform| program(&lab, module, &image, platform))
            .collect();
        assert_eq!(programs.len(), PLATFORMS.len(), "two images share one");
    }
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn xtask(mut cargo: Command) -> Command {
    // A device's commands begin in its root.
    let manifest = root::repository().join("Cargo.toml");
    cargo.arg("run").arg("--manifest-path").arg(manifest);
    cargo.args(["--quiet", "--locked", "--package", "xtask", "--"]);
    cargo
}

/// Docker's registry on a device; it ends with this value.
struct Registry(Child);

impl Registry {
    fn start(lab: &Device) -> Self {
        let config = lab.dir().join("registry.yml");
        // YAML contains JSON.
        let text = json!({
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": lab.dir().join("registry")}},
            "http": {"addr": REGISTRY},
        });
        fs::write(&config, text.to_string()).expect("a configuration");
        let mut registry = lab.command("docker-registry");
        let registry = registry.arg("serve").arg(&config);
        registry.stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self(registry.spawn().expect("docker-registry starts"));
        until(20, "the registry answers", || {
            lab.http("GET", &format!("http://{REGISTRY}/v2/")).is_ok()
        });
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn skopeo(lab: &Device, args: &[&str]) -> String {
    let mut skopeo = lab.command("skopeo");
    CliOutput::of(skopeo.arg("--insecure-policy").args(args)).ok()
}

fn platform(arch: &str, variant: &str) -> Value {
    let mut platform = json!({"os": "linux", "architecture": arch});
    if !variant.is_empty() {
        platform["variant"] = variant.into();
    }
    platform
}

fn platforms(index: &Value) -> Vec<Value> {
    let manifests = index["manifests"].as_array().expect("manifests");
    manifests
        .iter()
        .map(|manifest| manifest["platform"].clone())
        .collect()
}

/// Copies the image for one platform as its device would; the module's program in it, which
/// is one for that processor.
fn program(
    lab: &Device,
    module: &str,
    image: &str,
    (arch, variant, machine): (&str, &str, u8),
) -> Vec<u8> {
    let copy = lab.dir().join(format!("{module}-{arch}{variant}"));
    let to = format!("dir:{}", copy.display());
    let mut args = vec!["--override-os", "linux", "--override-arch", arch];
    if !variant.is_empty() {
        args.extend(["--override-variant", variant]);
    }
    args.extend(["copy", "--quiet", "--src-tls-verify=false", image, &to]);
    let _ = skopeo(lab, &args);
    let manifest = fs::read_to_string(copy.join("manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    for layer in manifest["layers"].as_array().expect("layers") {
        let digest = layer["digest"].as_str().expect("a digest");
        let blob = copy.join(digest.trim_start_matches("sha256:"));
        unpack(&blob, &copy);
    }
    let program = fs::read(copy.join(module)).expect("the module's program");
    assert_eq!((&program[..4], program[18]), (&b"\x7fELF"[..], machine));
    program
}

fn unpack(layer: &Path, to: &Path) {
    let mut tar = Command::new("tar");
    let _ = CliOutput::of(tar.arg("-xf").arg(layer).arg("-C").arg(to)).ok();
}
