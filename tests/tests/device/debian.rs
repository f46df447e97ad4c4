//! The Debian package on Debian: systemd starts the agent.

use std::process::Command;

use kobune_tests::{CliOutput, Device, Machine, System, machine, tutorial};

use crate::{apply, identities, move_button, turn_of, wait_running};

/// What the package is, as Debian names the device's processor.
const ARCH: &str = "armhf";
/// Two versions of the same programs.
const OLD: &str = "1.0";
const NEW: &str = "1.1";

/// What the agent and its modules leave, by kind; nothing after a purge.
const LEFT: &str = "for exe in /proc/[0-9]*/exe; do readlink $exe; done | grep -e kobune -e /led -e /button; \
    grep kobune /proc/mounts; find /sys/fs/cgroup -name '*kobune*'; \
    ip -brief link | grep -v -e ^lo -e ^eth0; nft list ruleset; ip netns; \
    find / -xdev -name '*kobune*' ! -path '/root/*.deb' ! -path '/proc/*'; getent group kobune";

#[test]
fn the_package_for_arm_satisfies_lintian() {
    let Some(turn) = turn_of("armv7", System::Debian) else {
        return;
    };
    let package = turn.files.program(&format!("kobune_{NEW}_{ARCH}.deb"));
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "warning,error"]);
    let lintian = CliOutput::of(lintian.arg(&package));
    assert_eq!((lintian.code, lintian.stdout.as_str()), (0, ""));
}

#[test]
fn on_debian_the_package_is_installed_upgraded_under_running_modules_and_purged() {
    let Some(turn) = turn_of("armv7", System::Debian) else {
        return;
    };
    let lab = Device::new();
    let mut device = turn.machine(&lab);
    let registry = machine::registry(&lab, &turn.files, &["1.0"]);
    device.boot("");
    let config = format!(
        "[registry]\nplain_http = [\"{}:{}\"]\n",
        machine::HOST,
        machine::REGISTRY_PORT
    );
    let _ = device.run("mkdir /etc/kobune").ok();
    device.write("/etc/kobune/config.toml", &config);

    install(&mut device, OLD);
    let first = agent(&mut device);
    apply(&mut device, &tutorial::deployment(&registry, "1.0"));
    wait_running(&mut device);
    move_button(&mut device, "press", "on");
    let before = identities(&mut device);

    install(&mut device, NEW);
    assert_ne!(agent(&mut device), first, "the old agent runs on");
    assert_eq!(identities(&mut device), before, "the upgrade touched them");
    move_button(&mut device, "release", "off");
    // The new one is in charge of them.
    let _ = device.run("kobune restart led-acr").ok();
    move_button(&mut device, "press", "on");

    let _ = device.run("dpkg --purge kobune").ok();
    assert_eq!(device.run(LEFT).stdout, "");
}

/// Installs the package in `version` and waits until its agent answers.
#[track_caller]
fn install(device: &mut Machine<'_>, version: &str) {
    let said = device
        .run(&format!("dpkg -i /root/kobune_{version}_{ARCH}.deb"))
        .ok();
    let up = "systemctl is-active kobune && kobune list > /dev/null && echo up; \
              systemctl --no-pager status kobune; journalctl --no-pager -u kobune | tail -n 40";
    device.wait_for(up, 60, |said| said.contains("\nup\n"));
    let installed = device.run("dpkg-query -W -f '${Status} ${Version}' kobune");
    assert_eq!(
        installed.ok(),
        format!("install ok installed {version}"),
        "{said}"
    );
}

/// Pid of the agent as systemd has it.
fn agent(device: &mut Machine<'_>) -> String {
    device.run("systemctl show -P MainPID kobune").ok()
}
