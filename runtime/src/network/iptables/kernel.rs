//! Tables of legacy ip_tables in the kernel, by options of a raw socket; and the lock that
//! all programs that change them take.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::blob::{HOOKS, Table, Written};
use crate::sys;

const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
const GET_REVISION_MATCH: i32 = 66;
const GET_REVISION_TARGET: i32 = 67;
const SET_ADD_COUNTERS: i32 = 65;

/// Bytes of a table's name in the requests.
const NAME: usize = 32;
/// Bytes of `struct ipt_getinfo`.
const INFO: usize = 84;
/// Bytes before the entries in `struct ipt_get_entries`.
const ENTRIES_HEADER: usize = 40;
/// Bytes before the counters in `struct xt_counters_info`.
const COUNTERS_HEADER: usize = 40;
/// Bytes before the entries in `struct ipt_replace`.
const REPLACE_HEADER: usize = 96;

/// What `iptables` and everybody else holds while changing tables.
const LOCK: &str = "/run/xtables.lock";
/// How long others may hold it: a program that restores thousands of rules takes seconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(20);
const LOCK_POLL: Duration = Duration::from_millis(10);

/// A kernel that has ip_tables.
#[derive(Debug)]
pub(super) struct Kernel(OwnedFd);

/// A table as it was read, to be replaced only by who read it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) table: Table,
    name: &'static str,
    entries: usize,
}

impl Kernel {
    /// # Errors
    /// The kernel's: it has no ip_tables, not as a module either, or the caller may not
    /// administer the network.
    pub(super) fn open() -> io::Result<Self> {
        let kernel = Self::socket()?;
        // Who asks for a table loads its module, but not that of all tables.
        if kernel
            .has(GET_REVISION_TARGET, "ERROR", 0)
            .is_err_and(|error| is_absent(&error))
        {
            load_module();
        }
        Ok(kernel)
    }

    fn socket() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let family = AddressFamily::Inet;
        Ok(Self(socket(
            family,
            SockType::Raw,
            flags,
            SockProtocol::Raw,
        )?))
    }

    /// Whether the kernel knows the revision of a match or target; loads its module.
    pub(super) fn knows(&self, is_match: bool, name: &str, revision: u8) -> io::Result<()> {
        let option = if is_match {
            GET_REVISION_MATCH
        } else {
            GET_REVISION_TARGET
        };
        self.has(option, name, revision)
    }

    fn has(&self, option: i32, name: &str, revision: u8) -> io::Result<()> {
        let mut query = [0; 30];
        query[..name.len()].copy_from_slice(name.as_bytes());
        query[29] = revision;
        sys::get_ip_option(self.0.as_fd(), option, &mut query).map(drop)
    }

    /// Reads a table; loads its module.
    pub(super) fn load(&self, name: &'static str) -> io::Result<Loaded> {
        let mut info = [0; INFO];
        info[..name.len()].copy_from_slice(name.as_bytes());
        sys::get_ip_option(self.0.as_fd(), GET_INFO, &mut info)?;
        let word = |place: usize| {
            let bytes = [0, 1, 2, 3].map(|i| info[place + i]);
            u32::from_ne_bytes(bytes)
        };
        let starts = std::array::from_fn::<_, HOOKS, _>(|hook| word(NAME + 4 + 4 * hook));
        let (hooks, entries, size) = (word(NAME), word(76) as usize, word(80));
        let mut answer = vec![0; ENTRIES_HEADER + size as usize];
        answer[..name.len()].copy_from_slice(name.as_bytes());
        answer[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
        sys::get_ip_option(self.0.as_fd(), GET_ENTRIES, &mut answer)?;
        Ok(Loaded {
            table: Table::read(&answer[ENTRIES_HEADER..], hooks, starts)?,
            name,
            entries,
        })
    }

    /// Puts `table` in place of the one that was loaded, which gives it its counters. Hold
    /// the lock since before the loading.
    pub(super) fn replace(&self, loaded: &Loaded, table: &Table) -> io::Result<()> {
        let written = table.write();
        let mut request = replacement(loaded.name, table.hooks, &written);
        let mut counters = vec![[0; 2]; loaded.entries];
        sys::replace_ip_table(self.0.as_fd(), &mut request, &mut counters)?;
        let total = counters_of(loaded.name, &written, &counters);
        sys::set_ip_option(self.0.as_fd(), SET_ADD_COUNTERS, &total)
    }
}

/// Takes the lock of all programs that change tables, until dropped.
///
/// # Errors
/// `TimedOut` if somebody keeps it.
pub(super) fn lock() -> io::Result<Flock<File>> {
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(LOCK)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, Errno::EWOULDBLOCK)) if Instant::now() >= deadline => {
                let text = format!("another program keeps {LOCK} locked");
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
            Err((returned, Errno::EWOULDBLOCK | Errno::EINTR)) => file = returned,
            Err((_, error)) => return Err(error.into()),
        }
        thread::sleep(LOCK_POLL);
    }
}

/// Whether the error means that there is nothing to answer such requests.
fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOPROTOOPT)
}

/// Has the kernel's own helper load ip_tables. It shows in the next request whether it did.
fn load_module() {
    let Ok(helper) = fs::read_to_string("/proc/sys/kernel/modprobe") else {
        return;
    };
    let _ = Command::new(helper.trim())
        .args(["-q", "ip_tables"])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// `struct ipt_replace`; where the old counters go is still open.
fn replacement(name: &str, hooks: u32, written: &Written) -> Vec<u8> {
    let number = |n: usize| u32::try_from(n).expect("invariant: tables are below 4 GiB");
    let mut request = name.as_bytes().to_vec();
    request.resize(NAME, 0);
    let sizes = [
        hooks,
        number(written.origins.len()),
        number(written.bytes.len()),
    ];
    for word in sizes.iter().chain(&written.starts).chain(&written.policies) {
        request.extend(word.to_ne_bytes());
    }
    request.resize(REPLACE_HEADER, 0);
    request.extend(&written.bytes);
    request
}

/// `struct xt_counters_info`: what every entry had counted before.
fn counters_of(name: &str, written: &Written, old: &[[u64; 2]]) -> Vec<u8> {
    let mut request = name.as_bytes().to_vec();
    request.resize(NAME, 0);
    let number = u32::try_from(written.origins.len()).expect("invariant: as in the table");
    request.extend(number.to_ne_bytes());
    request.resize(COUNTERS_HEADER, 0);
    for origin in &written.origins {
        let counted = origin.and_then(|number| old.get(number));
        for word in counted.copied().unwrap_or_default() {
            request.extend(word.to_ne_bytes());
        }
    }
    request
}
