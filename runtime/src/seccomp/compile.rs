//! From an OCI profile to a program.
//!
//! The filter runs on every system call, so it is a decision tree: by architecture, then by
//! binary search over runs of neighbouring numbers with the same verdict. Only calls whose
//! verdict depends on arguments look further. Since Linux 5.11 the kernel works out the
//! calls that are always allowed when the filter is loaded, and runs it for the others only.

mod arguments;

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::runtime::{
    Arch as OciArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSyscall,
};

use self::arguments::{Check, checks};
use super::bpf::{self, Instruction, jump, skip, stmt};
use super::syscalls::{ARM_PRIVATE, Abi, Table, X32_BIT};
use super::{Arch, Program, SeccompError};

/// What is decided for a call: the action of the first check that holds, or `otherwise`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    checks: Vec<Check>,
    otherwise: u32,
}

/// The calls from `first` up to the next run's share a verdict.
#[derive(Debug)]
struct Run {
    first: u32,
    verdict: Verdict,
}

/// Compiles `profile` for a kernel of architecture `native`.
///
/// - Calls of an architecture that the profile does not list end the process; the native
///   one is always listed.
/// - Of several rules for one call the first that matches decides. Arguments of a rule must
///   all match; if two of them are about the same argument, each is a rule of its own, as
///   runc has it. 32-bit interfaces compare the lower half of the registers.
/// - Calls newer than any the profile names fail with ENOSYS instead of a default error, as
///   with runc: programs then fall back to older calls.
/// - `SCMP_ACT_LOG` and `SCMP_ACT_KILL_PROCESS` need Linux 4.14; an older kernel ends the
///   calling thread instead.
///
/// # Errors
/// Any of [`SeccompError`] but those of loading.
pub fn compile(profile: &LinuxSeccomp, native: Arch) -> Result<Program, SeccompError> {
    let default = action(
        profile.default_action(),
        profile.default_errno_ret(),
        EVERY_CALL,
    )?;
    let table = Table::parse();
    let abis = listed_abis(profile, native);
    let mut code = vec![stmt(bpf::LD_ABS, bpf::ARCH)];
    for audit in audit_architectures(native) {
        let runs = runs(profile, *audit, &abis, &table, default)?;
        if let Some(runs) = runs {
            let mut body = vec![stmt(bpf::LD_ABS, bpf::NUMBER)];
            body.extend(tree(&runs));
            code.push(jump(bpf::JEQ, audit.token, 1, 0));
            code.push(skip(body.len()));
            code.extend(body);
        }
    }
    code.push(stmt(bpf::RET, libc::SECCOMP_RET_KILL_PROCESS));
    if code.len() > bpf::MAX_INSTRUCTIONS {
        let instructions = code.len();
        return Err(SeccompError::TooLong { instructions });
    }
    Ok(Program {
        instructions: code,
        flags: profile.flags().as_deref().map(flags),
        ignored: unknown_names(profile, &table),
    })
}

/// Stands for all calls where an error names one.
const EVERY_CALL: &str = "*";

/// A value of `arch` in `struct seccomp_data`, and the interface behind it.
#[derive(Debug, Clone, Copy)]
struct Audit {
    token: u32,
    abi: Abi,
}

/// AUDIT_ARCH_*: what programs on a kernel of this architecture may use, native first.
fn audit_architectures(native: Arch) -> &'static [Audit] {
    const X86_64: Audit = audit(0xc000_003e, Abi::X86_64);
    const X86: Audit = audit(0x4000_0003, Abi::X86);
    const AARCH64: Audit = audit(0xc000_00b7, Abi::Aarch64);
    const ARM: Audit = audit(0x4000_0028, Abi::Arm);
    match native {
        Arch::X86_64 => &[X86_64, X86],
        Arch::X86 => &[X86],
        Arch::Aarch64 => &[AARCH64, ARM],
        Arch::Arm => &[ARM],
    }
}

const fn audit(token: u32, abi: Abi) -> Audit {
    Audit { token, abi }
}

fn listed_abis(profile: &LinuxSeccomp, native: Arch) -> Vec<Abi> {
    let listed = profile.architectures().iter().flatten();
    let mut abis: Vec<_> = listed
        .filter_map(|arch| match arch {
            OciArch::ScmpArchX86_64 => Some(Abi::X86_64),
            OciArch::ScmpArchX86 => Some(Abi::X86),
            OciArch::ScmpArchX32 => Some(Abi::X32),
            OciArch::ScmpArchAarch64 => Some(Abi::Aarch64),
            OciArch::ScmpArchArm => Some(Abi::Arm),
            _ => None,
        })
        .collect();
    abis.push(audit_architectures(native)[0].abi);
    abis
}

/// All numbers of an architecture in ascending runs; `None` where it is not listed.
fn runs(
    profile: &LinuxSeccomp,
    audit: Audit,
    listed: &[Abi],
    table: &Table,
    default: u32,
) -> Result<Option<Vec<Run>>, SeccompError> {
    let space = |abi| -> Result<Space, SeccompError> {
        Ok(Space {
            verdicts: verdicts(profile, abi, table, default)?,
            default,
        })
    };
    if !listed.contains(&audit.abi) {
        return Ok(None);
    }
    let mut runs = Vec::new();
    space(audit.abi)?.append(0, &mut runs);
    if audit.abi == Abi::X86_64 && listed.contains(&Abi::X32) {
        space(Abi::X32)?.append(X32_BIT, &mut runs);
    } else if audit.abi == Abi::X86_64 {
        push(&mut runs, X32_BIT, libc::SECCOMP_RET_KILL_PROCESS.into());
        // Not an x32 call: what syscall(-1) and debuggers that skip a call leave behind.
        push(&mut runs, u32::MAX, unknown_call(default).into());
    }
    Ok(Some(runs))
}

