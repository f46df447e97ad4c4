//! System call filters: Docker's default profile, and a compiler from OCI profiles to the
//! kernel's classic BPF.
//!
//! libcontainer can only filter through the C library libseccomp, and without it ignores a
//! profile silently; so the launcher leaves the profile out of libcontainer's sight, and
//! loads a [`Program`] in the container's init right before the module is executed.
//! [`default_profile`] and [`compile`] are pure; only [`Program::load`] and [`supported`]
//! touch the calling thread.

mod bpf;
mod compile;
mod custom;
mod profile;
mod syscalls;
#[cfg(test)]
mod tests;

use std::io;

pub use compile::compile;
pub use custom::{CustomProfile, Target};
pub use profile::default_profile;

pub(crate) use bpf::Instruction;

use crate::sys;

/// A processor architecture that filters can be compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Arch {
    X86_64,
    X86,
    Aarch64,
    Arm,
}

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*` that the profile asks for; absent leaves the choice to us.
    flags: Option<u32>,
    ignored: Vec<String>,
}

/// A profile that cannot be compiled, or a filter that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// A custom profile that cannot be read.
    #[error("no seccomp profile in Docker's or OCI's form")]
    Profile {
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The action needs what this runtime does not have (a listener for notifications).
    #[error("unsupported seccomp action {action} for system call {syscall:?}")]
    UnsupportedAction {
        /// The action.
        action: String,
        /// Name of the call, or `*` for the default action.
        syscall: String,
    },
    /// An error number the kernel would not return.
    #[error("invalid errnoRet {errno} for system call {syscall:?}: the largest is 4095")]
    InvalidErrno {
        /// The number.
        errno: u32,
        /// Name of the call, or `*` for the default action.
        syscall: String,
    },
    /// System calls have six arguments.
    #[error("invalid argument index {index} for system call {syscall:?}: the largest is 5")]
    InvalidArgument {
        /// The index.
        index: usize,
        /// Name of the call.
        syscall: String,
    },
    /// The profile exceeds what the kernel takes.
    #[error("seccomp filter of {instructions} instructions is too long: the kernel takes 4096")]
    TooLong {
        /// Length of the compiled filter.
        instructions: usize,
    },
    /// The thread has neither of what the kernel asks for.
    #[error("load a seccomp filter without no_new_privs and without CAP_SYS_ADMIN")]
    NotPermitted,
    /// The kernel refused the filter.
    #[error("load a seccomp filter of {instructions} instructions")]
    Load {
        /// Length of the filter.
        instructions: usize,
        /// The kernel's answer; EINVAL where it has no seccomp filters.
        #[source]
        source: io::Error,
    },
}

impl Arch {
    /// The architecture this program was built for; `None` where filters for it are not
    /// known, and no module can be confined.
    #[must_use]
    pub const fn native() -> Option<Self> {
        if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "x86") {
            Some(Self::X86)
        } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
            Some(Self::Aarch64)
        } else if cfg!(all(target_arch = "arm", target_endian = "little")) {
            Some(Self::Arm)
        } else {
            None
        }
    }
}

impl Program {
    /// Confines the calling thread and what it will execute, for good; other threads are
    /// not affected. Loading twice stacks two filters. Does not allocate unless it fails.
    ///
    /// A profile without flags is loaded with `SECCOMP_FILTER_FLAG_SPEC_ALLOW` where the
    /// kernel has it (4.17), as runc does: a filter alone shall not switch the costly
    /// speculative store bypass mitigation on.
    ///
    /// # Errors
    /// [`SeccompError::NotPermitted`] where the thread has neither `no_new_privs` nor
    /// `CAP_SYS_ADMIN`, [`SeccompError::Load`] for any other refusal. The thread is then as
    /// it was.
    pub fn load(&self) -> Result<(), SeccompError> {
        let result = match self.flags {
            Some(flags) => self.set(flags),
            None => match self.set(SPEC_ALLOW) {
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => self.set(0),
                other => other,
            },
        };
        result.map_err(|source| match source.raw_os_error() {
            Some(libc::EACCES) => SeccompError::NotPermitted,
            _ => SeccompError::Load {
                instructions: self.instructions.len(),
                source,
            },
        })
    }

    /// Names in the profile that are no system call of any architecture known here. They
    /// have no effect, as in runc: profiles name calls of kernels to come.
    #[must_use]
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    fn set(&self, flags: u32) -> io::Result<()> {
        match sys::seccomp_set_filter(flags, Some(&self.instructions)) {
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {
                sys::prctl_set_filter(Some(&self.instructions))
            }
            other => other,
        }
    }
}

const SPEC_ALLOW: u32 = 1 << 2;

/// Whether the running kernel has seccomp filters (`CONFIG_SECCOMP_FILTER`). Changes nothing.
#[must_use]
pub fn supported() -> bool {
    let answer = match sys::seccomp_set_filter(0, None) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => sys::prctl_set_filter(None),
        other => other,
    };
    matches!(answer, Err(e) if e.raw_os_error() == Some(libc::EFAULT))
}
