//! Creates and starts a container. Nothing uses libcontainer but this file and those in `launch/`.
//!
//! libcontainer is made to do what it does well (namespaces, mounts, cgroups, users) and
//! is never trusted where it fails silently: built without its C libraries it ignores
//! seccomp profiles, ignores device rules on cgroup v2, and adds rules of its own on v1.
//! Both are enforced here, by our own code: device rules between create and start, while
//! nothing of the user's runs; the seccomp filter and the last narrowing of capabilities
//! as the container's last step before exec.

mod inside;
mod last_step;
mod limits;
mod monitor;
mod streams;

use std::convert::Infallible;
use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Mutex;

use kobune_runtime::cgroup::{CgroupPath, Cgroups};
use kobune_runtime::shim::{
    CONFIG_FILE, CONTRACT, JOB_FILE, LAUNCH_LOG_FILE, LAUNCH_TIMEOUT, LaunchFailure, LaunchReport,
    ProcessId, ShimJob, TASK_FILE, TaskRecord,
};
use kobune_runtime::{Timestamp, device_cgroup, userns};
use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::{
    LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespaceType, Process, Spec,
};
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};

use super::sealed;
use inside::Inside;
pub(crate) use last_step::LastStep;
use limits::Limits;
use streams::{Kept, Streams};

/// An error with the step that it ended.
struct Failure {
    step: &'static str,
    source: Box<dyn Error>,
}

trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, Failure>;
}

impl<T, E: Into<Box<dyn Error>>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, Failure> {
        self.map_err(|source| Failure {
            step,
            source: source.into(),
        })
    }
}

/// Starts the container of `bundle` and becomes its monitor. Returns only on failure, with
/// nothing of the container running; its cgroup is the agent's to remove.
pub(crate) fn launch(bundle: &Path) -> Result<Infallible, LaunchFailure> {
    become_monitor(bundle).map_err(|failure| {
        let mut causes = Vec::new();
        let mut cause: Option<&dyn Error> = Some(failure.source.as_ref());
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        causes.extend(first_complaint(bundle));
        LaunchFailure {
            step: failure.step.to_owned(),
            causes,
        }
    })
}

/// The first error in the launch log, which is nearest to the cause: what comes back from
/// libcontainer may be no more than "failed to unix syscall".
fn first_complaint(bundle: &Path) -> Option<String> {
    let log = std::fs::read(bundle.join(LAUNCH_LOG_FILE)).ok()?;
    let log = String::from_utf8_lossy(&log);
    let (_, complaint) = log.lines().find_map(|line| line.split_once("ERROR "))?;
    let (_target, message) = complaint.split_once(": ")?;
    Some(message.to_owned())
}

fn become_monitor(bundle: &Path) -> Result<Infallible, Failure> {
    sealed::reexecute().step("leave the host's program")?;
    log_to_stderr().step("open the launch log")?;
    limit_time();
    // Out of the agent's session, so that no terminal signal of its reaches us.
    nix::unistd::setsid().step("leave the agent's session")?;
    // The container's as well: runc has the same, whatever the agent's.
    umask(Mode::from_bits_truncate(0o022));
    nix::sys::prctl::set_child_subreaper(true).step("become the container's subreaper")?;
    let job: ShimJob = read_json(&bundle.join(JOB_FILE)).step("read the job")?;
    let mut spec = Spec::load(bundle.join(CONFIG_FILE)).step("read the container's spec")?;
    let confinement = Confinement::of(&spec).step("read the confinement")?;
    let cgroups = Cgroups::host().step("find the cgroup hierarchies")?;
    cgroups
        .make_parents(&confinement.cgroup)
        .step("make the cgroups above the container's")?;
    let limits = &confinement.limits;
    limits.take_from(&mut spec, &cgroups, &confinement.cgroup);

    let streams = Streams::open(bundle, &job).step("open the standard streams")?;
    let inside = Inside::of(&spec).step("find the user namespace")?;
    if inside.is_some() {
        // Before anything is made in the name of the container's root.
        let made = cgroups.make(&confinement.cgroup);
        made.step("make the container's cgroup")?;
    }
    let (mut container, kept) = create(bundle, &job, &spec, streams, inside.as_ref())?;
    if let Err(failure) = confine_and_start(&mut container, &cgroups, &confinement) {
        let _ = container.delete(true);
        return Err(failure);
    }
    let task = record_task(bundle, &container).step("record the task")?;
    block_signals().step("block signals")?;
    nix::unistd::alarm::cancel();
    super::report(&LaunchReport::Ready(task));
    let error = monitor::execute(bundle, &job, &task, &kept);
    let _ = container.delete(true);
    Err(Failure {
        step: "become the monitor",
        source: error.into(),
    })
}

/// libcontainer tells the real cause of many failures only to `tracing`, also from the
/// container's side of the fork, whose own standard error is the container's.
fn log_to_stderr() -> io::Result<()> {
    let log = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .without_time()
        .with_writer(Mutex::new(log))
        .init();
    Ok(())
}

