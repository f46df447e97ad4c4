//! Device programs of the unified hierarchy.
//!
//! The kernel runs them for every open and mknod of a device, with the kind, the access and
//! the numbers; 1 allows and 0 denies.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use super::DeviceCgroupError;
use super::policy::{Exception, Kind, Policy};
use crate::{DeviceAccess, sys};

/// One eBPF instruction, laid out as the kernel's `struct bpf_insn` on little-endian
/// machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct BpfInstruction {
    pub(super) code: u8,
    /// Destination in the low half, source in the high half.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

const _: () = assert!(size_of::<BpfInstruction>() == 8 && cfg!(target_endian = "little"));

/// By this name programs of an earlier attempt are recognised.
const NAME: [u8; 16] = *b"kobune_devices\0\0";

/// Puts `policy` in force for the cgroup in `dir`; allowing everything takes no program.
pub(super) fn apply(dir: &Path, policy: &Policy) -> Result<(), DeviceCgroupError> {
    let failed = |step: &'static str| {
        move |source: io::Error| match source.raw_os_error() {
            Some(libc::ENOSYS | libc::EINVAL) => {
                DeviceCgroupError::NoDevicePrograms { step, source }
            }
            _ => DeviceCgroupError::Program {
                step,
                path: dir.to_owned(),
                source,
            },
        }
    };
    let cgroup = File::open(dir).map_err(failed("open the directory"))?;
    let cgroup = cgroup.as_fd();
    let earlier = ours(cgroup).map_err(failed("list the device programs"))?;
    if !policy.allow_by_default || !policy.exceptions.is_empty() {
        let program = load(&program(policy)).map_err(failed("load a device program"))?;
        sys::bpf_attach(cgroup, program.as_fd()).map_err(failed("attach a device program"))?;
    }
    for program in earlier {
        sys::bpf_detach(cgroup, program.as_fd())
            .map_err(failed("detach an earlier device program"))?;
    }
    Ok(())
}

/// The programs of this runtime that are attached to the cgroup.
fn ours(cgroup: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut ours = Vec::new();
    for id in sys::bpf_attached(cgroup)? {
        let program = match sys::bpf_open(id) {
            // Detached by someone else meanwhile.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => continue,
            other => other?,
        };
        if sys::bpf_has_name(program.as_fd(), NAME)? {
            ours.push(program);
        }
    }
    Ok(ours)
}

/// Before Linux 5.11 programs count as locked memory, of which there may be too little: then
/// once more with the limit raised as far as may be, for the moment.
fn load(program: &[BpfInstruction]) -> io::Result<OwnedFd> {
    match sys::bpf_load(program, NAME) {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {}
        other => return other,
    }
    let memlock = Resource::RLIMIT_MEMLOCK;
    let (soft, hard) = getrlimit(memlock)?;
    setrlimit(memlock, RLIM_INFINITY, RLIM_INFINITY).or_else(|_| setrlimit(memlock, hard, hard))?;
    let result = sys::bpf_load(program, NAME);
    setrlimit(memlock, soft, hard)?;
    result
}

// Registers: the context comes in 1, the result goes out in 0.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// Register = word of the context.
const LOAD_WORD: u8 = 0x61;
/// Register = immediate.
const MOVE: u8 = 0xb7;
/// Register = register.
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_IF_NOT: u8 = 0x55;
const EXIT: u8 = 0x95;

/// The program for `policy`: one block per exception, then the default.
pub(super) fn program(policy: &Policy) -> Vec<BpfInstruction> {
    // struct bpf_cgroup_dev_ctx: access << 16 | kind, major, minor.
    let mut code = vec![
        load_word(KIND, 0),
        load_word(MAJOR, 4),
        load_word(MINOR, 8),
        instruction(MOVE_REGISTER, KIND << 4 | ACCESS, 0, 0),
        instruction(SHIFT_RIGHT, ACCESS, 0, 16),
        instruction(AND, KIND, 0, 0xffff),
    ];
    for exception in &policy.exceptions {
        code.extend(block(exception, policy.allow_by_default));
    }
    code.extend(verdict(policy.allow_by_default));
    code
}

/// Returns the opposite of the default where the exception applies: an allowed one must
/// cover all of the access, of a denied one any part is enough.
fn block(exception: &Exception, allow_by_default: bool) -> Vec<BpfInstruction> {
    let kind = match exception.kind {
        Kind::Block => 1,
        Kind::Char => 2,
    };
    let numbers = [(MAJOR, exception.major), (MINOR, exception.minor)];
    let numbers = numbers.into_iter().filter_map(|(register, number)| {
        let number = i32::try_from(number?).expect("invariant: at most i32::MAX");
        Some((JUMP_IF_NOT, register, number))
    });
    let mut tests = vec![(JUMP_IF_NOT, KIND, kind)];
    tests.extend(numbers);
    let bits = access_bits(exception.access);
    let (mask, skips) = if allow_by_default {
        (bits, JUMP_IF_EQUAL)
    } else {
        (!bits & 7, JUMP_IF_NOT)
    };
    let mut code = vec![
        instruction(MOVE_REGISTER, ACCESS << 4 | SCRATCH, 0, 0),
        instruction(AND, SCRATCH, 0, mask),
        instruction(skips, SCRATCH, 2, 0),
    ];
    code.extend(verdict(!allow_by_default));
    for (test, register, value) in tests.into_iter().rev() {
        let end = i16::try_from(code.len()).expect("invariant: a block is short");
        code.insert(0, instruction(test, register, end, value));
    }
    code
}

fn verdict(allow: bool) -> [BpfInstruction; 2] {
    [
        instruction(MOVE, RESULT, 0, i32::from(allow)),
        instruction(EXIT, 0, 0, 0),
    ]
}

/// BPF_DEVCG_ACC_*.
pub(super) fn access_bits(access: DeviceAccess) -> i32 {
    i32::from(access.mknod) | i32::from(access.read) << 1 | i32::from(access.write) << 2
}

const fn load_word(register: u8, offset: i16) -> BpfInstruction {
    instruction(LOAD_WORD, CONTEXT << 4 | register, offset, 0)
}

const fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> BpfInstruction {
    BpfInstruction {
        code,
        registers,
        offset,
        immediate,
    }
}
