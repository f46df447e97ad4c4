//! The system calls that no safe wrapper offers: the crate's only unsafe code.
//!
//! Every function is a thin, allocation-free wrapper that returns the kernel's error as it
//! is. Meaning, order and retries belong to the callers.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_long, c_ulong};

use crate::device_cgroup::BpfInstruction;
use crate::seccomp::Instruction;

/// Adds a seccomp filter to the calling thread. No filter at all is the customary probe: a
/// kernel with seccomp filters answers EFAULT.
pub(crate) fn seccomp_set_filter(flags: u32, filter: Option<&[Instruction]>) -> io::Result<()> {
    let program = filter.map(fprog).transpose()?;
    // SAFETY: `program` and the instructions it points to outlive the call, which only reads
    // them; a null pointer is refused by the kernel with EFAULT.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            c_ulong::from(flags),
            program
                .as_ref()
                .map_or(std::ptr::null(), std::ptr::from_ref),
        )
    };
    check(result).map(drop)
}

/// The older door to the same thing, for kernels without seccomp(2); takes no flags.
pub(crate) fn prctl_set_filter(filter: Option<&[Instruction]>) -> io::Result<()> {
    let program = filter.map(fprog).transpose()?;
    // SAFETY: as in `seccomp_set_filter`.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            c_ulong::from(libc::SECCOMP_MODE_FILTER),
            program
                .as_ref()
                .map_or(std::ptr::null(), std::ptr::from_ref),
        )
    };
    check(result.into()).map(drop)
}

fn fprog(filter: &[Instruction]) -> io::Result<libc::sock_fprog> {
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // `Instruction` has the layout of `struct sock_filter` (asserted where it is defined),
    // and the kernel does not write through this pointer.
    let filter = filter.as_ptr().cast_mut().cast();
    Ok(libc::sock_fprog { len, filter })
}

/// Whether `capability` is in the bounding set of the calling thread; EINVAL for a number
/// that the kernel does not know.
pub(crate) fn bounding_has(capability: u8) -> io::Result<bool> {
    prctl(libc::PR_CAPBSET_READ, capability.into(), 0).map(|set| set == 1)
}

/// Removes `capability` from the bounding set of the calling thread.
pub(crate) fn bounding_drop(capability: u8) -> io::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0).map(drop)
}

/// Empties the ambient set of the calling thread.
pub(crate) fn ambient_clear() -> io::Result<()> {
    prctl(
        libc::PR_CAP_AMBIENT,
        option(libc::PR_CAP_AMBIENT_CLEAR_ALL),
        0,
    )
    .map(drop)
}

/// Adds `capability` to the ambient set of the calling thread.
pub(crate) fn ambient_raise(capability: u8) -> io::Result<()> {
    let raise = option(libc::PR_CAP_AMBIENT_RAISE);
    prctl(libc::PR_CAP_AMBIENT, raise, capability.into()).map(drop)
}

fn option(value: c_int) -> c_ulong {
    c_ulong::try_from(value).expect("invariant: prctl options are small positive numbers")
}

fn prctl(operation: c_int, first: c_ulong, second: c_ulong) -> io::Result<c_long> {
    let zero: c_ulong = 0;
    // SAFETY: only called with the operations above, all of whose arguments are numbers.
    check(unsafe { libc::prctl(operation, first, second, zero, zero) }.into())
}

