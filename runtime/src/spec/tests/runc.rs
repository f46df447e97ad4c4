//! Specifications run by runc: proof that they are valid beyond our own launcher, and that
//! what they say about users, devices and mounts holds.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::Uid;
use tempfile::TempDir;

use super::*;
use crate::options::{DeviceMapping, Mount, MountSource};

/// A bundle with busybox as its root file system; removed with its container.
struct Bundle {
    dir: TempDir,
    id: String,
}

impl Bundle {
    /// A fresh bundle, or nothing where containers cannot be run. In CI root is a must.
    fn new(id: &str) -> Option<Self> {
        let root = Uid::effective().is_root();
        assert!(root || std::env::var_os("CI").is_none_or(|ci| ci != "true"));
        let usable = |program: &str| Command::new(program).arg("--help").output().is_ok();
        if !root || !usable("runc") || !usable("busybox") {
            println!("skipped: needs root, runc and a static busybox");
            return None;
        }
        let dir = TempDir::new().unwrap();
        let bin = dir.path().join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir(dir.path().join("rootfs/etc")).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for (name, text) in [
            (
                "passwd",
                "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/tmp:/bin/sh\n",
            ),
            ("group", "app:x:1001:\ni2c:x:44:app\n"),
        ] {
            fs::write(dir.path().join("rootfs/etc").join(name), text).unwrap();
        }
        let id = format!("{id}-{}", std::process::id());
        Some(Self { dir, id })
    }

    /// Runs `script` in a container of `case` and returns what it prints.
    fn run(&self, case: &mut Case, script: &str) -> String {
        let path = self.dir.path();
        case.id = ContainerId::try_from(self.id.as_str()).unwrap();
        case.image = image(ConfigBuilder::default());
        let command = ["/bin/busybox", "sh", "-c", script];
        case.options.command = Some(strings(&command));
        case.host_network = true;
        case.cgroup_path = format!("/kobune-test/{}", self.id);
        case.seccomp = None;
        case.paths = SpecPaths {
            shm: None,
            notify: path.join("notify"),
            volume_parts: path.join("parts"),
            rootfs: path.join("rootfs"),
            hosts: Some(path.join("hosts")),
            hostname: None,
            resolv_conf: None,
            volumes: path.join("volumes"),
        };
        fs::write(path.join("hosts"), "127.0.0.1 from-the-agent\n").unwrap();
        case.facts = HostFacts::gather(&case.options, &case.paths.rootfs, &case.image).unwrap();
        let built = case.build().unwrap();
        for volume in &built.volumes {
            fs::create_dir_all(&volume.path).unwrap();
        }
        built.spec.save(path.join("config.json")).unwrap();
        let output = self.runc(&["run", "--bundle", path.to_str().unwrap(), &self.id]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn runc(&self, args: &[&str]) -> std::process::Output {
        Command::new("runc")
            .arg("--root")
            .arg(self.dir.path().join("state"))
            .args(args)
            .output()
            .unwrap()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.runc(&["delete", "--force", &self.id]);
        // Left by runc as the container's parent; another test may still use it.
        for hierarchy in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = fs::remove_dir(hierarchy.path().join("kobune-test"));
        }
        let _ = fs::remove_dir("/sys/fs/cgroup/kobune-test");
    }
}

#[test]
fn only_the_mapped_device_can_be_opened() {
    let Some(bundle) = Bundle::new("device") else {
        return;
    };
    let node = bundle.dir.path().join("i2c");
    let mode = Mode::from_bits_truncate(0o600);
    mknod(&node, SFlag::S_IFCHR, mode, makedev(89, 1)).unwrap();
    let mut case = Case::new();
    case.options.devices = vec![DeviceMapping {
        host_path: node,
        container_path: "/dev/i2c-1".into(),
        access: DeviceAccess::try_from("mrw").unwrap(),
    }];
    // No driver has 89:1 here, so an open that is allowed fails with ENXIO.
    let script = "cd /dev; b=/bin/busybox
        $b mknod i2c-2 c 89 2 && $b mknod kmsg c 1 11 && $b mknod sda b 8 0
        for node in null i2c-1 i2c-2 kmsg sda; do
            $b dd if=$node of=/dev/null count=0 2>&1 | $b sed -n 's/.*: //p'
        done";
    let printed = bundle.run(&mut case, script);
    let denied = "Operation not permitted";
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines, ["No such device or address", denied, denied, denied]);
}

#[test]
fn user_environment_and_mounts_are_as_asked_for() {
    let Some(bundle) = Bundle::new("user") else {
        return;
    };
    let mut case = Case::new();
    case.options.user = Some("app".to_owned());
    case.options.hostname = Some("sensor".to_owned());
    case.options.readonly_rootfs = true;
    let mount = |source, target: &str| Mount {
        source,
        target: target.into(),
        read_only: false,
    };
    let tmpfs = MountSource::Tmpfs {
        size: Some(1 << 20),
        mode: None,
        options: Vec::new(),
    };
    let volume = MountSource::volume(None);
    case.options.mounts = vec![mount(volume, "/tmp/data"), mount(tmpfs, "/tmp")];
    let script = "b=/bin/busybox; $b id -u; $b id -g; $b id -G; echo $HOME; $b hostname
        $b cat /etc/hosts
        $b touch /x 2>&1 | $b sed 's/.*: //'
        $b touch /tmp/x && echo written
        $b grep -c ' /tmp ' /proc/mounts
        $b grep ' /tmp/data ' /proc/mounts >/dev/null && echo volume
        $b cat /proc/sysrq-trigger /proc/kcore 2>/dev/null | $b wc -c
        $b grep CapEff /proc/self/status";
    let printed = bundle.run(&mut case, script);
    let expected = [
        "1000",
        "1001",
        "1001 44",
        "/tmp",
        "sensor",
        "127.0.0.1 from-the-agent",
        "Read-only file system",
        "written",
        "1",
        "volume",
        "0",
        "CapEff:\t0000000000000000",
    ];
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}
