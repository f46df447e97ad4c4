//! Profiles that options bring: Docker's form, with its conditions, or OCI's.

use oci_spec::runtime::LinuxSeccomp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Arch, SeccompError};
use crate::capabilities::CapabilitySet;

/// A profile as written, not yet resolved for a host.
#[derive(Debug, Clone, PartialEq)]
pub struct CustomProfile {
    /// Members that OCI's form has too.
    plain: Map<String, Value>,
    arch_map: Vec<ArchMap>,
    calls: Vec<Call>,
}

/// What a profile is resolved for.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The host's architecture.
    pub arch: Arch,
    /// The container's bounding set.
    pub capabilities: CapabilitySet,
    /// Version of the host's kernel: major and minor.
    pub kernel: (u32, u32),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

/// A group of calls: its rule in OCI's form, and when it applies.
#[derive(Debug, Clone, PartialEq)]
struct Call {
    rule: Value,
    includes: Conditions,
    excludes: Conditions,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Conditions {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Members of a profile that OCI's form has too.
const PLAIN: [&str; 5] = [
    "defaultAction",
    "defaultErrnoRet",
    "architectures",
    "flags",
    "listenerPath",
];

impl CustomProfile {
    /// Reads a profile.
    ///
    /// # Errors
    /// [`SeccompError::Profile`] where it is no JSON of a known form.
    pub fn parse(text: &str) -> Result<Self, SeccompError> {
        let malformed = |source| SeccompError::Profile { source };
        let all: Map<String, Value> = serde_json::from_str(text).map_err(malformed)?;
        let member = |name: &str| all.get(name).filter(|value| !value.is_null()).cloned();
        let plain = PLAIN
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), member(name)?)));
        let arch_map = member("archMap").unwrap_or_else(|| json!([]));
        let calls: Vec<Map<String, Value>> =
            serde_json::from_value(member("syscalls").unwrap_or_else(|| json!([])))
                .map_err(malformed)?;
        let calls: Result<Vec<Call>, _> = calls.into_iter().map(call).collect();
        let profile = Self {
            plain: plain.collect(),
            arch_map: serde_json::from_value(arch_map).map_err(malformed)?,
            calls: calls.map_err(malformed)?,
        };
        // With every call, so that a rule that is wrong is found wherever it applies.
        profile.assemble(profile.calls.iter(), None)?;
        Ok(profile)
    }

    /// The profile for `target`, as any OCI runtime takes it.
    ///
    /// # Errors
    /// [`SeccompError::Profile`] where a member has a wrong value.
    pub fn resolve(&self, target: &Target) -> Result<LinuxSeccomp, SeccompError> {
        let applies =
            |call: &&Call| call.includes.all_hold(target) && !call.excludes.any_holds(target);
        self.assemble(self.calls.iter().filter(applies), Some(target.arch))
    }

    fn assemble<'a>(
        &self,
        calls: impl Iterator<Item = &'a Call>,
        arch: Option<Arch>,
    ) -> Result<LinuxSeccomp, SeccompError> {
        let mut all = self.plain.clone();
        let rules: Vec<Value> = calls.map(|call| call.rule.clone()).collect();
        all.insert("syscalls".to_owned(), Value::Array(rules));
        let listed = self
            .arch_map
            .iter()
            .find(|map| arch.is_some_and(|arch| map.architecture == oci_name(arch)));
        if let Some(map) = listed {
            let subs = map.sub_architectures.iter().flatten();
            let names: Vec<&String> = std::iter::once(&map.architecture).chain(subs).collect();
            all.insert("architectures".to_owned(), json!(names));
        }
        serde_json::from_value(Value::Object(all))
            .map_err(|source| SeccompError::Profile { source })
    }
}

fn call(mut members: Map<String, Value>) -> Result<Call, serde_json::Error> {
    members.retain(|_, value| !value.is_null());
    let mut conditions = |name: &str| match members.remove(name) {
        Some(value) => serde_json::from_value(value),
        None => Ok(Conditions::default()),
    };
    let includes = conditions("includes")?;
    let excludes = conditions("excludes")?;
    members.remove("comment");
    // The old form has one rule for each call.
    if let Some(name) = members.remove("name")
        && !members.contains_key("names")
    {
        members.insert("names".to_owned(), json!([name]));
    }
    if members.get("args") == Some(&json!([])) {
        members.remove("args");
    }
    Ok(Call {
        rule: Value::Object(members),
        includes,
        excludes,
    })
}

