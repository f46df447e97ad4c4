mod interpreter;
mod kernel;
mod naive;

use std::collections::BTreeSet;

use oci_spec::runtime::{
    Arch as OciArch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};
use proptest::prelude::*;

use super::syscalls::{Abi, Table};
use super::*;
use crate::capabilities::CapabilitySet;
use interpreter::{Call, run};

const ARCHES: [Arch; 4] = [Arch::X86_64, Arch::X86, Arch::Aarch64, Arch::Arm];
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;

fn default_program(arch: Arch, capabilities: &[Capability]) -> Program {
    let capabilities =
        CapabilitySet::docker_default().union(capabilities.iter().copied().collect());
    compile(&default_profile(arch, capabilities), arch).unwrap()
}

fn call(abi: Abi, name: &str, first: u64) -> Call {
    let number = Table::parse().number(abi, name);
    let number = number.unwrap_or_else(|| panic!("{abi:?} has no {name}"));
    Call {
        arch: naive::audit_token(abi),
        number,
        args: [first, 0, 0, 0, 0, 0],
    }
}

fn rule(names: &[&str], action: LinuxSeccompAction, args: &[LinuxSeccompArg]) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.iter().map(|&name| name.to_owned()).collect())
        .set_action(action)
        .set_args((!args.is_empty()).then(|| args.to_vec()));
    rule
}

fn arg(index: usize, op: LinuxSeccompOperator, value: u64, two: Option<u64>) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default();
    let mut arg = builder.index(index).op(op).value(value).build().unwrap();
    if let Some(two) = two {
        let builder = LinuxSeccompArgBuilder::default().index(index).op(op);
        arg = builder.value(value).value_two(two).build().unwrap();
    }
    arg
}

fn profile(default: LinuxSeccompAction, rules: Vec<LinuxSyscall>) -> LinuxSeccomp {
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(default)
        .set_syscalls(Some(rules));
    profile
}

#[test]
fn the_default_profile_decides_as_dockers() {
    use Capability::*;
    for (capabilities, name, first, expected) in [
        (&[][..], "getpid", 0, ALLOW),
        (&[], "ptrace", 0, ALLOW),
        (&[], "mount", 0, EPERM),
        (&[SysAdmin], "mount", 0, ALLOW),
        (&[], "unshare", 0, EPERM),
        (&[], "keyctl", 0, EPERM),
        (&[SysAdmin], "keyctl", 0, EPERM),
        (&[], "chroot", 0, ALLOW),
        (&[], "clone3", 0, ENOSYS),
        (&[SysAdmin], "clone3", 0, ALLOW),
        (&[], "clone", 0x0120_0011, ALLOW),
        (&[], "clone", 0x1000_0011, EPERM),
        (&[], "clone", 0x0002_0000, EPERM),
        (&[SysAdmin], "clone", 0x1000_0011, ALLOW),
        (&[], "bpf", 0, EPERM),
        (&[Bpf], "bpf", 0, ALLOW),
        (&[Perfmon], "perf_event_open", 0, ALLOW),
        (&[], "kcmp", 0, EPERM),
        (&[SysPtrace], "kcmp", 0, ALLOW),
        (&[], "init_module", 0, EPERM),
        (&[SysModule], "init_module", 0, ALLOW),
        (&[], "syslog", 0, EPERM),
        (&[Syslog], "syslog", 0, ALLOW),
        (&[], "reboot", 0, EPERM),
        (&[SysBoot], "reboot", 0, ALLOW),
        (&[], "settimeofday", 0, EPERM),
        (&[SysTime], "settimeofday", 0, ALLOW),
        (&[], "personality", 0, ALLOW),
        (&[], "personality", 0x0002_0008, ALLOW),
        (&[], "personality", 0xffff_ffff, ALLOW),
        (&[], "personality", 0x0004_0000, EPERM),
        (&[], "io_uring_setup", 0, EPERM),
    ] {
        for (arch, abi) in [
            (Arch::X86_64, Abi::X86_64),
            (Arch::X86_64, Abi::X86),
            (Arch::X86_64, Abi::X32),
            (Arch::X86, Abi::X86),
            (Arch::Aarch64, Abi::Aarch64),
            (Arch::Aarch64, Abi::Arm),
            (Arch::Arm, Abi::Arm),
        ] {
            let program = default_program(arch, capabilities);
            let verdict = run(&program.instructions, &call(abi, name, first));
            assert_eq!(
                verdict, expected,
                "{abi:?} {capabilities:?} {name}({first:#x})"
            );
        }
    }
}

#[test]
fn socket_domains_are_those_of_docker() {
    let refused = [12, 19, 20, 23, 25, 34, 37, 38, 40, 46, 1 << 32 | 2];
    for (arch, abi) in [(Arch::X86_64, Abi::X86_64), (Arch::Aarch64, Abi::Aarch64)] {
        let program = default_program(arch, &[]);
        for domain in (1..=46).chain([1 << 32 | 2]) {
            let expected = if refused.contains(&domain) {
                EPERM
            } else {
                ALLOW
            };
            let verdict = run(&program.instructions, &call(abi, "socket", domain));
            assert_eq!(verdict, expected, "domain {domain}");
        }
    }
}

