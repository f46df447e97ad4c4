//! Instructions of classic BPF over `struct seccomp_data`.

/// One instruction, laid out as the kernel's `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    pub(super) code: u16,
    /// Instructions skipped where the condition holds.
    pub(super) jt: u8,
    /// Instructions skipped where it does not.
    pub(super) jf: u8,
    pub(super) k: u32,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());
const _: () = assert!(align_of::<Instruction>() == align_of::<libc::sock_filter>());

/// `A = word at k of struct seccomp_data`.
pub(super) const LD_ABS: u16 = 0x20;
/// `A = k`.
pub(super) const LD_IMM: u16 = 0x00;
/// `A &= k`.
pub(super) const AND: u16 = 0x54;
/// Skip k instructions.
pub(super) const JA: u16 = 0x05;
/// `A == k`.
pub(super) const JEQ: u16 = 0x15;
/// `A > k`, unsigned.
pub(super) const JGT: u16 = 0x25;
/// `A >= k`, unsigned.
pub(super) const JGE: u16 = 0x35;
/// The verdict is k.
pub(super) const RET: u16 = 0x06;

/// Largest program the kernel takes.
pub(super) const MAX_INSTRUCTIONS: usize = 4096;

/// Offsets in `struct seccomp_data`.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCH: u32 = 4;

/// Offset of the less significant word of argument `index`; the other one follows, as all
/// architectures known here are little endian.
pub(super) const fn argument(index: u8) -> u32 {
    16 + 8 * index as u32
}

/// A statement: no jump.
pub(super) const fn stmt(code: u16, k: u32) -> Instruction {
    Instruction {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// A conditional jump.
pub(super) const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// A jump over any number of instructions.
pub(super) fn skip(instructions: usize) -> Instruction {
    let k = u32::try_from(instructions).expect("invariant: programs are shorter than 2^32");
    stmt(JA, k)
}