/// The verdicts of one interface.
#[derive(Debug)]
struct Space {
    verdicts: BTreeMap<u32, Verdict>,
    default: u32,
}

impl Space {
    /// Appends runs for all numbers from `base` on.
    fn append(self, base: u32, runs: &mut Vec<Run>) {
        let private = if base == 0 { ARM_PRIVATE } else { u32::MAX };
        let newest = self.verdicts.range(..private).next_back().map(|(n, _)| *n);
        let mut next = base;
        for (number, verdict) in self.verdicts {
            if number > next {
                let known = newest.is_none_or(|newest| next < newest);
                let gap = if known {
                    self.default
                } else {
                    unknown_call(self.default)
                };
                push(runs, next, gap.into());
            }
            push(runs, number, verdict);
            next = number + 1;
        }
        let rest = newest.map_or(self.default, |_| unknown_call(self.default));
        push(runs, next, rest.into());
    }
}

fn push(runs: &mut Vec<Run>, first: u32, verdict: Verdict) {
    if runs.last().is_none_or(|last| last.verdict != verdict) {
        runs.push(Run { first, verdict });
    }
}

impl From<u32> for Verdict {
    fn from(action: u32) -> Self {
        Self {
            checks: Vec::new(),
            otherwise: action,
        }
    }
}

/// The action for calls that are newer than the profile: a profile that lets unnamed calls
/// through lets these through too.
fn unknown_call(default: u32) -> u32 {
    match default {
        libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG => default,
        _ if default & ACTION == libc::SECCOMP_RET_TRACE => default,
        _ => libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(),
    }
}

/// SECCOMP_RET_ACTION_FULL.
const ACTION: u32 = 0xffff_0000;

/// The verdict of each call that the profile names and the interface has.
fn verdicts(
    profile: &LinuxSeccomp,
    abi: Abi,
    table: &Table,
    default: u32,
) -> Result<BTreeMap<u32, Verdict>, SeccompError> {
    let mut verdicts = BTreeMap::new();
    let mut decided = BTreeSet::new();
    for rule in profile.syscalls().iter().flatten() {
        for name in rule.names() {
            let action = action(rule.action(), rule.errno_ret(), name)?;
            let checks = checks(
                rule.args().as_deref().unwrap_or_default(),
                name,
                action,
                abi,
            )?;
            let Some(number) = table.number(abi, name) else {
                continue;
            };
            if decided.contains(&number) {
                continue;
            }
            let verdict = verdicts
                .entry(number)
                .or_insert_with(|| Verdict::from(default));
            if checks.is_empty() {
                verdict.otherwise = action;
                decided.insert(number);
            }
            verdict.checks.extend(checks);
        }
    }
    Ok(verdicts)
}

fn action(
    action: LinuxSeccompAction,
    errno: Option<u32>,
    syscall: &str,
) -> Result<u32, SeccompError> {
    let syscall = syscall.to_owned();
    match (action, errno) {
        (LinuxSeccompAction::ScmpActNotify, _) => Err(SeccompError::UnsupportedAction {
            action: action.to_string(),
            syscall,
        }),
        (LinuxSeccompAction::ScmpActErrno, Some(errno @ 4096..)) => {
            Err(SeccompError::InvalidErrno { errno, syscall })
        }
        (LinuxSeccompAction::ScmpActTrace, Some(message)) => {
            Ok(libc::SECCOMP_RET_TRACE | message & libc::SECCOMP_RET_DATA)
        }
        _ => Ok(action.as_u32(errno)),
    }
}

fn flags(names: &[LinuxSeccompFilterFlag]) -> u32 {
    names.iter().fold(0, |flags, name| {
        flags
            | match name {
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 1,
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => 1 << 1,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 1 << 2,
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 1 << 5,
            }
    })
}

fn unknown_names(profile: &LinuxSeccomp, table: &Table) -> Vec<String> {
    let rules = profile.syscalls().iter().flatten();
    let names: BTreeSet<_> = rules.flat_map(LinuxSyscall::names).collect();
    let unknown = names.into_iter().filter(|name| !table.knows(name));
    unknown.cloned().collect()
}

/// A balanced tree of comparisons with the number, which is in A.
fn tree(runs: &[Run]) -> Vec<Instruction> {
    let (left, right) = runs.split_at(runs.len() / 2);
    if left.is_empty() {
        return right[0].verdict.code();
    }
    let lower = tree(left);
    let mut code = match u8::try_from(lower.len()) {
        Ok(short) => vec![jump(bpf::JGE, right[0].first, short, 0)],
        // Conditional jumps reach 255 instructions.
        Err(_) => vec![jump(bpf::JGE, right[0].first, 0, 1), skip(lower.len())],
    };
    code.extend(lower);
    code.extend(tree(right));
    code
}

impl Verdict {
    fn code(&self) -> Vec<Instruction> {
        let mut code: Vec<_> = self.checks.iter().flat_map(Check::code).collect();
        code.push(stmt(bpf::RET, self.otherwise));
        code
    }
}