/// Ends this process, should the launch hang and no agent be there to end it: a little
/// after the agent would. What it made is in the container's cgroup, for the next agent.
fn limit_time() {
    let seconds = u32::try_from(LAUNCH_TIMEOUT.as_secs()).expect("invariant: a minute");
    nix::unistd::alarm::set(seconds + 5);
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Box<dyn Error>> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// Creates the container: everything but the exec of its program.
fn create(
    bundle: &Path,
    job: &ShimJob,
    spec: &Spec,
    streams: Streams,
    inside: Option<&Inside>,
) -> Result<(Container, Kept), Failure> {
    let last_step = LastStep::new(spec).step("compile the seccomp profile")?;
    let last_step = last_step.below_init(job.init).within(inside.cloned());
    let launch_dir = bundle.join("launch");
    std::fs::create_dir_all(&launch_dir).step("prepare the launch directory")?;
    let mut outside = last_step.for_libcontainer(spec.clone());
    if let Some(inside) = inside {
        inside.outside(&mut outside);
    }
    outside
        .save(launch_dir.join(CONFIG_FILE))
        .step("write the launch spec")?;
    let builder = ContainerBuilder::new(job.id.clone(), SyscallType::default())
        .with_root_path(bundle.join("libcontainer"))
        .step("name the state directory")?
        .with_executor(last_step)
        .validate_id()
        .step("check the container's id")?;
    let (builder, kept) = streams.give(builder);
    if let Some(inside) = inside {
        let owned = inside.range.make_files();
        owned.step("make files in the name of the container's root")?;
    }
    let container = builder
        .as_init(launch_dir)
        .with_systemd(false)
        .with_detach(true)
        .build();
    if inside.is_some() {
        userns::make_files_as_before();
    }
    let container = container.step("create the container")?;
    Ok((container, kept.receive().step("take the terminal")?))
}

/// What the spec must say, since its absence would mean a container that is not confined.
struct Confinement {
    cgroup: CgroupPath,
    rules: Vec<LinuxDeviceCgroup>,
    oom_score_adj: i32,
    limits: Limits,
}

impl Confinement {
    /// Demands device rules, the first of which is about all devices, a cgroup of the
    /// container's own, and its own mounts; which namespaces it shares is the options'.
    fn of(spec: &Spec) -> Result<Self, Box<dyn Error>> {
        let linux = spec.linux().as_ref().ok_or("the spec has no linux part")?;
        let resources = linux.resources().as_ref();
        let rules = resources.and_then(|r| r.devices().clone());
        let rules = rules.ok_or("the spec has no device rules")?;
        let about_all = |rule: &LinuxDeviceCgroup| {
            matches!(rule.typ(), None | Some(LinuxDeviceType::A))
                && rule.major().is_none_or(|number| number < 0)
                && rule.minor().is_none_or(|number| number < 0)
        };
        if !rules.first().is_some_and(about_all) {
            return Err("the first device rule is not about all devices".into());
        }
        let cgroup = linux.cgroups_path().as_ref();
        let cgroup = cgroup.ok_or("the spec has no cgroup path")?;
        let cgroup = CgroupPath::try_from(cgroup.to_string_lossy().as_ref())?;
        let namespaces = linux.namespaces().as_deref().unwrap_or_default();
        if !namespaces
            .iter()
            .any(|own| own.typ() == LinuxNamespaceType::Mount)
        {
            return Err("the spec has no mount namespace".into());
        }
        let process = spec.process().as_ref();
        Ok(Self {
            cgroup,
            rules,
            oom_score_adj: process.and_then(Process::oom_score_adj).unwrap_or(0),
            limits: Limits::of(spec),
        })
    }
}

/// Enforces the device rules, then lets the container's program run.
fn confine_and_start(
    container: &mut Container,
    cgroups: &Cgroups,
    confinement: &Confinement,
) -> Result<(), Failure> {
    device_cgroup::apply(cgroups, &confinement.cgroup, &confinement.rules)
        .step("apply the device rules")?;
    let init = container.pid().ok_or("libcontainer names no process");
    let init = init.step("find the container's process")?.as_raw();
    // The agent may be protected from the kernel's choice; its modules must not be.
    let score = confinement.oom_score_adj.to_string();
    std::fs::write(format!("/proc/{init}/oom_score_adj"), score)
        .step("set how likely the kernel kills the container")?;
    confinement.limits.apply(cgroups, &confinement.cgroup)?;
    name_core(init).step("name /dev/core")?;
    container.start().step("start the container")
}

/// Gives the link to `/proc/kcore`, which libcontainer makes where the kernel has that, the name
/// that it has everywhere else.
fn name_core(init: i32) -> io::Result<()> {
    let dev = format!("/proc/{init}/root/dev");
    match std::fs::rename(format!("{dev}/kcore"), format!("{dev}/core")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn record_task(bundle: &Path, container: &Container) -> Result<TaskRecord, Box<dyn Error>> {
    let init = container
        .pid()
        .ok_or("libcontainer names no process")?
        .as_raw();
    let task = TaskRecord {
        contract: CONTRACT,
        shim: ProcessId::of(nix::unistd::getpid().as_raw())?,
        // Our child and not waited for: even if it ended already its entry is there.
        init: ProcessId::of(init)?,
        started_at: Timestamp::now(),
    };
    task.write(&bundle.join(TASK_FILE))?;
    Ok(task)
}

/// The monitor reads these from a signalfd; blocked from here on, none is lost in between.
fn block_signals() -> nix::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGUSR1] {
        signals.add(signal);
    }
    signals.thread_block()
}
