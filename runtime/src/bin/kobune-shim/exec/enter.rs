//! The way into a container: cgroup, namespaces, user, confinement, program.
//!
//! Everything that can be looked up or opened is so before the fork and while nothing is
//! given up yet; from the first namespace on the way is one way. The program ends up as
//! confined as the container's first one: same cgroup and device rules, capabilities,
//! seccomp filter, AppArmor profile, limits.

use std::convert::Infallible;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use kobune_runtime::IdRange;
use kobune_runtime::cgroup::{CgroupPath, Cgroups};
use kobune_runtime::shim::ProcessId;
use kobune_runtime::shim::exec::{ExecFailure, ExecReport, send};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::chdir;
use oci_spec::runtime::{PosixRlimitType, Process, Spec};

use super::super::launch::LastStep;
use super::super::program::{self, NoProgram};
use super::super::users;
use super::terminal;

/// The order in which they are joined: mounts last, since the host's files are used until then.
/// The pid namespace is joined by the fork, and the user's after all others, for some of them
/// are not its own.
const NAMESPACES: [&str; 5] = ["cgroup", "ipc", "uts", "net", "mnt"];

/// What cannot be done, in one line.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) code: i32,
}

impl Refusal {
    pub(super) fn new(step: &str, cause: impl Display) -> Self {
        Self {
            message: format!("{step}: {cause}"),
            code: 126,
        }
    }
}

impl From<NoProgram> for Refusal {
    fn from(refusal: NoProgram) -> Self {
        Self {
            message: refusal.to_string(),
            code: refusal.code,
        }
    }
}

impl From<ExecFailure> for Refusal {
    fn from(failure: ExecFailure) -> Self {
        Self {
            message: failure.message,
            code: failure.code,
        }
    }
}

/// All that is needed to enter.
pub(super) struct Entry {
    spec: Spec,
    last_step: LastStep,
    init: ProcessId,
    pid_namespace: Option<File>,
    namespaces: Vec<(&'static str, File)>,
    user_namespace: Option<File>,
    cgroups: Vec<File>,
    oom_score_adj: String,
    /// Standard input, output and error; empty where there is to be a terminal.
    streams: Vec<OwnedFd>,
}

impl Entry {
    /// Looks everything up for the container whose first process is `init`.
    pub(super) fn prepare(
        spec: Spec,
        init: ProcessId,
        streams: Vec<OwnedFd>,
    ) -> Result<Self, Refusal> {
        let last_step = LastStep::new(&spec)
            .map_err(|error| Refusal::new("compile the seccomp profile", error))?;
        let proc = |name: &str| format!("/proc/{}/{name}", init.pid);
        let open = |name| namespace(init.pid, name);
        let mut namespaces = Vec::new();
        for name in NAMESPACES {
            if let Some(file) = open(name)? {
                namespaces.push((name, file));
            }
        }
        let entry = Self {
            cgroups: cgroups(&spec)?,
            pid_namespace: open("pid")?,
            user_namespace: open("user")?,
            oom_score_adj: std::fs::read_to_string(proc("oom_score_adj"))
                .map_err(|error| Refusal::new("read the container's oom score", error))?,
            namespaces,
            spec,
            last_step,
            init,
            streams,
        };
        // Opened first, compared second: all of it was this container's.
        entry.is_alive().then_some(entry).ok_or_else(ended)
    }

    fn is_alive(&self) -> bool {
        ProcessId::of(self.init.pid).is_ok_and(|now| now == self.init)
    }

    /// From here on this process's children are in the container's pid namespace.
    pub(super) fn join_pid_namespace(&self) -> Result<(), Refusal> {
        let Some(namespace) = &self.pid_namespace else {
            return Ok(());
        };
        setns(namespace, CloneFlags::CLONE_NEWPID).map_err(|errno| match errno {
            Errno::EINVAL | Errno::ENOMEM => ended(),
            errno => Refusal::new("join the pid namespace", errno),
        })
    }

