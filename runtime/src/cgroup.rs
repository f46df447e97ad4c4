//! The host's cgroup hierarchies, and what cleaning up after a container needs of them.
//!
//! libcontainer makes a container's cgroup, under the same path in every hierarchy, and
//! removes it when all goes well. What a dead launcher leaves behind is ended and removed
//! here. All operations may be repeated; a cgroup that does not exist is empty.

mod error;
mod freezer;
mod mountinfo;
mod path;
#[cfg(test)]
pub(crate) mod tests;
mod usage;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub use error::CgroupError;
pub use path::{CgroupPath, InvalidCgroupPath};
pub use usage::Usage;

/// The mounted hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    v1: Vec<Hierarchy>,
    /// Mount point of the unified hierarchy.
    v2: Option<PathBuf>,
}

/// A version 1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    /// Names of its controllers, or `name=...` for one without.
    controllers: Vec<String>,
    mount_point: PathBuf,
}

/// How the host divides its controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupMode {
    /// Version 1 only.
    Legacy,
    /// Controllers in version 1, version 2 beside them for tracking.
    Hybrid,
    /// Version 2.
    Unified,
}

impl Cgroups {
    /// The hierarchies mounted in this process's mount namespace.
    ///
    /// # Errors
    /// [`CgroupError::Mounts`], [`CgroupError::NoHierarchy`].
    pub fn host() -> Result<Self, CgroupError> {
        let path = PathBuf::from("/proc/self/mountinfo");
        match crate::procfs::read_text(&path) {
            Ok(mountinfo) => Self::parse(&mountinfo),
            Err(source) => Err(CgroupError::Mounts { path, source }),
        }
    }

    /// The hierarchies in the text of a `mountinfo` file. Of several mounts of one hierarchy
    /// the first counts, as for libcontainer.
    ///
    /// # Errors
    /// [`CgroupError::NoHierarchy`].
    pub fn parse(mountinfo: &str) -> Result<Self, CgroupError> {
        let mut found = Self {
            v1: Vec::new(),
            v2: None,
        };
        for mount in mountinfo::cgroup_mounts(mountinfo) {
            match mount.controllers {
                None if found.v2.is_none() => found.v2 = Some(mount.mount_point),
                Some(controllers) if found.v1.iter().all(|h| h.controllers != controllers) => {
                    found.v1.push(Hierarchy {
                        controllers,
                        mount_point: mount.mount_point,
                    });
                }
                _ => {}
            }
        }
        if found.v1.is_empty() && found.v2.is_none() {
            return Err(CgroupError::NoHierarchy);
        }
        Ok(found)
    }

    /// How controllers are divided. A version 2 mount at its own place, `/sys/fs/cgroup`,
    /// means unified whatever else is mounted, as libcontainer decides.
    #[must_use]
    pub fn mode(&self) -> CgroupMode {
        match &self.v2 {
            None => CgroupMode::Legacy,
            Some(v2) if self.v1.is_empty() || v2 == Path::new("/sys/fs/cgroup") => {
                CgroupMode::Unified
            }
            Some(_) => CgroupMode::Hybrid,
        }
    }

    /// Names of the controllers that containers can be held with: those of the unified
    /// hierarchy in [`CgroupMode::Unified`], of the version 1 hierarchies otherwise.
    ///
    /// # Errors
    /// [`CgroupError::Controllers`].
    pub fn controllers(&self) -> Result<BTreeSet<String>, CgroupError> {
        let (CgroupMode::Unified, Some(v2)) = (self.mode(), &self.v2) else {
            let names = self.v1.iter().flat_map(|own| &own.controllers);
            let with_controller = names.filter(|name| !name.starts_with("name="));
            return Ok(with_controller.cloned().collect());
        };
        let path = v2.join("cgroup.controllers");
        match fs::read_to_string(&path) {
            Ok(names) => Ok(names.split_whitespace().map(str::to_owned).collect()),
            Err(source) => Err(CgroupError::Controllers { path, source }),
        }
    }