impl Conditions {
    fn all_hold(&self, target: &Target) -> bool {
        let arch = self.arches.as_ref().filter(|arches| !arches.is_empty());
        let arch = arch.is_none_or(|arches| is_listed(arches, target.arch));
        let mut caps = self.caps.iter().flatten();
        arch && caps.all(|name| has(target, name))
            && self
                .min_kernel
                .as_ref()
                .is_none_or(|least| target.is_at_least(least))
    }

    fn any_holds(&self, target: &Target) -> bool {
        let arches = self.arches.as_ref();
        let mut caps = self.caps.iter().flatten();
        arches.is_some_and(|arches| is_listed(arches, target.arch))
            || caps.any(|name| has(target, name))
            || self
                .min_kernel
                .as_ref()
                .is_some_and(|least| target.is_at_least(least))
    }
}

impl Target {
    fn is_at_least(&self, version: &str) -> bool {
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        self.kernel >= (next(), next())
    }
}

fn has(target: &Target, name: &str) -> bool {
    let name = name.strip_prefix("CAP_").unwrap_or(name);
    name.parse()
        .is_ok_and(|capability| target.capabilities.contains(capability))
}

/// Docker's words for architectures are those of its language.
fn is_listed(names: &[String], arch: Arch) -> bool {
    let own: &[&str] = match arch {
        Arch::X86_64 => &["amd64", "x86_64"],
        Arch::X86 => &["x86", "386", "i386"],
        Arch::Aarch64 => &["arm64", "aarch64"],
        Arch::Arm => &["arm"],
    };
    names.iter().any(|name| own.contains(&name.as_str()))
}

fn oci_name(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "SCMP_ARCH_X86_64",
        Arch::X86 => "SCMP_ARCH_X86",
        Arch::Aarch64 => "SCMP_ARCH_AARCH64",
        Arch::Arm => "SCMP_ARCH_ARM",
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Capability;

    use super::*;

    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            {"architecture": "SCMP_ARCH_ARM", "subArchitectures": null}
        ],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "x",
             "includes": {}, "excludes": {}},
            {"name": "write", "action": "SCMP_ACT_ALLOW"},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38,
             "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["set_tls"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm", "arm64"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["old"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}
        ]
    }"#;

    fn names(target: Target) -> Vec<String> {
        let profile = CustomProfile::parse(PROFILE).unwrap();
        let resolved = profile.resolve(&target).unwrap();
        let calls = resolved.syscalls().clone().unwrap();
        calls.iter().flat_map(|call| call.names().clone()).collect()
    }

    fn target(arch: Arch, capabilities: &[Capability], kernel: (u32, u32)) -> Target {
        Target {
            arch,
            capabilities: capabilities.iter().copied().collect(),
            kernel,
        }
    }

    #[test]
    fn conditions_choose_the_calls() {
        let plain = target(Arch::X86_64, &[], (5, 10));
        assert_eq!(
            names(plain),
            ["read", "write", "clone3", "ptrace", "personality"]
        );
        let admin = target(Arch::Arm, &[Capability::SysAdmin], (4, 4));
        assert_eq!(
            names(admin),
            ["read", "write", "mount", "set_tls", "old", "personality"]
        );
    }

    #[test]
    fn architectures_are_those_of_the_host() {
        let profile = CustomProfile::parse(PROFILE).unwrap();
        let of = |arch| {
            let resolved = profile.resolve(&target(arch, &[], (5, 10))).unwrap();
            resolved.architectures().clone().map(|list| list.len())
        };
        assert_eq!(of(Arch::X86_64), Some(2));
        assert_eq!(of(Arch::Arm), Some(1));
        assert_eq!(of(Arch::Aarch64), None);
        for arch in [Arch::X86_64, Arch::X86, Arch::Aarch64, Arch::Arm] {
            let resolved = profile.resolve(&target(arch, &[], (5, 10))).unwrap();
            super::super::compile(&resolved, arch).unwrap();
        }
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for text in [
            "",
            "unconfined",
            "[]",
            r#"{"syscalls": []}"#,
            r#"{"defaultAction": "SCMP_ACT_NOPE"}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"]}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"],
                "action": "SCMP_ACT_NOPE", "includes": {"arches": ["s390"]}}]}"#,
        ] {
            assert!(CustomProfile::parse(text).is_err(), "{text}");
        }
    }
}
