//! The programs under test, built once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the built programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Directory of `kobune`, `kobune-shim` and `kobune-monitor`.
    pub agent: PathBuf,
    /// Directory of `kobune-hub`.
    pub hub: PathBuf,
    /// Directory of the static fixture programs.
    pub fixtures: PathBuf,
}

impl Programs {
    /// Builds what is not built yet, in the profile that `KOBUNE_PROFILE` names (`dev`). Where
    /// `KOBUNE_PROGRAMS` names a directory, what a device gets is taken from there as it is.
    ///
    /// # Panics
    /// Where the build fails.
    #[must_use]
    pub fn built() -> &'static Self {
        static PROGRAMS: OnceLock<Programs> = OnceLock::new();
        PROGRAMS.get_or_init(|| {
            let profile = std::env::var("KOBUNE_PROFILE").unwrap_or_else(|_| "dev".to_owned());
            let device = std::env::var_os("KOBUNE_PROGRAMS").map(PathBuf::from);
            Self::make(&profile, device)
        })
    }

    /// Builds the agent's programs in `profile` and the fixtures statically.
    ///
    /// # Panics
    /// Where a build fails.
    #[must_use]
    pub fn build(profile: &str) -> Self {
        Self::make(profile, None)
    }

    fn make(profile: &str, device: Option<PathBuf>) -> Self {
        let dir = if profile == "dev" { "debug" } else { profile };
        let mut build = vec!["build", "--profile", profile, "-p", "kobune-hub"];
        if device.is_none() {
            build.extend(["-p", "kobune", "-p", "kobune-runtime"]);
        }
        cargo(&build, None);
        // A target of its own, so that the static flags do not rebuild everything else.
        let target = host_target();
        let flags = "-Ctarget-feature=+crt-static -Crelocation-model=static";
        let fixtures = target_dir().join("fixtures");
        cargo(
            &[
                "build",
                "--profile",
                "dist",
                "-p",
                "kobune-fixtures",
                "--no-default-features",
                "--features",
                "modules",
                "--bin",
                "button",
                "--bin",
                "led",
                "--bin",
                "probe",
                "--target",
                &target,
                "--target-dir",
                &fixtures.to_string_lossy(),
            ],
            Some(flags),
        );
        Self {
            hub: target_dir().join(dir),
            agent: device.unwrap_or_else(|| target_dir().join(dir)),
            fixtures: fixtures.join(target).join("dist"),
        }
    }

    /// Path of one of the agent's programs.
    #[must_use]
    pub fn agent(&self, name: &str) -> PathBuf {
        self.agent.join(name)
    }

    /// Path of the hub.
    #[must_use]
    pub fn hub(&self) -> PathBuf {
        self.hub.join("kobune-hub")
    }

    /// Path of a fixture program.
    #[must_use]
    pub fn fixture(&self, name: &str) -> PathBuf {
        self.fixtures.join(name)
    }
}

fn cargo(args: &[&str], flags: Option<&str>) {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(workspace())
        .args(args)
        .args(["--quiet", "--locked"]);
    // What the cargo that runs this test says of the test's own package: build scripts that
    // watch these variables would take every build for a new one.
    let own = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_CRATE_",
        "CARGO_BIN_",
        "CARGO_PRIMARY_",
    ];
    for (name, _) in std::env::vars_os() {
        if own
            .iter()
            .any(|prefix| name.to_string_lossy().starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    if let Some(flags) = flags {
        command.env("RUSTFLAGS", flags);
    }
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "cargo {} failed", args.join(" "));
}

/// Root of the workspace.
fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Where the build puts things, and tests what they keep.
#[must_use]
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The target that this harness was built for.
fn host_target() -> String {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .expect("rustc runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("rustc names its host").to_owned()
}
