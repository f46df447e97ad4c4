//! The emulator behind a virtual device: its command line and its process.

use std::fs;
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{FORWARDED_PORT, Machine, System};

/// What a device is made of, beside its processor and its disks.
#[derive(Debug)]
pub(super) struct Hardware {
    /// As QEMU has it: a time, or `utc` for the right one.
    pub(super) clock: String,
    /// In MB.
    pub(super) memory: u32,
}

impl Default for Hardware {
    fn default() -> Self {
        Self {
            clock: "utc".to_owned(),
            memory: 128,
        }
    }
}

/// What is there while it is switched on.
#[derive(Debug)]
pub(super) struct Power {
    pub(super) qemu: Process,
    pub(super) control: BufReader<UnixStream>,
    /// The device's own time when it was ready, in seconds since its kernel started.
    pub(super) uptime: f64,
}

/// A running emulator; it ends with this value.
#[derive(Debug)]
pub(super) struct Process(Child);

impl Process {
    /// Whether it ended by itself, which it does not as long as all is well.
    pub(super) fn ended(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(Some(_)) | Err(_))
    }

    /// Ends it at once. Idempotent.
    pub(super) fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts the emulator of `machine`; `socket` is where it listens for the device's shell.
pub(super) fn spawn(machine: &Machine<'_>, socket: &Path, parameters: &str) -> Process {
    let log = fs::File::create(machine.lab.dir().join("qemu.log")).expect("QEMU's log");
    // A test that is killed leaves no machine behind.
    let mut qemu = machine.lab.command("setpriv");
    qemu.args(["--pdeathsig", "KILL", "--"])
        .args(processor(&machine.files.arch))
        .args(["-accel", "tcg", "-smp", "1", "-nodefaults", "-no-reboot"])
        .args(["-m", &machine.hardware.memory.to_string()])
        .args(["-rtc", &format!("base={}", machine.hardware.clock)])
        .args(["-display", "none", "-monitor", "none"])
        .args(["-audiodev", "none,id=a"]);
    boot_files(&mut qemu, machine, parameters);
    devices(&mut qemu, machine, socket);
    let qemu = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    Process(qemu.expect("QEMU starts"))
}

fn processor(arch: &str) -> [&'static str; 5] {
    let (program, cpu) = match arch {
        "arm64" => ("qemu-system-aarch64", "cortex-a57"),
        _ => ("qemu-system-arm", "cortex-a15"),
    };
    [program, "-M", "virt", "-cpu", cpu]
}

fn boot_files(qemu: &mut Command, machine: &Machine<'_>, parameters: &str) {
    let file = |name: &str| machine.files.dir.join(name);
    let console = machine.lab.dir().join("console");
    // Debian's kernel would keep 16 MB for cameras and screens, and modules cannot use them.
    let mut parameters = format!("console=ttyAMA0 panic=-1 quiet cma=0 {parameters}");
    if machine.files.system == System::Debian {
        parameters += " rw";
    }
    qemu.arg("-kernel")
        .arg(file("vmlinuz"))
        .arg("-initrd")
        .arg(file("initramfs"))
        .arg("-append")
        .arg(parameters)
        .args(["-serial", &format!("file:{}", console.display())]);
}

/// All without PCI, which not every Arm kernel finds on this board.
fn devices(qemu: &mut Command, machine: &Machine<'_>, socket: &Path) {
    let root = machine.files.dir.join("root.img");
    let root_mode = match machine.files.system {
        System::Minimal => "readonly=on",
        System::Debian => "snapshot=on",
    };
    for (id, file, mode) in [
        ("root", root, root_mode),
        ("data", machine.data(), "cache=writeback"),
    ] {
        let file = file.display();
        qemu.arg("-drive")
            .arg(format!("if=none,format=raw,id={id},file={file},{mode}"))
            .arg("-device")
            .arg(format!("virtio-blk-device,drive={id},serial={id}"));
    }
    let socket = socket.display();
    qemu.args(["-device", "virtio-rng-device"])
        .arg("-netdev")
        .arg(format!(
            "user,id=n0,hostfwd=tcp:127.0.0.1:{FORWARDED_PORT}-:80"
        ))
        .args(["-device", "virtio-net-device,netdev=n0"])
        .args(["-device", "virtio-serial-device", "-chardev"])
        .arg(format!("socket,id=control,path={socket},server=on,wait=on"))
        .args([
            "-device",
            "virtserialport,chardev=control,name=kobune.control",
        ]);
}
