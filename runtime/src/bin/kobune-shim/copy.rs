//! A container's files into or out of an archive: `kobune-shim copy BUNDLE`.
//!
//! Nothing of the container is joined but, by descriptors, its view of the files: its processes
//! never see this one.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kobune_runtime::copy::{self, CopyError, Placement, Root};
use kobune_runtime::error_chain::chain;
use kobune_runtime::shim::ProcessId;
use kobune_runtime::shim::copy::{CopyAction, CopyJob, CopyRoot};
use kobune_runtime::shim::exec::{ExecFailure, ExecOrder, ExecReport, receive, send};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::exec::control;
use super::users;

/// Copies as the job that comes through standard input says.
pub(crate) fn copy(bundle: &Path) -> ExitCode {
    let Ok(control) = control() else {
        return ExitCode::FAILURE;
    };
    match run(bundle, &control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let failure = ExecFailure { message, code: 1 };
            let _ = send(&control, &ExecReport::Failed(failure), &[]);
            ExitCode::FAILURE
        }
    }
}

/// Fails where the copy does not begin.
fn run(bundle: &Path, control: &UnixStream) -> Result<(), String> {
    let (job, streams): (CopyJob, _) =
        receive(control).map_err(|error| format!("cannot read the job: {error}"))?;
    take_over(streams).map_err(|error| format!("cannot take over the streams: {error}"))?;
    // One descriptor for each directory that is open; fewer are an error of the copy then.
    let _ = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    let unreachable = |error: io::Error| format!("cannot reach the module's files: {error}");
    let (root, _lock) = match &job.root {
        CopyRoot::Running(init) => (running(*init).map_err(unreachable)?, None),
        CopyRoot::Stopped(stopped) => {
            let (root, lock) = stopped.open(bundle).map_err(unreachable)?;
            (root, Some(lock))
        }
    };
    watch(control).map_err(|error| format!("cannot watch the agent: {error}"))?;
    let pid = std::process::id().cast_signed();
    let _ = send(control, &ExecReport::Started(pid), &[]);
    let code = match act(&root, &job.action) {
        Ok(left_out) => {
            for path in left_out {
                let path = path.display();
                let _ = writeln!(io::stderr(), "kobune: {path} is left out: not a file");
            }
            0
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "kobune: {}", chain(&*error));
            1
        }
    };
    let _ = send(control, &ExecReport::Exited(code), &[]);
    Ok(())
}

/// Standard input, output and error.
fn take_over(streams: Vec<OwnedFd>) -> io::Result<()> {
    let streams: Result<[OwnedFd; 3], _> = streams.try_into();
    let [stdin, stdout, stderr] = streams.map_err(|_| io::ErrorKind::InvalidData)?;
    nix::unistd::dup2_stdin(stdin)?;
    nix::unistd::dup2_stdout(stdout)?;
    nix::unistd::dup2_stderr(stderr)?;
    Ok(())
}

/// The root of the process, opened first and compared second: it was this container's. From here
/// on this process is root of the container's user namespace, if it has one: owners are the
/// container's then, and nothing is open to us that is not to it.
fn running(init: ProcessId) -> io::Result<Root> {
    let path = |name: &str| PathBuf::from(format!("/proc/{}/{name}", init.pid));
    let root = Root::open(&path("root"))?;
    let users = File::open(path("ns/user"));
    match ProcessId::of(init.pid) {
        Ok(now) if now == init => {}
        _ => return Err(io::Error::other("it ended meanwhile: try again")),
    }
    let inode = |path: &Path| std::fs::metadata(path).map(|file| file.ino());
    match users {
        // A kernel without user namespaces.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        users => {
            let users = users?;
            if users.metadata()?.ino() != inode(Path::new("/proc/self/ns/user"))? {
                users::join(&users)?;
            }
        }
    }
    Ok(root)
}

/// Ends this process when the agent goes, whatever it waits for.
#[allow(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "nobody is left to whom anything could be said"
)]
fn watch(control: &UnixStream) -> io::Result<()> {
    let control = control.try_clone()?;
    std::thread::Builder::new().spawn(move || {
        while receive::<ExecOrder>(&control).is_ok() {}
        std::process::exit(1)
    })?;
    Ok(())
}

fn act(root: &Root, action: &CopyAction) -> Result<Vec<PathBuf>, Box<dyn std::error::Error>> {
    match action {
        CopyAction::Stat { path, follow } => {
            let stat = root.stat(path, *follow)?;
            serde_json::to_writer(io::stdout(), &stat)?;
            Ok(Vec::new())
        }
        CopyAction::Pack { path, follow } => {
            let out = io::BufWriter::with_capacity(64 << 10, io::stdout());
            Ok(copy::pack(root, path, *follow, out)?)
        }
        CopyAction::Unpack {
            into,
            rename,
            owner,
        } => {
            let placement = Placement {
                into: into.clone(),
                rename: rename.as_ref().map(Into::into),
                owner: *owner,
            };
            let placed: Result<_, CopyError> = copy::unpack(root, &placement, io::stdin());
            Ok(placed?)
        }
    }
}