#[test]
fn architectures_come_with_their_own_calls() {
    for (arch, abi, name, expected) in [
        (Arch::X86_64, Abi::X86_64, "arch_prctl", ALLOW),
        (Arch::X86_64, Abi::X86_64, "modify_ldt", ALLOW),
        (Arch::X86_64, Abi::X86, "modify_ldt", ALLOW),
        (Arch::X86, Abi::X86, "modify_ldt", ALLOW),
        (Arch::Arm, Abi::Arm, "cacheflush", ALLOW),
        (Arch::Aarch64, Abi::Arm, "set_tls", ALLOW),
        (Arch::Arm, Abi::Arm, "arm_fadvise64_64", ALLOW),
        (Arch::Arm, Abi::Arm, "usr26", ENOSYS),
    ] {
        let program = default_program(arch, &[]);
        let verdict = run(&program.instructions, &call(abi, name, 0));
        assert_eq!(verdict, expected, "{arch:?} {abi:?} {name}");
    }
}

#[test]
fn calls_of_other_architectures_end_the_process() {
    for (arch, foreign) in [
        (Arch::X86_64, Abi::Aarch64),
        (Arch::X86, Abi::X86_64),
        (Arch::Aarch64, Abi::X86_64),
        (Arch::Arm, Abi::Aarch64),
    ] {
        let program = default_program(arch, &[]);
        let verdict = run(&program.instructions, &call(foreign, "read", 0));
        assert_eq!(verdict, KILL, "{arch:?} {foreign:?}");
    }
    let mut only_native = default_profile(Arch::X86_64, CapabilitySet::default());
    only_native.set_architectures(Some(vec![OciArch::ScmpArchX86_64]));
    let program = compile(&only_native, Arch::X86_64).unwrap();
    for abi in [Abi::X86, Abi::X32] {
        assert_eq!(run(&program.instructions, &call(abi, "read", 0)), KILL);
    }
}

#[test]
fn a_profile_of_private_calls_alone_says_nothing_of_what_is_newer() {
    let mut rule = LinuxSyscall::default();
    rule.set_names(vec!["usr26".to_owned()])
        .set_action(LinuxSeccompAction::ScmpActAllow);
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_syscalls(Some(vec![rule]));
    let program = compile(&profile, Arch::Arm).unwrap();
    for (name, expected) in [("usr26", ALLOW), ("read", EPERM), ("set_tls", EPERM)] {
        let verdict = run(&program.instructions, &call(Abi::Arm, name, 0));
        assert_eq!(verdict, expected, "{name}");
    }
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    for arch in ARCHES {
        let program = default_program(arch, &[]);
        let abi = naive::native_abi(arch);
        for (number, expected) in [
            (466, ALLOW),
            (467, ENOSYS),
            (900, ENOSYS),
            (u32::MAX, ENOSYS),
        ] {
            let newer = Call {
                number,
                ..call(abi, "read", 0)
            };
            let verdict = run(&program.instructions, &newer);
            assert_eq!(verdict, expected, "{arch:?} {number}");
        }
    }
    let permissive = profile(
        LinuxSeccompAction::ScmpActAllow,
        vec![rule(&["mount"], LinuxSeccompAction::ScmpActErrno, &[])],
    );
    let program = compile(&permissive, Arch::X86_64).unwrap();
    let newer = Call {
        number: 900,
        ..call(Abi::X86_64, "read", 0)
    };
    assert_eq!(run(&program.instructions, &newer), ALLOW);
}

#[test]
fn programs_stay_small_and_fast() {
    for arch in ARCHES {
        for capabilities in [CapabilitySet::default(), CapabilitySet::docker_default()] {
            let program = compile(&default_profile(arch, capabilities), arch).unwrap();
            assert!(program.instructions.len() < 1500, "{arch:?}");
            let abi = naive::native_abi(arch);
            let steps = interpreter::steps(&program.instructions, &call(abi, "read", 0));
            assert!(steps <= 16, "{arch:?}: {steps} instructions for read(2)");
        }
    }
}

#[test]
fn names_of_no_call_are_reported_and_have_no_effect() {
    for arch in ARCHES {
        assert!(default_program(arch, &[]).ignored().is_empty());
    }
    let actions = LinuxSeccompAction::ScmpActAllow;
    let odd = profile(
        LinuxSeccompAction::ScmpActErrno,
        vec![rule(&["read", "raed", "recv"], actions, &[])],
    );
    assert_eq!(compile(&odd, Arch::X86_64).unwrap().ignored(), ["raed"]);
}