/// Sets the capabilities of the calling thread, each set as a mask of `1 << number`.
pub(crate) fn capset(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    // _LINUX_CAPABILITY_VERSION_3: two words per set, the low one first.
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let (effective, permitted, inheritable) =
        (words(effective), words(permitted), words(inheritable));
    let data: [[u32; 3]; 2] = [0, 1].map(|i| [effective[i], permitted[i], inheritable[i]]);
    // SAFETY: both structures have the layout of version 3, outlive the call, and are only
    // read by it.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

fn words(set: u64) -> [u32; 2] {
    [set & u64::from(u32::MAX), set >> 32]
        .map(|word| u32::try_from(word).expect("invariant: half of 64 bits"))
}

/// Arguments of bpf(2) for a device program: BPF_PROG_TYPE_CGROUP_DEVICE and
/// BPF_CGROUP_DEVICE. All pointers are 64 bits wide, on every architecture.
mod bpf {
    pub(super) const PROG_LOAD: super::c_ulong = 5;
    pub(super) const PROG_ATTACH: super::c_ulong = 8;
    pub(super) const PROG_DETACH: super::c_ulong = 9;
    pub(super) const PROG_GET_FD_BY_ID: super::c_ulong = 13;
    pub(super) const OBJ_GET_INFO_BY_FD: super::c_ulong = 15;
    pub(super) const PROG_QUERY: super::c_ulong = 16;
    pub(super) const TYPE_CGROUP_DEVICE: u32 = 15;
    pub(super) const CGROUP_DEVICE: u32 = 6;
    pub(super) const ALLOW_MULTI: u32 = 2;

    #[repr(C)]
    #[derive(Default)]
    pub(super) struct Load {
        pub(super) prog_type: u32,
        pub(super) insn_cnt: u32,
        pub(super) insns: u64,
        pub(super) license: u64,
        pub(super) log_level: u32,
        pub(super) log_size: u32,
        pub(super) log_buf: u64,
        pub(super) kern_version: u32,
        pub(super) prog_flags: u32,
        pub(super) prog_name: [u8; 16],
    }

    #[repr(C)]
    pub(super) struct Attach {
        pub(super) target_fd: u32,
        pub(super) attach_bpf_fd: u32,
        pub(super) attach_type: u32,
        pub(super) attach_flags: u32,
    }

    #[repr(C)]
    pub(super) struct Query {
        pub(super) target_fd: u32,
        pub(super) attach_type: u32,
        pub(super) query_flags: u32,
        pub(super) attach_flags: u32,
        pub(super) prog_ids: u64,
        pub(super) prog_cnt: u32,
        pub(super) padding: u32,
    }

    #[repr(C)]
    #[derive(Default)]
    pub(super) struct ById {
        pub(super) id: u32,
        pub(super) next_id: u32,
        pub(super) open_flags: u32,
    }

    #[repr(C)]
    pub(super) struct ByFd {
        pub(super) bpf_fd: u32,
        pub(super) info_len: u32,
        pub(super) info: u64,
    }

    /// `struct bpf_prog_info` up to the name, as Linux 4.15 has it.
    #[repr(C, align(8))]
    pub(super) struct Info {
        pub(super) before: [u8; 64],
        pub(super) name: [u8; 16],
    }
}

/// Loads a device program under a name: letters, digits, `_` or `.`, filled up with zeros.
pub(crate) fn bpf_load(program: &[BpfInstruction], name: [u8; 16]) -> io::Result<OwnedFd> {
    let mut attr = bpf::Load {
        prog_type: bpf::TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        insns: address(program.as_ptr()),
        license: address(c"Apache-2.0".as_ptr()),
        prog_name: name,
        ..bpf::Load::default()
    };
    // SAFETY: the attributes are those of the command; the instructions and the license
    // outlive the call, which only reads them.
    let fd = unsafe { bpf(bpf::PROG_LOAD, &mut attr) }?;
    owned(fd)
}

/// Attaches a device program to a cgroup beside others: all of them must allow an access.
pub(crate) fn bpf_attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = attachment(cgroup, program, bpf::ALLOW_MULTI);
    // SAFETY: the attributes are those of the command and hold no pointers.
    unsafe { bpf(bpf::PROG_ATTACH, &mut attr) }.map(drop)
}

/// Detaches a device program from a cgroup.
pub(crate) fn bpf_detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = attachment(cgroup, program, 0);
    // SAFETY: the attributes are those of the command and hold no pointers.
    unsafe { bpf(bpf::PROG_DETACH, &mut attr) }.map(drop)
}

fn attachment(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, flags: u32) -> bpf::Attach {
    bpf::Attach {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: bpf::CGROUP_DEVICE,
        attach_flags: flags,
    }
}

/// Ids of the device programs attached to this very cgroup; ENOSPC where they are more
/// than 64, the kernel's own limit.
pub(crate) fn bpf_attached(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; 64];
    let mut attr = bpf::Query {
        target_fd: number(cgroup),
        attach_type: bpf::CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: address(ids.as_mut_ptr()),
        prog_cnt: 64,
        padding: 0,
    };
    // SAFETY: the kernel writes at most `prog_cnt` ids into `ids`, which outlives the call,
    // and their number into the attributes.
    unsafe { bpf(bpf::PROG_QUERY, &mut attr) }?;
    let count = usize::try_from(attr.prog_cnt).unwrap_or(ids.len());
    Ok(ids.into_iter().take(count).collect())
}

/// Opens a loaded program; ENOENT where it is gone.
pub(crate) fn bpf_open(id: u32) -> io::Result<OwnedFd> {
    let mut attr = bpf::ById {
        id,
        ..bpf::ById::default()
    };
    // SAFETY: the attributes are those of the command and hold no pointers.
    let fd = unsafe { bpf(bpf::PROG_GET_FD_BY_ID, &mut attr) }?;
    owned(fd)
}

