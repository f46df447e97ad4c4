//! What the device's owner lets modules ask of the host, whoever deploys them. Pure: links
//! of the host are followed by a function that is passed in.
//!
//! A module is held against the first rule whose pattern its name matches; one that matches
//! none may ask for nothing beyond Docker's default confinement. What goes beyond it is a
//! refusal of the module, as for what the device lacks: it is not run.

mod rule;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kobune_runtime::{
    ContainerId, IpcMode, LogDriver, Mount, NamespaceMode, NetworkMode, Provided, SyslogAddress,
    UserMode,
};

use crate::deployment::{Deployment, ModuleSpec, Warning};

pub use rule::{AllowedMount, HostNamespace, Pattern, Rule};

/// Modules through which a namespace is looked for at most: who joins in a circle joins none.
const LONGEST_CHAIN: usize = 8;

/// The owner's rules, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModulePolicy {
    rules: Vec<Rule>,
    /// Of modules that no rule is for.
    nothing: Rule,
    /// Whether the host's user namespace is more than modules have by default.
    remap: bool,
}

impl ModulePolicy {
    /// A policy of `rules`, the first of which that matches a module counts.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self {
            rules,
            nothing: Rule::nothing(),
            remap: false,
        }
    }

    /// The policy of a device that puts modules into user namespaces, if `remap`: to be in the
    /// host's is something to be allowed there.
    #[must_use]
    pub fn for_remapped(self, remap: bool) -> Self {
        Self { remap, ..self }
    }

    /// Adds to each module of `deployment` a refusal for everything that it asks for and
    /// may not have. `provided` is what the devices that modules request by name come to;
    /// `resolve` follows the links of a path on the host as far as it exists.
    pub fn apply(
        &self,
        deployment: &mut Deployment,
        provided: &BTreeMap<ContainerId, Vec<Provided>>,
        resolve: &dyn Fn(&Path) -> PathBuf,
    ) {
        let refusals: Vec<(ContainerId, Vec<Warning>)> = deployment
            .modules
            .iter()
            .map(|(id, spec)| {
                let mut inquiry = self.inquiry(id, deployment, resolve);
                inquiry.ask(spec);
                inquiry.requested(spec, provided.get(id).map_or(&[], Vec::as_slice));
                (id.clone(), inquiry.refusals)
            })
            .collect();
        for (id, refusals) in refusals {
            if let Some(spec) = deployment.modules.get_mut(&id) {
                spec.refusals.extend(refusals);
            }
        }
    }

    fn inquiry<'a>(
        &'a self,
        id: &ContainerId,
        deployment: &'a Deployment,
        resolve: &'a dyn Fn(&Path) -> PathBuf,
    ) -> Inquiry<'a> {
        let rule = self.rules.iter().find(|rule| rule.governs(id));
        Inquiry {
            rule: rule.unwrap_or(&self.nothing),
            known: rule.is_some(),
            remap: self.remap,
            deployment,
            resolve,
            refusals: Vec::new(),
        }
    }
}

/// One module held against its rule.
struct Inquiry<'a> {
    rule: &'a Rule,
    /// Whether the owner wrote that rule.
    known: bool,
    remap: bool,
    deployment: &'a Deployment,
    resolve: &'a dyn Fn(&Path) -> PathBuf,
    refusals: Vec<Warning>,
}