#[test]
fn the_first_matching_rule_decides() {
    use LinuxSeccompAction::*;
    let zero = arg(0, LinuxSeccompOperator::ScmpCmpEq, 0, None);
    let rules = vec![
        rule(&["close"], ScmpActTrap, &[zero]),
        rule(&["close"], ScmpActLog, &[]),
        rule(&["close"], ScmpActAllow, &[]),
    ];
    let program = compile(&profile(ScmpActErrno, rules), Arch::Arm).unwrap();
    for (first, expected) in [(0, 0x0003_0000), (1, 0x7ffc_0000)] {
        assert_eq!(
            run(&program.instructions, &call(Abi::Arm, "close", first)),
            expected
        );
    }
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    use LinuxSeccompAction::*;
    let compiled = |p| compile(&p, Arch::X86_64);
    let notify = compiled(profile(
        ScmpActAllow,
        vec![rule(&["read"], ScmpActNotify, &[])],
    ));
    assert!(
        matches!(notify, Err(SeccompError::UnsupportedAction { syscall, .. }) if syscall == "read")
    );
    let default = compiled(profile(ScmpActNotify, vec![]));
    assert!(
        matches!(default, Err(SeccompError::UnsupportedAction { syscall, .. }) if syscall == "*")
    );
    let sixth = arg(6, LinuxSeccompOperator::ScmpCmpEq, 0, None);
    let argument = compiled(profile(
        ScmpActAllow,
        vec![rule(&["read"], ScmpActTrap, &[sixth])],
    ));
    assert!(matches!(
        argument,
        Err(SeccompError::InvalidArgument { index: 6, .. })
    ));
    let mut errno = profile(ScmpActErrno, vec![]);
    errno.set_default_errno_ret(Some(4096));
    assert!(matches!(
        compiled(errno),
        Err(SeccompError::InvalidErrno { errno: 4096, .. })
    ));
    // A rule of its own for each call: runs of equal verdicts would become one.
    let table = Table::parse();
    let distinct = table.names().zip(0_u64..).map(|(name, value)| {
        let arg = |offset| {
            arg(
                0,
                LinuxSeccompOperator::ScmpCmpEq,
                value << 32 | offset,
                None,
            )
        };
        rule(&[name], ScmpActAllow, &[0, 1, 2, 3].map(arg))
    });
    let endless = compiled(profile(ScmpActErrno, distinct.collect()));
    assert!(matches!(endless, Err(SeccompError::TooLong { .. })));
}

#[test]
fn no_number_of_an_interface_has_two_meanings() {
    // Two names for one call, which both may appear in profiles.
    let aliases = BTreeSet::from(["arm_sync_file_range", "sync_file_range2"]);
    let table = Table::parse();
    for abi in Abi::ALL {
        let mut seen = BTreeSet::new();
        for name in table.names().filter(|name| !aliases.contains(name)) {
            if let Some(number) = table.number(abi, name) {
                assert!(seen.insert(number), "{abi:?} {name} {number}");
            }
        }
        assert!(seen.len() > 300, "{abi:?}");
    }
}

#[test]
fn numbers_are_those_of_the_c_library() {
    let (table, native) = (
        Table::parse(),
        Arch::native().expect("a known architecture"),
    );
    for (name, number) in [
        ("read", libc::SYS_read),
        ("clone3", libc::SYS_clone3),
        ("mount", libc::SYS_mount),
        ("seccomp", libc::SYS_seccomp),
        ("bpf", libc::SYS_bpf),
        ("keyctl", libc::SYS_keyctl),
        ("personality", libc::SYS_personality),
        ("openat2", libc::SYS_openat2),
        ("socket", libc::SYS_socket),
        ("process_madvise", libc::SYS_process_madvise),
    ] {
        let ours = table.number(naive::native_abi(native), name);
        let ours = ours.map(|number| number.to_string());
        assert_eq!(ours, Some(number.to_string()), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn compiled_filters_decide_as_a_reading_of_the_profile(
        profile in naive::any_profile(),
        native in prop::sample::select(&ARCHES[..]),
        calls in prop::collection::vec(naive::any_call(), 64),
    ) {
        let program = match compile(&profile, native) {
            Err(SeccompError::TooLong { .. }) => return Ok(()),
            other => other.unwrap(),
        };
        interpreter::validate(&program.instructions);
        for call in calls {
            let compiled = run(&program.instructions, &call);
            let read = naive::verdict(&profile, native, &call);
            prop_assert_eq!(compiled, read, "{:x?}", call);
        }
    }

    #[test]
    fn so_do_the_default_profiles(
        capabilities in prop::sample::subsequence(
            vec![Capability::SysAdmin, Capability::SysPtrace, Capability::Bpf], 0..3),
        native in prop::sample::select(&ARCHES[..]),
        calls in prop::collection::vec(naive::any_call(), 64),
    ) {
        let profile = default_profile(native, capabilities.into_iter().collect());
        let program = compile(&profile, native).unwrap();
        interpreter::validate(&program.instructions);
        for call in calls {
            let compiled = run(&program.instructions, &call);
            let read = naive::verdict(&profile, native, &call);
            prop_assert_eq!(compiled, read, "{:x?}", call);
        }
    }
}