/// Whether a program was loaded under `name`.
pub(crate) fn bpf_has_name(program: BorrowedFd<'_>, name: [u8; 16]) -> io::Result<bool> {
    let mut info = bpf::Info {
        before: [0; 64],
        name: [0; 16],
    };
    let mut attr = bpf::ByFd {
        bpf_fd: number(program),
        info_len: 80,
        info: address(&raw mut info),
    };
    // SAFETY: the kernel writes at most `info_len` bytes, the size of `info`, which outlives
    // the call. It was all zero: the kernel follows no pointer from it.
    unsafe { bpf(bpf::OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info.name == name)
}

/// # Safety
/// `attr` must be what the command takes, and every address in it valid for what the
/// command does with it.
unsafe fn bpf<T>(command: c_ulong, attr: &mut T) -> io::Result<c_long> {
    // SAFETY: as promised by the caller.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) })
}

/// Reads an option of level IP into `buffer`, which also holds the question; returns how
/// many bytes were answered.
pub(crate) fn get_ip_option(
    socket: BorrowedFd<'_>,
    option: c_int,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut length = socklen(buffer)?;
    // SAFETY: the kernel writes at most `length` bytes to the buffer, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    check(result.into())?;
    Ok(length as usize)
}

/// Sets an option of level IP that holds no pointers.
pub(crate) fn set_ip_option(socket: BorrowedFd<'_>, option: c_int, value: &[u8]) -> io::Result<()> {
    let length = socklen(value)?;
    // SAFETY: the kernel reads `length` bytes of the value, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            value.as_ptr().cast(),
            length,
        )
    };
    check(result.into()).map(drop)
}

