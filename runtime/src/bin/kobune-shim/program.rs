//! The container's program: found before the container counts as created, executed as its
//! last step.

use std::ffi::{CString, NulError};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kobune_runtime::procfs;
use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::{AccessFlags, access, execve};
use oci_spec::runtime::Spec;

use super::sys;

/// A program that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoProgram {
    name: String,
    reason: String,
    /// 127 where it is not there, 126 where it is and does not run: as shells have it.
    pub(crate) code: i32,
}

impl NoProgram {
    fn new(name: &str, errno: Errno, reason: impl Into<String>) -> Self {
        let code = if errno == Errno::ENOENT { 127 } else { 126 };
        let (name, reason) = (name.to_owned(), reason.into());
        Self { name, reason, code }
    }
}

impl fmt::Display for NoProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot run {:?}: {}", self.name, self.reason)
    }
}

impl std::error::Error for NoProgram {}

/// The program of `process.args[0]`, searched for as a shell would.
pub(crate) fn find(spec: &Spec) -> Result<PathBuf, NoProgram> {
    let process = spec.process().as_ref();
    let args = process.and_then(|process| process.args().as_deref());
    let (Some(process), Some(name)) = (process, args.and_then(<[_]>::first)) else {
        return Err(NoProgram::new("", Errno::ENOENT, "no command given"));
    };
    if name.contains('/') {
        let path = process.cwd().join(name);
        return match usable(&path) {
            Ok(()) => Ok(path),
            Err(errno) => Err(NoProgram::new(name, errno, explained(errno))),
        };
    }
    let env = process.env().as_deref().unwrap_or_default();
    let path = env.iter().find_map(|pair| pair.strip_prefix("PATH="));
    let path = path.unwrap_or("");
    let mut refusal = Errno::ENOENT;
    for dir in path.split(':') {
        let candidate = process.cwd().join(dir).join(name);
        match usable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => refusal = errno,
        }
    }
    let reason = format!("{} in PATH ({path})", explained(refusal));
    Err(NoProgram::new(name, refusal, reason))
}

fn usable(path: &Path) -> Result<(), Errno> {
    if path.is_dir() {
        return Err(Errno::EISDIR);
    }
    access(path, AccessFlags::X_OK)
}

/// Signals that a process ignores, and whatever it executes: the agent's starter may have ignored
/// some, this program's language ignores SIGPIPE, and the C library starts programs with its
/// own two ignored.
#[derive(Clone, Copy)]
pub(crate) struct IgnoredSignals(u64);

impl IgnoredSignals {
    /// As the kernel tells it now, on the host: a container may have no `/proc`.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        let status = procfs::read_text("/proc/self/status")?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.map(Self)
            .ok_or_else(|| io::Error::other("/proc/self/status has no mask SigIgn"))
    }

    /// Gives each its default action, as a program expects at its start.
    fn reset(self) {
        let ignored = (1..=64).filter(|signal| self.0 >> (signal - 1) & 1 == 1);
        ignored.for_each(sys::default_signal_action);
    }
}

/// Becomes the program, with arguments and environment of `spec` alone; returns only where
/// that fails. No shell is tried, as C libraries do for what is no program.
pub(crate) fn execute(program: &Path, spec: &Spec, ignored: IgnoredSignals) -> NoProgram {
    let process = spec.process().as_ref();
    let args = process.and_then(|process| process.args().as_deref());
    let env = process.and_then(|process| process.env().as_deref());
    let name = args.and_then(<[_]>::first).map_or("", String::as_str);
    let texts = |list: Option<&[String]>| -> Result<Vec<CString>, NulError> {
        let list = list.unwrap_or_default().iter();
        list.map(|text| CString::new(text.as_str())).collect()
    };
    let path = CString::new(program.as_os_str().as_bytes());
    let (Ok(path), Ok(args), Ok(env)) = (path, texts(args), texts(env)) else {
        return NoProgram::new(name, Errno::EINVAL, "an argument contains a NUL character");
    };
    ignored.reset();
    let errno = SigSet::empty()
        .thread_set_mask()
        .and_then(|()| execve(&path, &args, &env))
        .map_or_else(|errno| errno, |never| match never {});
    let reason = match errno {
        // It was found: what is missing is what it names.
        Errno::ENOENT => "its dynamic loader or interpreter is not in the image",
        Errno::ENOEXEC => {
            "exec format error: it is for another processor, or a script without a #! line"
        }
        errno => explained(errno),
    };
    NoProgram::new(name, errno, reason)
}

fn explained(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT => "no such file",
        Errno::ENOTDIR => "part of its path is no directory",
        Errno::EISDIR => "it is a directory",
        Errno::EACCES => "permission denied: it, or a directory above it, is closed to this user",
        errno => errno.desc(),
    }
}