    /// Directory of the cgroup in the version 1 hierarchy with `controller`.
    #[must_use]
    pub fn v1_dir(&self, controller: &str, path: &CgroupPath) -> Option<PathBuf> {
        let has = |hierarchy: &&Hierarchy| hierarchy.controllers.iter().any(|c| c == controller);
        let hierarchy = self.v1.iter().find(has)?;
        Some(path.below(&hierarchy.mount_point))
    }

    /// Directory of the cgroup in the unified hierarchy.
    #[must_use]
    pub fn v2_dir(&self, path: &CgroupPath) -> Option<PathBuf> {
        self.v2.as_deref().map(|mount| path.below(mount))
    }

    /// Makes the cgroups above this one in the unified hierarchy, where they are missing. Of
    /// containers that start at the same time libcontainer fails all but the first to make
    /// one; in version 1 hierarchies it does not.
    ///
    /// # Errors
    /// [`CgroupError::Make`].
    pub fn make_parents(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        let dir = self
            .v2_dir(path)
            .filter(|_| self.mode() == CgroupMode::Unified);
        let Some(parent) = dir.as_deref().and_then(Path::parent) else {
            return Ok(());
        };
        fs::create_dir_all(parent).map_err(|source| CgroupError::Make {
            path: parent.to_owned(),
            source,
        })
    }

    /// Makes the cgroup in the hierarchies that containers are held with, where it is missing: it
    /// is its maker's, whoever is put into it.
    ///
    /// # Errors
    /// [`CgroupError::Make`].
    pub fn make(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        let unified = self
            .v2_dir(path)
            .filter(|_| self.mode() == CgroupMode::Unified);
        let holds = |own: &&Hierarchy| {
            own.controllers
                .iter()
                .any(|name| !name.starts_with("name="))
        };
        let v1 = self.v1.iter().filter(holds);
        let v1 = v1.map(|hierarchy| path.below(&hierarchy.mount_point));
        for path in v1.chain(unified) {
            fs::create_dir_all(&path).map_err(|source| CgroupError::Make { path, source })?;
        }
        Ok(())
    }

    /// Makes the cgroup that containers' cgroups go below in the unified hierarchy, and has it
    /// show what the kernel can limit: the root cgroup does not, and on a device without systemd
    /// there may be no other before the first container's.
    ///
    /// Does what it can: a limit that cannot be set is told by whoever sets it.
    pub fn show_limits(&self, parent: &CgroupPath) {
        let unified = self.mode() == CgroupMode::Unified;
        let Some(dir) = self.v2_dir(parent).filter(|_| unified) else {
            return;
        };
        let made = fs::create_dir_all(&dir);
        let root = self.v2.as_deref().filter(|_| made.is_ok());
        let above: Vec<&Path> = dir.ancestors().skip(1).collect();
        let below_root = |path: &&Path| root.is_some_and(|root| path.starts_with(root));
        for path in above.into_iter().rev().filter(below_root) {
            for controller in ["+memory", "+io"] {
                let _ = write_existing(&path.join("cgroup.subtree_control"), controller);
            }
        }
    }

    /// The processes in the cgroup and the cgroups below it, in any hierarchy; a process
    /// that this one's pid namespace does not show is 0.
    ///
    /// # Errors
    /// [`CgroupError::List`].
    pub fn processes(&self, path: &CgroupPath) -> Result<BTreeSet<i32>, CgroupError> {
        let mut pids = BTreeSet::new();
        for dir in self.dirs(path) {
            for cgroup in tree(&dir)? {
                pids.extend(members(&cgroup)?);
            }
        }
        Ok(pids)
    }

