//! Comparisons of system call arguments, in two 32-bit halves: BPF has no wider words.

use std::collections::BTreeSet;

use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator};

use super::super::SeccompError;
use super::super::bpf::{self, Instruction, jump, stmt};
use super::super::syscalls::Abi;

/// If all comparisons hold, `action` is the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    comparisons: Vec<Comparison>,
    action: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Comparison {
    argument: u8,
    operator: LinuxSeccompOperator,
    /// Applied to the argument first; all ones for all operators but masked equality.
    mask: Halves,
    value: Halves,
    /// Whether the argument has an upper half; if not, that half counts as 0.
    wide: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Halves {
    high: u32,
    low: u32,
}

/// What follows a comparison of one half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Next,
    Holds,
    Fails,
}

/// The checks of a rule; none where it has no arguments and so always matches.
pub(super) fn checks(
    arguments: &[LinuxSeccompArg],
    syscall: &str,
    action: u32,
    abi: Abi,
) -> Result<Vec<Check>, SeccompError> {
    let comparisons = arguments
        .iter()
        .map(|argument| comparison(argument, syscall, abi))
        .collect::<Result<Vec<_>, _>>()?;
    let distinct: BTreeSet<_> = comparisons.iter().map(|c| c.argument).collect();
    let alternatives = if comparisons.is_empty() {
        Vec::new()
    } else if distinct.len() < comparisons.len() {
        comparisons.into_iter().map(|c| vec![c]).collect()
    } else {
        vec![comparisons]
    };
    let check = |comparisons| Check {
        comparisons,
        action,
    };
    Ok(alternatives.into_iter().map(check).collect())
}

fn comparison(
    argument: &LinuxSeccompArg,
    syscall: &str,
    abi: Abi,
) -> Result<Comparison, SeccompError> {
    let Some(index) = u8::try_from(argument.index()).ok().filter(|i| *i < 6) else {
        return Err(SeccompError::InvalidArgument {
            index: argument.index(),
            syscall: syscall.to_owned(),
        });
    };
    let (mask, value) = match argument.op() {
        // OCI's "value" is then the mask, and "valueTwo" what remains.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (argument.value(), argument.value_two().unwrap_or_default())
        }
        _ => (u64::MAX, argument.value()),
    };
    Ok(Comparison {
        argument: index,
        operator: argument.op(),
        mask: mask.into(),
        value: value.into(),
        wide: abi.is_wide(),
    })
}

impl From<u64> for Halves {
    fn from(value: u64) -> Self {
        let half = |bits: u64| u32::try_from(bits).expect("invariant: half of 64 bits");
        Self {
            high: half(value >> 32),
            low: half(value & u64::from(u32::MAX)),
        }
    }
}

impl Check {
    /// Returns `action`, or runs on behind its end.
    pub(super) fn code(&self) -> Vec<Instruction> {
        // From the back, so that the way to the end is known.
        let mut code = vec![stmt(bpf::RET, self.action)];
        for comparison in self.comparisons.iter().rev() {
            let mut first = comparison.code(code.len());
            first.append(&mut code);
            code = first;
        }
        code
    }
}

impl Comparison {
    /// Runs on where the comparison holds, and else skips `rest` instructions behind it.
    fn code(&self, rest: usize) -> Vec<Instruction> {
        use LinuxSeccompOperator as Op;
        let (high, low): (&[_], _) = match self.operator {
            Op::ScmpCmpEq | Op::ScmpCmpMaskedEq => {
                (&[(bpf::JEQ, Then::Next, Then::Fails)], (bpf::JEQ, true))
            }
            Op::ScmpCmpNe => (&[(bpf::JEQ, Then::Next, Then::Holds)], (bpf::JEQ, false)),
            Op::ScmpCmpGt => (GREATER, (bpf::JGT, true)),
            Op::ScmpCmpGe => (GREATER, (bpf::JGE, true)),
            Op::ScmpCmpLt => (LESS, (bpf::JGE, false)),
            Op::ScmpCmpLe => (LESS, (bpf::JGT, false)),
        };
        let mut code = self.low_half(low, rest);
        if self.high_half_matters() {
            code = self.high_half(high, code, rest);
        }
        code
    }

    /// Whether the upper half can decide anything.
    fn high_half_matters(&self) -> bool {
        self.value.high != 0 || (self.wide && self.mask.high != 0)
    }

    fn low_half(&self, (code, holds): (u16, bool), rest: usize) -> Vec<Instruction> {
        let fails = distance(rest);
        let (jt, jf) = if holds { (0, fails) } else { (fails, 0) };
        let mut instructions = vec![stmt(bpf::LD_ABS, bpf::argument(self.argument))];
        instructions.extend(and(self.mask.low));
        instructions.push(jump(code, self.value.low, jt, jf));
        instructions
    }

    fn high_half(
        &self,
        tests: &[(u16, Then, Then)],
        mut following: Vec<Instruction>,
        rest: usize,
    ) -> Vec<Instruction> {
        for (code, jt, jf) in tests.iter().rev() {
            let target = |then: &Then| match then {
                Then::Next => 0,
                Then::Holds => distance(following.len()),
                Then::Fails => distance(following.len() + rest),
            };
            let test = jump(*code, self.value.high, target(jt), target(jf));
            following.insert(0, test);
        }
        let mut instructions = if self.wide {
            vec![stmt(bpf::LD_ABS, bpf::argument(self.argument) + 4)]
        } else {
            vec![stmt(bpf::LD_IMM, 0)]
        };
        instructions.extend(and(self.mask.high));
        instructions.append(&mut following);
        instructions
    }
}

const GREATER: &[(u16, Then, Then)] = &[
    (bpf::JGT, Then::Holds, Then::Next),
    (bpf::JEQ, Then::Next, Then::Fails),
];

const LESS: &[(u16, Then, Then)] = &[
    (bpf::JGT, Then::Fails, Then::Next),
    (bpf::JEQ, Then::Next, Then::Holds),
];

fn and(mask: u32) -> Option<Instruction> {
    (mask != u32::MAX).then(|| stmt(bpf::AND, mask))
}

/// At most six comparisons of eight instructions.
fn distance(instructions: usize) -> u8 {
    u8::try_from(instructions).expect("invariant: the checks of one rule are short")
}
