//! Docker's default profile, resolved for an architecture and a set of capabilities.
//!
//! The facts are those of moby's default profile as of 2026: the allowed calls, the calls
//! that come with a capability or an architecture, and the restrictions by argument. Its
//! conditions on the kernel (4.8 for tracing) hold for every kernel this runtime supports.

use oci_spec::runtime::{
    Arch as OciArch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};

use super::Arch;
use crate::capabilities::CapabilitySet;

/// When a group of calls is allowed.
#[derive(Debug, Clone, Copy)]
enum When {
    Always,
    /// The container's bounding set has the capability.
    Has(Capability),
    /// The host is of one of these architectures.
    On(&'static [Arch]),
}

/// The profile Docker gives a container with `capabilities` (its bounding set) on a host of
/// architecture `arch`: everything not allowed fails with EPERM.
///
/// 32-bit x86 and x32 programs run on x86_64, and 32-bit ARM programs on aarch64, under the
/// same rules; any other architecture's calls end the process.
#[must_use]
pub fn default_profile(arch: Arch, capabilities: CapabilitySet) -> LinuxSeccomp {
    let holds = |when: &When| match when {
        When::Always => true,
        When::Has(capability) => capabilities.contains(*capability),
        When::On(arches) => arches.contains(&arch),
    };
    let groups = GROUPS.iter().filter(|(when, _)| holds(when));
    let mut calls: Vec<_> = groups.map(|(_, names)| allow(names)).collect();
    if !capabilities.contains(Capability::SysAdmin) {
        calls.extend(without_sys_admin());
    }
    calls.extend(sockets());
    calls.extend(PERSONALITIES.map(|value| allow_if("personality", equal(value))));

    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(errno(libc::EPERM)))
        .set_architectures(Some(architectures(arch).to_vec()))
        .set_syscalls(Some(calls));
    profile
}

fn architectures(arch: Arch) -> &'static [OciArch] {
    match arch {
        Arch::X86_64 => &[
            OciArch::ScmpArchX86_64,
            OciArch::ScmpArchX86,
            OciArch::ScmpArchX32,
        ],
        Arch::X86 => &[OciArch::ScmpArchX86],
        Arch::Aarch64 => &[OciArch::ScmpArchAarch64, OciArch::ScmpArchArm],
        Arch::Arm => &[OciArch::ScmpArchArm],
    }
}

/// New namespaces are for the administrator. The flags of clone3 are behind a pointer that
/// no filter can follow: it does not exist, and C libraries fall back to clone.
fn without_sys_admin() -> [LinuxSyscall; 2] {
    // For this operator the value is the mask, and the result (valueTwo) 0 where absent.
    let no_namespaces = first_argument(LinuxSeccompOperator::ScmpCmpMaskedEq, NAMESPACE_FLAGS);
    let mut clone3 = allow("clone3");
    clone3
        .set_action(LinuxSeccompAction::ScmpActErrno)
        .set_errno_ret(Some(errno(libc::ENOSYS)));
    [allow_if("clone", no_namespaces), clone3]
}

/// Socket domains by list: the kernel's cryptography (AF_ALG) and its hypervisor's sockets
/// (AF_VSOCK, no namespaces before Linux 7.0) are out, as are domains no longer maintained.
/// On x86, socketcall keeps its arguments behind a pointer and remains a way around.
fn sockets() -> impl Iterator<Item = LinuxSyscall> {
    let first = first_argument(LinuxSeccompOperator::ScmpCmpLt, FIRST_SOCKET_DOMAINS_END);
    let single = SOCKET_DOMAINS.iter().map(|domain| equal(*domain));
    std::iter::once(first)
        .chain(single)
        .map(|domain| allow_if("socket", domain))
}

fn allow(names: &str) -> LinuxSyscall {
    let mut call = LinuxSyscall::default();
    call.set_names(names.split_ascii_whitespace().map(str::to_owned).collect())
        .set_action(LinuxSeccompAction::ScmpActAllow);
    call
}

fn allow_if(name: &str, condition: LinuxSeccompArg) -> LinuxSyscall {
    let mut call = allow(name);
    call.set_args(Some(vec![condition]));
    call
}

fn equal(value: u64) -> LinuxSeccompArg {
    first_argument(LinuxSeccompOperator::ScmpCmpEq, value)
}

fn first_argument(operator: LinuxSeccompOperator, value: u64) -> LinuxSeccompArg {
    let argument = LinuxSeccompArgBuilder::default().op(operator).value(value);
    argument
        .build()
        .expect("invariant: every field has a default")
}

fn errno(number: i32) -> u32 {
    number.unsigned_abs()
}

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// PER_LINUX and PER_LINUX32, each also with UNAME26, and the query.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// AF_UNIX (1) to AF_ROSE (11) are allowed.
const FIRST_SOCKET_DOMAINS_END: u64 = 12;

/// AF_NETBEUI, SECURITY, KEY, NETLINK, PACKET, ASH; RDS, SNA; PPPOX; LLC, IB, MPLS, CAN,
/// TIPC, BLUETOOTH, IUCV, RXRPC; PHONET, IEEE802154; NFC; KCM, QIPCRTR, SMC, XDP, MCTP.
#[rustfmt::skip]
const SOCKET_DOMAINS: &[u64] = &[
    13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39,
    41, 42, 43, 44, 45,
];

const GROUPS: &[(When, &str)] = &[
    (When::Always, ALWAYS),
    (
        When::On(&[Arch::Arm, Arch::Aarch64]),
        "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    ),
    (When::On(&[Arch::X86_64]), "arch_prctl"),
    (When::On(&[Arch::X86_64, Arch::X86]), "modify_ldt"),
    (When::Has(Capability::Bpf), "bpf"),
    (When::Has(Capability::DacReadSearch), "open_by_handle_at"),
    (When::Has(Capability::Perfmon), "perf_event_open"),
    (
        When::Has(Capability::SysAdmin),
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns
         syslog umount umount2 unshare",
    ),
    (When::Has(Capability::SysBoot), "reboot"),
    (When::Has(Capability::SysChroot), "chroot"),
    (
        When::Has(Capability::SysModule),
        "delete_module finit_module init_module",
    ),
    (
        When::Has(Capability::SysNice),
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    (When::Has(Capability::SysPacct), "acct"),
    (
        When::Has(Capability::SysPtrace),
        "kcmp pidfd_getfd process_madvise",
    ),
    (When::Has(Capability::SysRawio), "ioperm iopl"),
    (
        When::Has(Capability::SysTime),
        "clock_settime clock_settime64 settimeofday stime",
    ),
    (When::Has(Capability::SysTtyConfig), "vhangup"),
    (When::Has(Capability::Syslog), "syslog"),
];

/// Alphabetical, leading underscores aside.
const ALWAYS: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod
    chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64
    clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close
    close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
    eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64
    fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
    fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
    fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue
    futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list
    get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid
    geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid
    getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid
    getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday
    getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents
    io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill
    landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32
    lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek
    lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier
    memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall
    mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal
    msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at
    nanosleep newfstatat _newselect open openat openat2 pause pidfd_open
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll
    ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease
    process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev
    pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg
    recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat
    renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
    rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list
    set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid
    setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32
    setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid
    setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown
    sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice
    stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range
    syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
    timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill
    truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat
    utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev
";
