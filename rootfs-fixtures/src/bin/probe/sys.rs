//! Raw system calls, to find out what a filter makes of them.

#![allow(unsafe_code)]

use std::io;

use nix::libc::{self, c_long};

/// Calls that do no harm with `argument` and then zeros, whoever makes them: the kernel finds the
/// rest of their arguments wrong, or they tell or set something of this process alone.
fn number(name: &str) -> Option<c_long> {
    Some(match name {
        "add_key" => libc::SYS_add_key,
        "bpf" => libc::SYS_bpf,
        "chroot" => libc::SYS_chroot,
        "clock_settime" => libc::SYS_clock_settime,
        "clone3" => libc::SYS_clone3,
        "delete_module" => libc::SYS_delete_module,
        "fanotify_init" => libc::SYS_fanotify_init,
        "finit_module" => libc::SYS_finit_module,
        "fsopen" => libc::SYS_fsopen,
        "get_mempolicy" => libc::SYS_get_mempolicy,
        "init_module" => libc::SYS_init_module,
        "io_uring_setup" => libc::SYS_io_uring_setup,
        "kcmp" => libc::SYS_kcmp,
        "keyctl" => libc::SYS_keyctl,
        "landlock_create_ruleset" => libc::SYS_landlock_create_ruleset,
        "mbind" => libc::SYS_mbind,
        "mount" => libc::SYS_mount,
        "mount_setattr" => libc::SYS_mount_setattr,
        "move_mount" => libc::SYS_move_mount,
        "name_to_handle_at" => libc::SYS_name_to_handle_at,
        "open_by_handle_at" => libc::SYS_open_by_handle_at,
        "open_tree" => libc::SYS_open_tree,
        "perf_event_open" => libc::SYS_perf_event_open,
        "personality" => libc::SYS_personality,
        "pidfd_getfd" => libc::SYS_pidfd_getfd,
        "pivot_root" => libc::SYS_pivot_root,
        "process_vm_readv" => libc::SYS_process_vm_readv,
        "ptrace" => libc::SYS_ptrace,
        "quotactl" => libc::SYS_quotactl,
        "quotactl_fd" => libc::SYS_quotactl_fd,
        "request_key" => libc::SYS_request_key,
        "set_mempolicy" => libc::SYS_set_mempolicy,
        "setns" => libc::SYS_setns,
        "settimeofday" => libc::SYS_settimeofday,
        "socket" => libc::SYS_socket,
        "swapoff" => libc::SYS_swapoff,
        "swapon" => libc::SYS_swapon,
        "syslog" => libc::SYS_syslog,
        "umount2" => libc::SYS_umount2,
        "unshare" => libc::SYS_unshare,
        "userfaultfd" => libc::SYS_userfaultfd,
        _ => return None,
    })
}

/// Makes the call `name` with `argument` and zeros; nothing where it is none of those above.
pub(crate) fn call(name: &str, argument: c_long) -> Option<io::Result<()>> {
    let number = number(name)?;
    let zero: c_long = 0;
    // SAFETY: `number` admits only calls that, with null pointers and zero lengths, neither read
    // nor write memory of this process; descriptors they may open are left to the process's end.
    let result = unsafe { libc::syscall(number, argument, zero, zero, zero, zero) };
    Some(if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    })
}

/// Makes the call `name` one that the kernel does not know, to this process and what it starts, as
/// an older kernel would not; nothing where it is none of those above. Takes CAP_SYS_ADMIN.
pub(crate) fn forget(name: &str) -> Option<io::Result<()>> {
    let number = u32::try_from(number(name)?).ok()?;
    let enosys = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    let statement = |code: u32, k: u32, jf: u8| libc::sock_filter {
        code: u16::try_from(code).expect("invariant: codes have 16 bits"),
        jt: 0,
        jf,
        k,
    };
    // The number is what a filter finds first.
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 1),
        statement(libc::BPF_RET | libc::BPF_K, enosys, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: filter.as_mut_ptr(),
    };
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: program and filter outlive the call, which only reads them.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    Some(if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    })
}

/// Serial number of the session keyring.
pub(crate) fn session_keyring() -> io::Result<c_long> {
    let zero: c_long = 0;
    let ask = libc::c_ulong::from(libc::KEYCTL_GET_KEYRING_ID);
    let session = c_long::from(libc::KEY_SPEC_SESSION_KEYRING);
    // SAFETY: nothing but numbers is passed.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, ask, session, zero) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
