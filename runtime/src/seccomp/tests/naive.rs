//! What a profile means, read rule by rule, and random profiles and calls.

use super::*;

pub(super) fn native_abi(arch: Arch) -> Abi {
    match arch {
        Arch::X86_64 => Abi::X86_64,
        Arch::X86 => Abi::X86,
        Arch::Aarch64 => Abi::Aarch64,
        Arch::Arm => Abi::Arm,
    }
}

pub(super) fn audit_token(abi: Abi) -> u32 {
    match abi {
        Abi::X86_64 | Abi::X32 => 0xc000_003e,
        Abi::X86 => 0x4000_0003,
        Abi::Aarch64 => 0xc000_00b7,
        Abi::Arm => 0x4000_0028,
    }
}

fn oci(abi: Abi) -> OciArch {
    match abi {
        Abi::X86_64 => OciArch::ScmpArchX86_64,
        Abi::X86 => OciArch::ScmpArchX86,
        Abi::Aarch64 => OciArch::ScmpArchAarch64,
        Abi::Arm => OciArch::ScmpArchArm,
        Abi::X32 => OciArch::ScmpArchX32,
    }
}

pub(super) fn verdict(profile: &LinuxSeccomp, native: Arch, call: &Call) -> u32 {
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    let Some(abi) = abi_of(native, call) else {
        return KILL;
    };
    let listed = profile.architectures().iter().flatten();
    let listed = listed
        .chain([&oci(native_abi(native))])
        .any(|a| *a == oci(abi));
    if !listed && call.number == u32::MAX && abi == Abi::X32 {
        return unknown(profile, default);
    } else if !listed {
        return KILL;
    }
    let table = Table::parse();
    let rules = profile.syscalls().iter().flatten();
    let mut newest = None;
    for rule in rules.clone() {
        for name in rule.names() {
            let number = table
                .number(abi, name)
                .filter(|n| *n < 0xf0000 || abi == Abi::X32);
            newest = newest.max(number);
        }
    }
    for rule in rules {
        let named = |name: &String| table.number(abi, name) == Some(call.number);
        if rule.names().iter().any(named) && matches(rule, abi, call) {
            return rule.action().as_u32(rule.errno_ret());
        }
    }
    let named = profile
        .syscalls()
        .iter()
        .flatten()
        .flat_map(LinuxSyscall::names);
    let known = named
        .into_iter()
        .any(|n| table.number(abi, n) == Some(call.number));
    match newest {
        Some(newest) if call.number > newest && !known => unknown(profile, default),
        _ => default,
    }
}

fn unknown(profile: &LinuxSeccomp, default: u32) -> u32 {
    use LinuxSeccompAction::*;
    match profile.default_action() {
        ScmpActAllow | ScmpActLog | ScmpActTrace => default,
        _ => ENOSYS,
    }
}

fn abi_of(native: Arch, call: &Call) -> Option<Abi> {
    let possible: &[Abi] = match native {
        Arch::X86_64 => &[Abi::X86_64, Abi::X86, Abi::X32],
        Arch::X86 => &[Abi::X86],
        Arch::Aarch64 => &[Abi::Aarch64, Abi::Arm],
        Arch::Arm => &[Abi::Arm],
    };
    let found = possible.iter().find(|abi| {
        audit_token(**abi) == call.arch
            && match abi {
                Abi::X86_64 => call.number < 1 << 30,
                Abi::X32 => call.number >= 1 << 30,
                _ => true,
            }
    });
    found.copied()
}

fn matches(rule: &LinuxSyscall, abi: Abi, call: &Call) -> bool {
    let args = rule.args().as_deref().unwrap_or_default();
    let indices: BTreeSet<_> = args.iter().map(LinuxSeccompArg::index).collect();
    let holds = |arg: &LinuxSeccompArg| compare(arg, abi, call.args[arg.index()]);
    if indices.len() == args.len() {
        args.iter().all(holds)
    } else {
        args.iter().any(holds)
    }
}

fn compare(arg: &LinuxSeccompArg, abi: Abi, register: u64) -> bool {
    let actual = match abi {
        Abi::X86_64 | Abi::Aarch64 => register,
        _ => register & 0xffff_ffff,
    };
    match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => actual != arg.value(),
        LinuxSeccompOperator::ScmpCmpLt => actual < arg.value(),
        LinuxSeccompOperator::ScmpCmpLe => actual <= arg.value(),
        LinuxSeccompOperator::ScmpCmpEq => actual == arg.value(),
        LinuxSeccompOperator::ScmpCmpGe => actual >= arg.value(),
        LinuxSeccompOperator::ScmpCmpGt => actual > arg.value(),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            actual & arg.value() == arg.value_two().unwrap_or(0)
        }
    }
}

/// Values that often meet: neighbours and combinations of few halves.
fn any_value() -> impl Strategy<Value = u64> + Clone {
    let half = prop::sample::select(vec![0_u64, 1, 2, 3, 0x7fff_ffff, 0xffff_ffff]);
    (half.clone(), half).prop_map(|(high, low)| high << 32 | low)
}

fn any_arg() -> impl Strategy<Value = LinuxSeccompArg> {
    use LinuxSeccompOperator::*;
    let op = prop::sample::select(vec![
        ScmpCmpNe,
        ScmpCmpLt,
        ScmpCmpLe,
        ScmpCmpEq,
        ScmpCmpGe,
        ScmpCmpGt,
        ScmpCmpMaskedEq,
    ]);
    (0..6_usize, op, any_value(), prop::option::of(any_value()))
        .prop_map(|(index, op, value, two)| arg(index, op, value, two))
}

fn any_rule() -> impl Strategy<Value = LinuxSyscall> {
    use LinuxSeccompAction::*;
    let mut names: Vec<_> = Table::parse().names().collect();
    names.sort_unstable();
    let actions = vec![
        ScmpActAllow,
        ScmpActErrno,
        ScmpActKill,
        ScmpActKillProcess,
        ScmpActLog,
        ScmpActTrace,
        ScmpActTrap,
    ];
    (
        prop::collection::vec(prop::sample::select(names), 1..16),
        prop::sample::select(actions),
        prop::option::of(0..200_u32),
        prop::collection::vec(any_arg(), 0..4),
    )
        .prop_map(|(names, action, errno, args)| {
            let mut rule = rule(&names, action, &args);
            rule.set_errno_ret(errno);
            rule
        })
}

pub(super) fn any_profile() -> impl Strategy<Value = LinuxSeccomp> {
    use LinuxSeccompAction::*;
    let defaults = vec![ScmpActAllow, ScmpActErrno, ScmpActKillProcess, ScmpActTrace];
    (
        prop::sample::select(defaults),
        prop::collection::vec(any_rule(), 0..8),
        prop::sample::subsequence(Abi::ALL.to_vec(), 0..5),
    )
        .prop_map(|(default, rules, abis)| {
            let mut profile = profile(default, rules);
            profile.set_architectures(Some(abis.into_iter().map(oci).collect()));
            profile
        })
}

pub(super) fn any_call() -> impl Strategy<Value = Call> {
    let number = prop_oneof![
        8 => 0..480_u32,
        4 => (0..560_u32).prop_map(|n| n | 1 << 30),
        1 => 0xf_0000..0xf_0008_u32,
        1 => Just(u32::MAX),
        1 => any::<u32>(),
    ];
    let arches = Abi::ALL.map(audit_token).to_vec();
    (
        prop::sample::select(arches),
        number,
        prop::array::uniform6(any_value()),
    )
        .prop_map(|(arch, number, args)| Call { arch, number, args })
}