/// Replaces a table of ip_tables by that of `request`, a `struct ipt_replace`, and gets the
/// counters of the entries that it had; EAGAIN if it had not as many as `counters`.
pub(crate) fn replace_ip_table(
    socket: BorrowedFd<'_>,
    request: &mut [u8],
    counters: &mut [[u64; 2]],
) -> io::Result<()> {
    const SET_REPLACE: c_int = 64;
    let number = u32::try_from(counters.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let pointer = counters.as_mut_ptr().expose_provenance().to_ne_bytes();
    let field = request.get_mut(84..88 + pointer.len());
    let field = field.ok_or(io::ErrorKind::InvalidInput)?;
    field[..4].copy_from_slice(&number.to_ne_bytes());
    field[4..].copy_from_slice(&pointer);
    // The one pointer is to `counters`, of which the kernel writes as many as it is told;
    // they outlive the call.
    set_ip_option(socket, SET_REPLACE, request)
}

fn socklen(buffer: &[u8]) -> io::Result<libc::socklen_t> {
    Ok(libc::socklen_t::try_from(buffer.len()).map_err(|_| io::ErrorKind::InvalidInput)?)
}

fn address<T>(pointer: *const T) -> u64 {
    u64::try_from(pointer.expose_provenance()).expect("invariant: addresses have at most 64 bits")
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// Takes over a descriptor that the kernel just returned.
fn owned(fd: c_long) -> io::Result<OwnedFd> {
    let fd = c_int::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: called with new descriptors only, which nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `struct fsxattr`, as ioctl passes it.
#[repr(C)]
#[derive(Default)]
struct FsXattr {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;
/// What is made in the directory is of its project.
const FS_XFLAG_PROJINHERIT: u32 = 0x200;

/// Makes a directory, and all that will be made in it, part of a project.
pub(crate) fn set_project(dir: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let mut attributes = FsXattr::default();
    let file = dir.as_raw_fd();
    // SAFETY: the kernel writes one `struct fsxattr`, which outlives the call.
    let got = unsafe { libc::ioctl(file, FS_IOC_FSGETXATTR as _, &raw mut attributes) };
    check(got.into())?;
    attributes.project = project;
    attributes.flags |= FS_XFLAG_PROJINHERIT;
    // SAFETY: the kernel reads one `struct fsxattr`, which outlives the call.
    let set = unsafe { libc::ioctl(file, FS_IOC_FSSETXATTR as _, &raw const attributes) };
    check(set.into()).map(drop)
}

const PROJECTS: u32 = 2;
const Q_SETQUOTA: u32 = 0x0080_0008;
const Q_XGETQSTATV: u32 = 0x5808;
/// Of `qs_flags`: the limits of projects are enforced.
const PROJECTS_ENFORCED: u16 = 1 << 5;

/// `struct fs_quota_statv` without its parts that are not asked for.
#[repr(C, align(8))]
struct QuotaState {
    version: i8,
    padding: u8,
    flags: u16,
    rest: [u8; 156],
}

/// What names a file system to the calls for quotas.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FileSystem<'a> {
    /// A file that is on it: quotactl_fd, since Linux 5.14.
    Of(BorrowedFd<'a>),
    /// The block device that it is on: quotactl.
    On(&'a CStr),
}

/// Whether a file system holds projects to their limits.
pub(crate) fn project_quotas_enforced(file_system: FileSystem<'_>) -> io::Result<bool> {
    let mut state = QuotaState {
        version: 1,
        padding: 0,
        flags: 0,
        rest: [0; 156],
    };
    // SAFETY: the kernel reads the version and writes a `struct fs_quota_statv` of it, which is
    // no longer than `state`; that outlives the call.
    unsafe { quotactl(file_system, Q_XGETQSTATV, 0, &raw mut state) }?;
    Ok(state.flags & PROJECTS_ENFORCED != 0)
}

/// Limits what the files of a project take, to `kib` KiB.
pub(crate) fn limit_project(file_system: FileSystem<'_>, project: u32, kib: u64) -> io::Result<()> {
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut limits: libc::dqblk = unsafe { std::mem::zeroed() };
    limits.dqb_bhardlimit = kib;
    limits.dqb_bsoftlimit = kib;
    limits.dqb_valid = libc::QIF_BLIMITS;
    // SAFETY: the kernel reads one `struct if_dqblk`, which outlives the call.
    unsafe { quotactl(file_system, Q_SETQUOTA, project, &raw mut limits) }
}

/// # Safety
/// `data` must be valid for what `command` reads and writes there.
unsafe fn quotactl<T>(
    file_system: FileSystem<'_>,
    command: u32,
    project: u32,
    data: *mut T,
) -> io::Result<()> {
    let command = c_ulong::from(command << 8 | PROJECTS);
    let project = c_ulong::from(project);
    let result = match file_system {
        FileSystem::Of(file) => {
            let file = c_long::from(file.as_raw_fd());
            // SAFETY: the caller's.
            unsafe { libc::syscall(libc::SYS_quotactl_fd, file, command, project, data) }
        }
        FileSystem::On(device) => {
            let device = device.as_ptr();
            // SAFETY: the caller's; the path ends in NUL and is only read.
            unsafe { libc::syscall(libc::SYS_quotactl, command, device, project, data) }
        }
    };
    check(result).map(drop)
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Makes a child that leaves this process's user namespace, for `user` or for a new one, then
/// makes namespaces of the kinds `flags`, says over `control` with which error number that
/// ended, and goes when the other end of it, `ours`, is closed. Returns the child's pid.
pub(crate) fn fork_apart(
    user: Option<BorrowedFd<'_>>,
    flags: c_int,
    control: BorrowedFd<'_>,
    ours: BorrowedFd<'_>,
) -> io::Result<libc::pid_t> {
    let (control, ours) = (control.as_raw_fd(), ours.as_raw_fd());
    let user = user.map(|user| user.as_raw_fd());
    // SAFETY: until it ends the child makes system calls and nothing else: no lock that another
    // thread held is ever waited for.
    let child = unsafe { libc::fork() };
    if child != 0 {
        return check(child.into()).map(|_| child);
    }
    // SAFETY: numbers, and a buffer that outlives the calls; the descriptors stay open, but for
    // one that this process has no owner of.
    unsafe {
        libc::close(ours);
        let mut result = match user {
            Some(user) => libc::setns(user, libc::CLONE_NEWUSER),
            None => libc::unshare(libc::CLONE_NEWUSER),
        };
        if result == 0 && flags != 0 {
            result = libc::unshare(flags);
        }
        let error = if result == 0 {
            0
        } else {
            *libc::__errno_location()
        };
        let mut word = error.to_ne_bytes();
        libc::write(control, word.as_ptr().cast(), word.len());
        libc::read(control, word.as_mut_ptr().cast(), word.len());
        libc::_exit(0)
    }
}

/// `struct mount_attr`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// The same on every architecture; C libraries lack the name.
const SYS_MOUNT_SETATTR: c_long = 442;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Makes the files of a mount that is not attached yet appear, to everybody, to belong to the
/// ids that a user namespace maps theirs to.
pub(crate) fn map_ids(mount: BorrowedFd<'_>, user: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = MountAttributes {
        set: MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        user_namespace: number(user).into(),
    };
    let (mount, flags) = (
        c_long::from(mount.as_raw_fd()),
        c_long::from(libc::AT_EMPTY_PATH),
    );
    let size = size_of::<MountAttributes>();
    // SAFETY: the path is an empty string, and the kernel reads `size` bytes of the attributes;
    // both outlive the call.
    let result = unsafe {
        libc::syscall(
            SYS_MOUNT_SETATTR,
            mount,
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size,
        )
    };
    check(result).map(drop)
}

/// Any system call, to see what a filter makes of it.
#[cfg(test)]
pub(crate) fn raw(number: c_long, args: [c_ulong; 5]) -> io::Result<c_long> {
    let [a, b, c, d, e] = args;
    // SAFETY: tests pass numbers and null pointers, to calls that do not return twice.
    check(unsafe { libc::syscall(number, a, b, c, d, e) })
}
