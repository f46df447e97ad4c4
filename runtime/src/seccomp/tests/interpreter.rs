//! The part of classic BPF that filters use, by the kernel's documentation.

use super::Instruction;

/// `struct seccomp_data`, without the instruction pointer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) arch: u32,
    pub(super) number: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let mut bytes = Vec::new();
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.arch.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(self.args.iter().flat_map(|arg| arg.to_le_bytes()));
        let at = usize::try_from(offset).unwrap();
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }
}

pub(super) fn run(program: &[Instruction], call: &Call) -> u32 {
    execute(program, call).0
}

/// Number of instructions executed.
pub(super) fn steps(program: &[Instruction], call: &Call) -> usize {
    execute(program, call).1
}

fn execute(program: &[Instruction], call: &Call) -> (u32, usize) {
    let (mut a, mut at, mut steps) = (0, 0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        steps += 1;
        let holds = match code {
            0x20 => {
                a = call.word(k);
                continue;
            }
            0x00 => {
                a = k;
                continue;
            }
            0x54 => {
                a &= k;
                continue;
            }
            0x05 => {
                at += usize::try_from(k).unwrap();
                continue;
            }
            0x06 => return (k, steps),
            0x15 => a == k,
            0x25 => a > k,
            0x35 => a >= k,
            other => panic!("no instruction {other:#x}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

/// What the kernel checks: jumps stay inside, the last instruction returns.
pub(super) fn validate(program: &[Instruction]) {
    assert!(program.len() <= 4096);
    assert_eq!(program.last().unwrap().code, 0x06);
    for (at, i) in program.iter().enumerate() {
        let reach = match i.code {
            0x05 => usize::try_from(i.k).unwrap(),
            0x15 | 0x25 | 0x35 => usize::from(i.jt.max(i.jf)),
            0x20 => {
                assert!(i.k % 4 == 0 && i.k < 64, "load at {at}");
                0
            }
            _ => 0,
        };
        assert!(at + 1 + reach <= program.len(), "jump at {at}");
    }
}