    /// Enters and becomes the program; `word` is closed by that, or says why it did not
    /// come to it.
    #[allow(
        clippy::exit,
        clippy::disallowed_methods,
        reason = "a forked child that must run nothing of its parent's any more"
    )]
    pub(super) fn become_program(self, control: &UnixStream, word: OwnedFd) -> ! {
        let refusal = match self.enter(control) {
            Ok(never) => match never {},
            Err(refusal) => refusal,
        };
        let code = refusal.code;
        if let Ok(text) = serde_json::to_vec(&ExecFailure::from(refusal)) {
            let _ = File::from(word).write_all(&text);
        }
        std::process::exit(code)
    }

    fn enter(self, control: &UnixStream) -> Result<Infallible, Refusal> {
        let step = |name: &'static str| move |errno: Errno| Refusal::new(name, errno);
        nix::unistd::setsid().map_err(step("make a session"))?;
        umask(Mode::from_bits_truncate(0o022));
        for mut cgroup in &self.cgroups {
            cgroup
                .write_all(b"0")
                .map_err(|error| Refusal::new("join the cgroup", error))?;
        }
        // It may have ended before we were counted among what is ended with it.
        if !self.is_alive() {
            return Err(ended());
        }
        std::fs::write("/proc/self/oom_score_adj", self.oom_score_adj.trim())
            .map_err(|error| Refusal::new("be as likely to be killed as the container", error))?;
        let process = self.spec.process().clone().unwrap_or_default();
        self.confine_by_profile(&process)?;
        limit(&process)?;
        for (name, namespace) in &self.namespaces {
            setns(namespace, CloneFlags::empty())
                .map_err(|errno| Refusal::new(&format!("join the {name} namespace"), errno))?;
        }
        self.join_user_namespace(&process)?;
        let Self {
            spec,
            last_step,
            streams,
            ..
        } = self;
        connect(&process, streams, control)?;
        users::become_user(&process).map_err(|error| Refusal::new("become the user", error))?;
        chdir(process.cwd())
            .map_err(|errno| Refusal::new(&format!("enter {}", process.cwd().display()), errno))?;
        let program = program::find(&spec)?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(step("end with the launcher"))?;
        last_step
            .confine_fully()
            .map_err(|error| Refusal::new("confine the program", error))?;
        Err(last_step.execute(&program, &spec).into())
    }

    fn join_user_namespace(&self, process: &Process) -> Result<(), Refusal> {
        let Some(namespace) = &self.user_namespace else {
            return Ok(());
        };
        let range = self.spec.linux().as_ref().and_then(IdRange::of_spec);
        for stream in &self.streams {
            let given = range.map(|ids| ids.give_stream(process.user().uid(), stream.as_fd()));
            given
                .unwrap_or(Ok(()))
                .map_err(|error| Refusal::new("give the streams to the user", error))?;
        }
        users::join(namespace).map_err(|errno| Refusal::new("join the user namespace", errno))
    }

    fn confine_by_profile(&self, process: &Process) -> Result<(), Refusal> {
        let Some(profile) = process
            .apparmor_profile()
            .as_ref()
            .filter(|p| !p.is_empty())
        else {
            return Ok(());
        };
        std::fs::write("/proc/thread-self/attr/exec", format!("exec {profile}")).map_err(|error| {
            Refusal::new(&format!("ask for the AppArmor profile {profile}"), error)
        })
    }
}

fn ended() -> Refusal {
    Refusal::new("enter the container", "it has ended")
}

/// A namespace of the process; `None` where it is ours too.
fn namespace(pid: i32, name: &str) -> Result<Option<File>, Refusal> {
    let failed = |error| Refusal::new(&format!("find the {name} namespace"), error);
    let theirs = format!("/proc/{pid}/ns/{name}");
    let ours = match std::fs::read_link(format!("/proc/self/ns/{name}")) {
        Ok(ours) => ours,
        // A kernel without this kind.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if std::fs::read_link(&theirs).map_err(failed)? == ours {
        return Ok(None);
    }
    File::open(&theirs).map(Some).map_err(failed)
}

/// The lists of processes of the container's cgroup, one for each hierarchy, to be written to.
fn cgroups(spec: &Spec) -> Result<Vec<File>, Refusal> {
    let failed = |cause: &dyn Display| Refusal::new("find the container's cgroup", cause);
    let linux = spec.linux().as_ref();
    let path = linux.and_then(|linux| linux.cgroups_path().clone());
    let path = path.ok_or_else(|| failed(&"the spec names none"))?;
    let path = CgroupPath::try_from(path.to_string_lossy().as_ref()).map_err(|e| failed(&e))?;
    let cgroups = Cgroups::host().map_err(|error| failed(&error))?;
    let lists = cgroups.join_files(&path).map_err(|error| failed(&error))?;
    if lists.is_empty() {
        return Err(ended());
    }
    Ok(lists)
}

/// The container's limits; where it has none the agent's go on, as for its first process.
fn limit(process: &Process) -> Result<(), Refusal> {
    for limit in process.rlimits().iter().flatten() {
        let Some(resource) = resource(limit.typ()) else {
            continue;
        };
        setrlimit(resource, limit.soft(), limit.hard())
            .map_err(|errno| Refusal::new(&format!("set the limit {:?}", limit.typ()), errno))?;
    }
    Ok(())
}

fn resource(limit: PosixRlimitType) -> Option<Resource> {
    Some(match limit {
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
    })
}

/// Standard input, output and error: the agent's pipes, or a terminal whose outer end the
/// agent gets.
fn connect(process: &Process, streams: Vec<OwnedFd>, control: &UnixStream) -> Result<(), Refusal> {
    let terminal_error = |error: io::Error| Refusal::new("open a terminal", error);
    let streams = if process.terminal() == Some(true) {
        let size = process.console_size().unwrap_or_default();
        let cells = |count: u64| u16::try_from(count).unwrap_or(u16::MAX);
        let size = (cells(size.height()), cells(size.width()));
        let (outer, inner) = terminal::open_terminal(size).map_err(terminal_error)?;
        terminal::hand_over(&inner, process.user().uid()).map_err(terminal_error)?;
        rustix::process::ioctl_tiocsctty(&inner).map_err(|e| terminal_error(e.into()))?;
        send(control, &ExecReport::Terminal, &[outer.as_fd()]).map_err(terminal_error)?;
        let again = || inner.try_clone().map_err(terminal_error);
        [again()?, again()?, again()?]
    } else {
        streams
            .try_into()
            .map_err(|_| Refusal::new("take over the streams", "the agent sent none"))?
    };
    let [stdin, stdout, stderr] = streams;
    nix::unistd::dup2_stdin(stdin)
        .and_then(|()| nix::unistd::dup2_stdout(stdout))
        .and_then(|()| nix::unistd::dup2_stderr(stderr))
        .map_err(|errno| Refusal::new("take over the streams", errno))
}
