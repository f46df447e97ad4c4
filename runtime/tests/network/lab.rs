//! A network of namespaces to test in: this process is the host, `client` is another
//! machine on its only link and knows no route to the modules.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use kobune_runtime::{
    Attachment, ContainerId, Endpoint, Engine, Network, NetworkConfig, NetworkMode, PortBinding,
    Protocol,
};
use nix::sched::{CloneFlags, setns};

pub(crate) const BRIDGE: &str = "azure-iot-edge";
/// Port on which echo servers listen.
pub(crate) const ECHO: u16 = 7;
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// The host's port that leads to [`ECHO`] of a module with [`published`] ports.
pub(crate) const PUBLISHED: u16 = 8007;
pub(crate) const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

const MARKER: &str = "KOBUNE_TEST_ISOLATED";
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Runs `body` in fresh network, mount and pid namespaces, by running this test program
/// again for the one test `name` of `module`; whatever the body leaves ends with them.
pub(crate) fn isolated(module: &str, name: &str, body: fn(&Lab)) {
    if std::env::var_os(MARKER).is_some() {
        return body(&Lab::new());
    }
    if !nix::unistd::geteuid().is_root() {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "needs root"
        );
        println!("skipped: {name} needs root");
        return;
    }
    let (_crate, module) = module.split_once("::").unwrap();
    let output = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
        ])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            &format!("{module}::{name}"),
            "--nocapture",
            "--test-threads=1",
        ])
        .env(MARKER, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "the test ran: {text}");
}

pub(crate) struct Lab {
    run_dir: PathBuf,
}

impl Lab {
    fn new() -> Self {
        for command in [
            "mount -t tmpfs tmpfs /run",
            "ip link set lo up",
            "ip netns add client",
            "ip link add up0 type veth peer name eth0 netns client",
            "ip addr add 10.99.0.1/24 dev up0",
            "ip link set up0 up",
            "ip -n client link set lo up",
            "ip -n client addr add 10.99.0.2/24 dev eth0",
            "ip -n client link set eth0 up",
        ] {
            run(command);
        }
        let lab = Self::here();
        serve(&lab.client(), "outside");
        lab
    }

    /// The lab that another process has built around this one.
    pub(crate) fn here() -> Self {
        Self {
            run_dir: PathBuf::from("/run/kobune/network"),
        }
    }

    pub(crate) fn client(&self) -> PathBuf {
        PathBuf::from("/run/netns/client")
    }

    pub(crate) fn config(&self, engine: Engine) -> NetworkConfig {
        let tests = std::env::current_exe().unwrap();
        let forwarder = tests.parent().unwrap().with_file_name("examples/forward");
        assert!(
            forwarder.exists(),
            "build it by: cargo build --example forward"
        );
        NetworkConfig {
            bridge: BRIDGE.to_owned(),
            subnet: None,
            mtu: None,
            engine,
            run_dir: self.run_dir.clone(),
            forwarder,
        }
    }

    pub(crate) fn open(&self, engine: Engine) -> Network {
        Network::open(self.config(engine)).unwrap()
    }

    /// What of ours is in the kernel or on disk, beside the addresses' memory.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let links = run("ip -o link");
        found.extend(
            links
                .lines()
                .filter(|l| l.contains(": kb") || l.contains(BRIDGE))
                .map(str::to_owned),
        );
        found.extend(run("nft list tables").lines().map(str::to_owned));
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let dir = self.run_dir.to_str().unwrap();
        found.extend(
            mounts
                .lines()
                .filter(|l| l.contains(dir))
                .map(str::to_owned),
        );
        for dir in ["netns", "attachments", "forward"] {
            for entry in std::fs::read_dir(self.run_dir.join(dir)).unwrap() {
                found.push(entry.unwrap().path().display().to_string());
            }
        }
        found.extend(forwarders().iter().map(|pid| format!("forwarder {pid}")));
        found
    }
}

/// Pids of the forwarders in this pid namespace that are not zombies.
pub(crate) fn forwarders() -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let target = std::fs::read_link(format!("/proc/{pid}/exe"));
            target.is_ok_and(|path| path.ends_with("examples/forward"))
        })
        .collect()
}

pub(crate) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn id(name: &str) -> ContainerId {
    ContainerId::try_from(name).unwrap()
}

pub(crate) fn endpoint(name: &str, ports: &[PortBinding]) -> Endpoint {
    Endpoint {
        id: id(name),
        mode: NetworkMode::Bridge,
        names: vec![name.to_owned()],
        ports: ports.to_vec(),
        preferred_address: None,
        hosts_path: None,
        netns: None,
        extra_hosts: Vec::new(),
    }
}

pub(crate) fn port(protocol: Protocol, host_port: Option<u16>) -> PortBinding {
    PortBinding {
        container_port: ECHO,
        protocol,
        host_ip: None,
        host_port,
    }
}

pub(crate) fn published() -> [PortBinding; 2] {
    BOTH.map(|protocol| port(protocol, Some(PUBLISHED)))
}

/// Runs `body` in the network namespace at `netns`, or here.
pub(crate) fn within<T: Send>(netns: Option<&Path>, body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = || {
            if let Some(path) = netns {
                let file = std::fs::File::open(path).unwrap();
                setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            }
            body()
        };
        scope.spawn(inside).join().unwrap()
    })
}

/// Answers on [`ECHO`] in `netns` with `name` and what was sent, by TCP after the sender
/// has ended its half.
pub(crate) fn serve(netns: &Path, name: &str) {
    let (tcp, udp) = within(Some(netns), || {
        let any = Ipv4Addr::UNSPECIFIED;
        (
            TcpListener::bind((any, ECHO)).unwrap(),
            UdpSocket::bind((any, ECHO)).unwrap(),
        )
    });
    let (tcp_name, udp_name) = (name.to_owned(), name.to_owned());
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let (mut stream, name) = (stream.unwrap(), tcp_name.clone());
            thread::spawn(move || {
                let mut heard = Vec::new();
                let read = stream.read_to_end(&mut heard);
                let answer = [name.as_bytes(), b" ", &heard].concat();
                read.and_then(|_| stream.write_all(&answer))
            });
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 65536];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).unwrap();
            let answer = [udp_name.as_bytes(), b" ", &buffer[..length]].concat();
            udp.send_to(&answer, from).unwrap();
        }
    });
}

pub(crate) fn ask(
    from: Option<&Path>,
    protocol: Protocol,
    to: (Ipv4Addr, u16),
) -> io::Result<String> {
    let to = SocketAddr::from(to);
    let answer = within(from, || match protocol {
        Protocol::Tcp => exchange(to, b"hi"),
        Protocol::Udp => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect(to)?;
            socket.send(b"hi")?;
            let mut buffer = [0; 100];
            let length = socket.recv(&mut buffer)?;
            Ok(buffer[..length].to_vec())
        }
    });
    answer.map(|bytes| String::from_utf8(bytes).unwrap())
}

/// Sends all of `data`, ends this half, and reads the answer to its end.
pub(crate) fn exchange(to: SocketAddr, data: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE * 5))?;
    stream.write_all(data)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

pub(crate) fn attach(network: &Network, endpoint: &Endpoint) -> Attachment {
    let attachment = network.attach(endpoint).unwrap();
    serve(&attachment.netns, endpoint.id.as_str());
    attachment
}
