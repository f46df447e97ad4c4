//! Which of an index's images runs on this machine. Pure, but for [`Platform::host`].

use std::fmt;
use std::str::FromStr;

use oci_spec::image::{Arch, Descriptor, Os};
use thiserror::Error;

/// Operating system, architecture and its variant, in Go's and OCI's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// The operating system, here always Linux.
    pub os: Os,
    /// The architecture.
    pub architecture: Arch,
    /// The variant, as `v7` of `arm`; none means the architecture's usual one.
    pub variant: Option<String>,
}

/// A text that names no platform.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("platform {0:?} is not of the form os/architecture[/variant]")]
pub struct InvalidPlatform(String);

impl Platform {
    /// The platform of the machine this runs on.
    pub fn host() -> Self {
        let machine = nix::sys::utsname::uname()
            .map(|name| name.machine().to_string_lossy().into_owned())
            .unwrap_or_default();
        Self::of(std::env::consts::ARCH, &machine)
    }

    /// The platform of a program built for `arch` (Rust's name) on the kernel's `machine`.
    fn of(arch: &str, machine: &str) -> Self {
        let (architecture, variant) = match arch {
            "x86" => (Arch::i386, None),
            // A 32-bit program knows too little about itself: the processor may be older than v7,
            // or a 64-bit one, which runs v7 code in its 32-bit state.
            "arm" if machine.starts_with("armv5") => (Arch::ARM, Some("v5")),
            "arm" if machine.starts_with("armv6") => (Arch::ARM, Some("v6")),
            "arm" => (Arch::ARM, Some("v7")),
            "aarch64" => (Arch::ARM64, Some("v8")),
            _ => (Arch::default(), None),
        };
        Self {
            os: Os::Linux,
            architecture,
            variant: variant.map(str::to_owned),
        }
    }

    /// What runs here, best first: the fallbacks containerd has.
    fn candidates(&self) -> Vec<(Arch, Option<u8>)> {
        let arm = |newest: u8| (5..=newest).rev().map(|level| (Arch::ARM, Some(level)));
        let level = level(&self.architecture, self.variant.as_deref());
        match (&self.architecture, level) {
            (Arch::ARM, Some(newest)) => arm(newest).collect(),
            (Arch::ARM64, Some(newest)) => (8..=newest.max(8))
                .rev()
                .map(|level| (Arch::ARM64, Some(level)))
                .chain(arm(8))
                .collect(),
            (Arch::Amd64, Some(newest)) => (1..=newest)
                .rev()
                .map(|level| (Arch::Amd64, Some(level)))
                .chain([(Arch::i386, None)])
                .collect(),
            (other, level) => vec![(other.clone(), level)],
        }
    }
}

/// The best image for `wanted`, or nothing. Among equals the first one listed.
pub(crate) fn choose<'a>(manifests: &'a [Descriptor], wanted: &Platform) -> Option<&'a Descriptor> {
    wanted
        .candidates()
        .into_iter()
        .find_map(|(architecture, level)| {
            manifests.iter().find(|manifest| {
                manifest.platform().as_ref().is_some_and(|offered| {
                    *offered.os() == wanted.os
                        && *offered.architecture() == architecture
                        && self::level(offered.architecture(), offered.variant().as_deref())
                            == level
                })
            })
        })
}

/// The platforms an index offers, for an error message.
pub(crate) fn offered(manifests: &[Descriptor]) -> Vec<String> {
    let known = manifests
        .iter()
        .filter_map(|manifest| manifest.platform().as_ref());
    known
        .map(|platform| {
            Platform {
                os: platform.os().clone(),
                architecture: platform.architecture().clone(),
                variant: platform.variant().clone(),
            }
            .to_string()
        })
        .collect()
}

