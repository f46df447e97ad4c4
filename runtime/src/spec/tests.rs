//! Specifications as a whole, against expected files, and the rules of each part.

mod golden;
mod mounts;
mod rules;
mod runc;

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::image::{Arch, ConfigBuilder, ImageConfiguration, ImageConfigurationBuilder};
use oci_spec::runtime::Capability;

use super::*;
use crate::facts::{CgroupMode, DeviceNode};
use crate::options::{DeviceAccess, DeviceClass};
use crate::user;

/// A request with everything it refers to, to be changed by a test.
struct Case {
    id: ContainerId,
    image: ImageConfiguration,
    options: ContainerOptions,
    facts: HostFacts,
    paths: SpecPaths,
    host_network: bool,
    cgroup_path: String,
    seccomp: Option<LinuxSeccomp>,
    users: Option<SpecUsers<'static>>,
}

impl Case {
    fn new() -> Self {
        let run = PathBuf::from("/run/kobune/led");
        let command = vec!["/usr/bin/led".to_owned()];
        Self {
            id: ContainerId::try_from("led").unwrap(),
            image: image(ConfigBuilder::default().entrypoint(command)),
            options: ContainerOptions::default(),
            facts: HostFacts {
                user: user::resolve("", "root:x:0:0::/root:/bin/sh", "").unwrap(),
                mapped_devices: Vec::new(),
                host_devices: Vec::new(),
                bind_sources: BTreeMap::new(),
                cgroup: CgroupMode::V1 {
                    hierarchies: strings(&["memory", "systemd"]),
                },
                swap_accounting: true,
                block_io_weight: false,
                block_devices: BTreeMap::new(),
                unprivileged_port_sysctl: true,
                hostname: "gateway".to_owned(),
            },
            paths: SpecPaths {
                rootfs: run.join("rootfs"),
                hosts: Some(run.join("hosts")),
                hostname: Some(run.join("hostname")),
                resolv_conf: Some(run.join("resolv.conf")),
                shm: None,
                notify: run.join("notify"),
                volume_parts: run.join("parts"),
                volumes: "/var/lib/kobune/volumes".into(),
            },
            host_network: false,
            cgroup_path: "/kobune/led".to_owned(),
            seccomp: Some(LinuxSeccomp::default()),
            users: None,
        }
    }

    fn build(&self) -> Result<Built, SpecError> {
        build(&SpecRequest {
            id: &self.id,
            image: &self.image,
            options: &self.options,
            facts: &self.facts,
            paths: &self.paths,
            network: if self.host_network {
                SpecNetwork::Host
            } else {
                SpecNetwork::Namespace(Path::new("/run/netns/led"))
            },
            users: self.users,
            joined: &JoinedNamespaces::default(),
            cgroup_path: &self.cgroup_path,
            seccomp: self.seccomp.clone(),
            capabilities: &Capabilities::from([Capability::Kill, Capability::Mknod]),
            provided: &[],
        })
    }

    /// Rules in the notation of the devices cgroup, `-` for a denial.
    fn device_rules(&self) -> Vec<String> {
        let spec = self.build().unwrap().spec;
        let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        let rules = resources.devices().clone().unwrap();
        rules
            .iter()
            .map(|rule| format!("{}{rule}", if rule.allow() { "" } else { "-" }))
            .collect()
    }
}

fn image(config: ConfigBuilder) -> ImageConfiguration {
    ImageConfigurationBuilder::default()
        .architecture(Arch::ARM64)
        .config(config.build().unwrap())
        .build()
        .unwrap()
}

fn i2c(access: &str) -> DeviceNode {
    DeviceNode {
        host_path: "/dev/i2c-1".into(),
        container_path: "/dev/i2c-1".into(),
        class: DeviceClass::Char,
        major: 89,
        minor: 1,
        mode: 0o660,
        uid: 0,
        gid: 44,
        access: DeviceAccess::try_from(access).unwrap(),
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}