    /// The cgroup's list of processes in every hierarchy that has the cgroup, to be written
    /// to: who writes `0` joins.
    ///
    /// # Errors
    /// The system's, where a list is there and cannot be opened.
    pub fn join_files(&self, path: &CgroupPath) -> io::Result<Vec<fs::File>> {
        let mut files = Vec::new();
        for dir in self.dirs(path) {
            match fs::OpenOptions::new()
                .write(true)
                .open(dir.join("cgroup.procs"))
            {
                Ok(file) => files.push(file),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }

    /// Ends every process in the cgroup and the cgroups below it with SIGKILL, frozen ones
    /// too, and returns when none is left; the zombies are their parents'. Takes 5 seconds
    /// at most.
    ///
    /// # Errors
    /// [`CgroupError::StillPopulated`] when the time is up; [`CgroupError::List`] and
    /// [`CgroupError::Kill`].
    pub fn kill(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        let deadline = Instant::now() + KILL_TIMEOUT;
        loop {
            self.kill_once(path)?;
            let pids = self.processes(path)?;
            if pids.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let path = path.as_str().to_owned();
                return Err(CgroupError::StillPopulated { path, pids });
            }
            sleep(POLL_INTERVAL);
        }
    }

    /// Removes the empty cgroup, and the cgroups below it, from every hierarchy. Where one
    /// cannot be removed the others still are.
    ///
    /// # Errors
    /// The first [`CgroupError::Remove`] or [`CgroupError::List`].
    pub fn remove(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        let results = self.dirs(path).map(|dir| {
            for cgroup in tree(&dir)? {
                remove_dir(&cgroup)?;
            }
            Ok(())
        });
        // Not stopping at the first error.
        results.fold(Ok(()), Result::and)
    }

    /// The cgroup's directory in every hierarchy, whether it exists or not.
    fn dirs(&self, path: &CgroupPath) -> impl Iterator<Item = PathBuf> {
        let v1 = self.v1.iter().map(|hierarchy| &hierarchy.mount_point);
        v1.chain(&self.v2).map(|mount| path.below(mount))
    }

    fn kill_once(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        // Linux 5.14: all at once, new forks included. Elsewhere the repetition gets them.
        if let Some(dir) = self.v2_dir(path) {
            let _ = write_existing(&dir.join("cgroup.kill"), "1");
        }
        for pid in self.processes(path)?.into_iter().filter(|pid| *pid > 0) {
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => {
                    return Err(CgroupError::Kill {
                        pid,
                        path: path.as_str().to_owned(),
                        source: errno.into(),
                    });
                }
            }
        }
        // Version 1 processes die when they thaw.
        if let Some(dir) = self.v1_dir("freezer", path) {
            for cgroup in tree(&dir)? {
                let _ = write_existing(&cgroup.join("freezer.state"), "THAWED");
            }
        }
        Ok(())
    }
}

const KILL_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// rmdir fails with EBUSY for some milliseconds after the last process is gone.
const REMOVE_ATTEMPTS: u32 = 50;

fn remove_dir(dir: &Path) -> Result<(), CgroupError> {
    let mut attempts = 1..=REMOVE_ATTEMPTS;
    loop {
        let source = match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if is_gone(&e) => return Ok(()),
            Err(e) => e,
        };
        let again = source.raw_os_error() == Some(libc::EBUSY) && attempts.next().is_some();
        if !again {
            let path = dir.to_owned();
            return Err(CgroupError::Remove { path, source });
        }
        sleep(POLL_INTERVAL);
    }
}

/// The cgroup in `dir` and all below it, the deepest first; nothing where it is missing.
fn tree(dir: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let failed = |source| CgroupError::List {
        path: dir.to_owned(),
        source,
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if is_gone(&e) => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // cgroup file systems always tell the type, and have no links.
        if entry.file_type().map_err(failed)?.is_dir() {
            found.append(&mut tree(&entry.path())?);
        }
    }
    found.push(dir.to_owned());
    Ok(found)
}

fn members(cgroup: &Path) -> Result<BTreeSet<i32>, CgroupError> {
    let path = cgroup.join("cgroup.procs");
    match fs::read_to_string(&path) {
        Ok(lines) => Ok(lines.lines().filter_map(|pid| pid.parse().ok()).collect()),
        Err(e) if is_gone(&e) => Ok(BTreeSet::new()),
        // Threaded: the processes are listed by the cgroup above.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(BTreeSet::new()),
        Err(source) => Err(CgroupError::List { path, source }),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Writes to a control file, which must exist: `fs::write` would ask for its creation.
pub(crate) fn write_existing(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}
