//! This machine's files under another kernel: Debian's, in QEMU, with cgroups of version 2 alone.
//!
//! Programs find everything where it is here, but what is below `/tmp` and `/run`. What they
//! write is gone with the guest.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::machine::files_of;
use crate::{CliOutput, Device};

/// Where QEMU may use the processor itself, and where it cannot. That there is `/dev/kvm` says
/// little: on some machines it opens, and no kernel boots.
const ACCELERATORS: [[&str; 2]; 2] = [["kvm", "host"], ["tcg,thread=multi", "max"]];
/// How long a kernel that boots at all takes.
const BOOT_TIMEOUT: Duration = Duration::from_secs(30);
/// Room for what the programs write.
const SCRATCH: &str = "4G";
/// What programs are told of this machine.
const PASSED_ON: [&str; 6] = [
    "CARGO_HOME",
    "CARGO_TARGET_DIR",
    "CI",
    "HOME",
    "PATH",
    "RUSTUP_HOME",
];

/// What guests boot from.
#[derive(Debug)]
pub struct Guest {
    dir: PathBuf,
}

impl Guest {
    /// Fetches the kernel, where that was not done before.
    ///
    /// # Errors
    /// With what was said where that fails.
    pub fn prepared() -> io::Result<Self> {
        files_of(&["--guest"]).map(|dir| Self { dir })
    }

    /// Boots a guest that runs a script of the shell, beside `lab` and one at a time there. Its
    /// output has that of the script, both streams in one.
    ///
    /// # Panics
    /// Where the script does not come to its end within `patience`, with the guest's console.
    #[must_use]
    pub fn run(&self, lab: &Device, script: &str, patience: Duration) -> CliOutput {
        let exchange = lab.dir().join("exchange");
        fs::create_dir(&exchange).expect("a directory");
        fs::write(exchange.join("init"), init(script)).expect("the guest's init");
        let end = Instant::now() + patience;
        let code = ACCELERATORS
            .iter()
            .find_map(|accelerator| self.boot(lab.dir(), accelerator, end));
        let read = |path: &Path| fs::read(path).unwrap_or_default();
        let output = read(&exchange.join("output"));
        let console = read(&lab.dir().join("console"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let _ = fs::remove_dir_all(&exchange);
        CliOutput {
            code: code.unwrap_or_else(|| panic!("no end: {}{}", text(&output), text(&console))),
            stdout: text(&output),
            stderr: text(&console),
        }
    }

    /// The script's exit code; none where nothing booted, or the script did not end in time.
    fn boot(&self, dir: &Path, accelerator: &[&str; 2], end: Instant) -> Option<i32> {
        scratch(&dir.join("scratch.img"));
        let mut qemu = self.spawn(dir, accelerator);
        let started = || dir.join("exchange/started").exists();
        let boot_end = match accelerator[0] {
            "kvm" => end.min(Instant::now() + BOOT_TIMEOUT),
            _ => end,
        };
        let mut over = false;
        while !over && Instant::now() < if started() { end } else { boot_end } {
            std::thread::sleep(Duration::from_millis(200));
            over = !matches!(qemu.try_wait(), Ok(None));
        }
        let _ = qemu.kill();
        let _ = qemu.wait();
        assert!(over || !started(), "the guest's time is over");
        let code = fs::read_to_string(dir.join("exchange/code")).ok()?;
        code.trim().parse().ok()
    }

    fn spawn(&self, dir: &Path, [accelerator, processor]: &[&str; 2]) -> Child {
        let console = File::create(dir.join("console")).expect("the guest's console");
        let errors = console.try_clone().expect("a second descriptor");
        // A test that is killed leaves no guest behind.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
            .args(["-M", "q35", "-accel", accelerator, "-cpu", processor])
            .args(["-smp", "2", "-m", "2048", "-nodefaults", "-no-reboot"])
            .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
            .args(["-append", "console=ttyS0 panic=-1 quiet"])
            .arg("-kernel")
            .arg(self.dir.join("vmlinuz"))
            .arg("-initrd")
            .arg(self.dir.join("initramfs"))
            .args(["-device", "virtio-rng-pci", "-drive"])
            .arg(format!(
                "if=none,format=raw,id=scratch,cache=unsafe,file={}",
                dir.join("scratch.img").display()
            ))
            .args(["-device", "virtio-blk-pci,drive=scratch"]);
        share(&mut qemu, "host", Path::new("/"), ",readonly=on");
        let modules = self.dir.join("lib/modules");
        share(&mut qemu, "kernel", &modules, ",readonly=on");
        share(&mut qemu, "exchange", &dir.join("exchange"), "");
        qemu.stdin(Stdio::null()).stdout(console).stderr(errors);
        qemu.spawn().expect("QEMU starts")
    }
}

fn share(qemu: &mut Command, name: &str, path: &Path, mode: &str) {
    let path = path.display();
    qemu.arg("-fsdev")
        .arg(format!(
            "local,id={name},path={path},security_model=none,multidevs=remap{mode}"
        ))
        .arg("-device")
        .arg(format!("virtio-9p-pci,fsdev={name},mount_tag={name}"));
}

fn scratch(image: &Path) {
    let _ = fs::remove_file(image);
    let mut make = Command::new("/usr/sbin/mke2fs");
    let status = make
        .args(["-q", "-F", "-t", "ext4"])
        .arg(image)
        .arg(SCRATCH);
    let status = status.stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "a disk");
}

/// The first program of the guest's root.
fn init(script: &str) -> String {
    let quoted = |text: &str| text.replace('\'', r"'\''");
    let passed_on: String = PASSED_ON
        .iter()
        .filter_map(|name| Some((name, std::env::var(name).ok()?)))
        .map(|(name, value)| format!("export {name}='{}'\n", quoted(&value)))
        .collect();
    let script = quoted(script);
    format!(
        "{passed_on}touch /mnt/started\nsh -c '{script}' > /mnt/output 2>&1 < /dev/null\n\
         echo $? > /mnt/code\necho o > /proc/sysrq-trigger\nsleep 60\n"
    )
}
