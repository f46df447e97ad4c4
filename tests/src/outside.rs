//! Another machine on the device's only link.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns};

use crate::Device;

/// The device's address on that link.
pub const DEVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The other machine's address.
pub const OUTSIDE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// The device's end of the link.
pub(crate) const LINK: &str = "eth0";

/// A network namespace that is connected to the device's. Ends when dropped.
#[derive(Debug)]
pub struct Outside {
    holder: Child,
}

impl Outside {
    /// Connects another machine to `device`; it knows no route to the modules.
    ///
    /// # Panics
    /// Where that is not possible.
    #[must_use]
    pub fn new(device: &Device) -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec sleep infinity"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut word = [0; 6];
        let stdout = holder.stdout.as_mut().expect("stdout is piped");
        std::io::Read::read_exact(stdout, &mut word).expect("the namespace is there");
        let outside = Self { holder };
        let pid = outside.holder.id();
        for (inside, command) in [
            (
                true,
                format!("ip link add {LINK} type veth peer name eth1 netns {pid}"),
            ),
            (true, format!("ip addr add {DEVICE_ADDRESS}/24 dev {LINK}")),
            (true, format!("ip link set {LINK} up")),
            (false, format!("ip addr add {OUTSIDE_ADDRESS}/24 dev eth1")),
            (false, "ip link set eth1 up".to_owned()),
        ] {
            let mut words = command.split(' ');
            let program = words.next().unwrap_or_default();
            let mut run = if inside {
                device.command(program)
            } else {
                outside.command(program)
            };
            let status = run.args(words).status().expect("ip runs");
            assert!(status.success(), "{command} failed");
        }
        outside
    }

    /// Runs `work` on a thread of the other machine.
    ///
    /// # Panics
    /// Where `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.holder.id()));
        let namespace = namespace.expect("the other machine lives");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("the other machine's network");
                work()
            });
            let joined = thread.join();
            joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.holder.id().to_string(), program]);
        command
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