/// A variant as a number, with the defaults that containerd's `platforms.Normalize` has: arm is v7,
/// arm64 is v8, amd64 is v1. Variants of other architectures are not told apart.
fn level(architecture: &Arch, variant: Option<&str>) -> Option<u8> {
    let usual = match architecture {
        Arch::ARM => 7,
        Arch::ARM64 => 8,
        Arch::Amd64 => 1,
        _ => return None,
    };
    match variant {
        None | Some("") => Some(usual),
        // An unknown variant is above every known one: it is chosen by nobody.
        Some(text) => Some(text.trim_start_matches('v').parse().unwrap_or(u8::MAX)),
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(InvalidPlatform(text.to_owned())),
        };
        if parts.contains(&"") {
            return Err(InvalidPlatform(text.to_owned()));
        }
        Ok(Self {
            os: Os::from(*os),
            architecture: Arch::from(*architecture),
            variant: variant.map(|variant| (*variant).to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> Vec<Descriptor> {
        let descriptor = |(at, text): (usize, &&str)| {
            let platform: Platform = text.parse().expect("a platform");
            let digest = crate::digest::sha256(&[u8::try_from(at).expect("few")]);
            let mut json = serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest, "size": 1,
                "platform": {"os": platform.os, "architecture": platform.architecture},
            });
            if let Some(variant) = platform.variant {
                json["platform"]["variant"] = variant.into();
            }
            serde_json::from_value(json).expect("a descriptor")
        };
        platforms.iter().enumerate().map(descriptor).collect()
    }

    #[test]
    fn the_best_platform_that_runs_here_is_chosen() {
        let cases: &[(&str, &[&str], Option<usize>)] = &[
            ("linux/amd64", &["linux/arm64", "linux/amd64"], Some(1)),
            ("linux/amd64", &["linux/amd64/v3", "linux/amd64"], Some(1)),
            ("linux/amd64", &["linux/386"], Some(0)),
            ("linux/amd64", &["windows/amd64", "unknown/unknown"], None),
            ("linux/arm/v7", &["linux/arm/v6", "linux/arm/v7"], Some(1)),
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6"], Some(1)),
            ("linux/arm/v7", &["linux/arm"], Some(0)),
            ("linux/arm/v7", &["linux/arm64", "linux/arm/v8"], None),
            ("linux/arm/v6", &["linux/arm/v7"], None),
            ("linux/arm64/v8", &["linux/arm64"], Some(0)),
            ("linux/arm64", &["linux/arm/v7", "linux/arm64/v8"], Some(1)),
            ("linux/arm64/v8", &["linux/arm/v6", "linux/arm/v7"], Some(1)),
            ("linux/arm64", &["linux/arm64/v9"], None),
            ("linux/riscv64", &["linux/riscv64"], Some(0)),
            ("linux/arm64", &["linux/arm64", "linux/arm64"], Some(0)),
            ("linux/arm64", &[], None),
        ];
        for (wanted, offered, expected) in cases {
            let manifests = index(offered);
            let chosen = choose(&manifests, &wanted.parse().expect("good"));
            let expected = expected.map(|at| &manifests[at]);
            assert_eq!(chosen, expected, "{wanted} of {offered:?}");
        }
    }

    #[test]
    fn the_host_is_named_in_oci_terms() {
        let cases = [
            ("x86_64", "x86_64", "linux/amd64"),
            ("aarch64", "aarch64", "linux/arm64/v8"),
            ("arm", "armv7l", "linux/arm/v7"),
            ("arm", "armv6l", "linux/arm/v6"),
            ("arm", "aarch64", "linux/arm/v7"),
            ("x86", "x86_64", "linux/386"),
        ];
        for (arch, machine, expected) in cases {
            if arch == "x86_64" && !cfg!(target_arch = "x86_64") {
                continue;
            }
            assert_eq!(Platform::of(arch, machine).to_string(), expected);
        }
    }

    #[test]
    fn platforms_of_another_form_are_refused() {
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d"] {
            let error = text.parse::<Platform>().expect_err(text);
            assert!(error.to_string().contains(text));
        }
    }
}