impl Inquiry<'_> {
    fn ask(&mut self, spec: &ModuleSpec) {
        self.confinement(spec);
        self.devices(spec);
        self.mounts(spec);
        self.namespaces(spec);
        self.log(spec);
    }

    /// Devices that are requested by name: by the name, or by all that comes with them.
    fn requested(&mut self, spec: &ModuleSpec, provided: &[Provided]) {
        const FIELD: &str = "HostConfig.DeviceRequests";
        let every_device = self.grants_everything(spec);
        for own in provided {
            if self.rule.allows_device_name(&own.name) {
                continue;
            }
            if !own.hooks.is_empty() {
                self.refuse(FIELD, &format!("{} with programs of the host", own.name));
            }
            for mapping in own.devices.iter().filter(|_| !every_device) {
                self.device(FIELD, &mapping.host_path);
            }
            for mount in &own.mounts {
                self.path(FIELD, &mount.source, mount.is_read_only());
            }
        }
    }

    fn refuse(&mut self, field: &str, what: &str) {
        let why = match self.known {
            true => format!(
                "rule {:?} of the owner's policy does not allow it",
                self.rule.modules.as_str()
            ),
            false => "no rule of the owner's policy is for this module".to_owned(),
        };
        self.refusals.push(Warning {
            field: format!("settings.createOptions.{field}"),
            message: format!("asks for {what}: {why}"),
        });
    }

    fn confinement(&mut self, spec: &ModuleSpec) {
        let options = &spec.options;
        if options.privilege == kobune_runtime::Privilege::Privileged && !self.rule.privileged {
            self.refuse("HostConfig.Privileged", "every device and capability");
        }
        if !self.grants_everything(spec) {
            for name in &options.capabilities.add {
                if !self.rule.allows_capability(name) {
                    self.refuse("HostConfig.CapAdd", name);
                }
            }
        }
        let security = &options.security;
        let loosened = [
            (
                security.seccomp != kobune_runtime::SeccompChoice::Default,
                "another seccomp profile",
            ),
            (security.apparmor.is_some(), "an AppArmor profile"),
            (security.masked_paths.is_some(), "other masked paths"),
            (security.readonly_paths.is_some(), "other read-only paths"),
        ];
        for (_, what) in loosened.into_iter().filter(|(asked, _)| *asked) {
            if !self.rule.unconfined {
                self.refuse("HostConfig.SecurityOpt", what);
            }
        }
    }

    /// Whether devices and capabilities need no further word.
    fn grants_everything(&self, spec: &ModuleSpec) -> bool {
        self.rule.privileged && spec.options.privilege == kobune_runtime::Privilege::Privileged
    }

    fn devices(&mut self, spec: &ModuleSpec) {
        if self.grants_everything(spec) {
            return;
        }
        for mapping in &spec.options.devices {
            self.device("HostConfig.Devices", &mapping.host_path);
        }
        for asked in &spec.options.device_rules {
            if !self.rule.allows_device_rule(asked) {
                self.refuse("HostConfig.DeviceCgroupRules", "a rule for devices");
            }
        }
    }

    fn device(&mut self, field: &str, path: &Path) {
        // A link of the host's /dev is as good as its name; one elsewhere is what it
        // leads to, for modules may be able to make it.
        let real = match path.starts_with("/dev") {
            true => path.to_owned(),
            false => (self.resolve)(path),
        };
        if !(self.rule.allows_device(path) && self.rule.allows_device(&real)) {
            self.refuse(field, &path.display().to_string());
        }
    }

    fn mounts(&mut self, spec: &ModuleSpec) {
        for mount in &spec.options.mounts {
            self.mount("HostConfig.Binds", mount, mount.read_only);
        }
        for from in &spec.options.volumes_from {
            let Some(other) = self.deployment.modules.get(&from.container) else {
                continue;
            };
            for mount in &other.options.mounts {
                let read_only = from.read_only.unwrap_or(mount.read_only);
                self.mount("HostConfig.VolumesFrom", mount, read_only);
            }
        }
    }

    fn mount(&mut self, field: &str, mount: &Mount, read_only: bool) {
        if let kobune_runtime::MountSource::Bind { path, .. } = &mount.source {
            self.path(field, path, read_only);
        }
    }

    fn path(&mut self, field: &str, path: &Path, read_only: bool) {
        let real = (self.resolve)(path);
        let allows = |path: &Path| self.rule.allows_mount(path, read_only);
        if !(allows(path) && allows(&real)) {
            let how = if read_only { "" } else { ", writable" };
            let leads = match real == path {
                true => String::new(),
                false => format!(" (which is {})", real.display()),
            };
            self.refuse(field, &format!("{}{leads}{how}", path.display()));
        }
    }

    /// A syslog server gets what the module says from the host: by a socket as if that was
    /// mounted, over the host's network as if the module was in it.
    fn log(&mut self, spec: &ModuleSpec) {
        let LogDriver::Syslog(syslog) = &spec.options.log_driver else {
            return;
        };
        let allowed = match &syslog.address {
            SyslogAddress::Unix(path) => {
                let real = (self.resolve)(path);
                path == Path::new(SyslogAddress::LOCAL)
                    || self.rule.allows_mount(path, false) && self.rule.allows_mount(&real, false)
            }
            SyslogAddress::Udp(_) | SyslogAddress::Tcp(_) => {
                self.rule.host_namespaces.contains(&HostNamespace::Network)
            }
        };
        if !allowed {
            self.refuse("HostConfig.LogConfig", &syslog.address.to_string());
        }
    }

    fn namespaces(&mut self, spec: &ModuleSpec) {
        let own = &spec.options.namespaces;
        let asked = [
            (
                self.joins_network(spec),
                HostNamespace::Network,
                "NetworkMode",
            ),
            (self.joins_pid(spec), HostNamespace::Pid, "PidMode"),
            (self.joins_ipc(spec), HostNamespace::Ipc, "IpcMode"),
            (own.host_uts, HostNamespace::Uts, "UTSMode"),
            (
                self.remap && own.user == UserMode::Host,
                HostNamespace::User,
                "UsernsMode",
            ),
            (
                own.own_cgroup == Some(false),
                HostNamespace::Cgroup,
                "CgroupnsMode",
            ),
        ];
        for (_, namespace, field) in asked.into_iter().filter(|(asked, ..)| *asked) {
            if !self.rule.host_namespaces.contains(&namespace) {
                self.refuse(&format!("HostConfig.{field}"), "the host's namespace");
            }
        }
    }

    fn joins_network(&self, spec: &ModuleSpec) -> bool {
        self.last(spec, |spec| match &spec.options.network {
            NetworkMode::Container(other) => Step::To(other.clone()),
            other => Step::Here(*other == NetworkMode::Host),
        })
    }

    fn joins_pid(&self, spec: &ModuleSpec) -> bool {
        self.last(spec, |spec| match &spec.options.namespaces.pid {
            NamespaceMode::Container(other) => Step::To(other.clone()),
            other => Step::Here(*other == NamespaceMode::Host),
        })
    }

    fn joins_ipc(&self, spec: &ModuleSpec) -> bool {
        self.last(spec, |spec| match &spec.options.namespaces.ipc {
            IpcMode::Container(other) => Step::To(other.clone()),
            other => Step::Here(*other == IpcMode::Host),
        })
    }

    /// Whether the module at the end of those that are joined is in the host's namespace.
    fn last(&self, spec: &ModuleSpec, step: impl Fn(&ModuleSpec) -> Step) -> bool {
        let mut at = spec;
        for _ in 0..LONGEST_CHAIN {
            match step(at) {
                Step::Here(host) => return host,
                Step::To(other) => match self.deployment.modules.get(&other) {
                    Some(other) => at = other,
                    None => return false,
                },
            }
        }
        false
    }
}

/// Whose namespace a module is in.
enum Step {
    /// Its own, or the host's.
    Here(bool),
    /// That of another module.
    To(ContainerId),
}
