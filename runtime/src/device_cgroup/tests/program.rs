//! Device programs without a kernel: a small eBPF interpreter against the policy itself.

use proptest::prelude::*;

use super::super::v2::{BpfInstruction, access_bits, program};
use super::*;

#[derive(Debug, Clone, Copy)]
struct Request {
    kind: Kind,
    major: u32,
    minor: u32,
    access: DeviceAccess,
}

fn run(program: &[BpfInstruction], request: &Request) -> u64 {
    let kind = if request.kind == Kind::Block { 1 } else { 2 };
    let access = u32::try_from(access_bits(request.access)).unwrap();
    let context = [access << 16 | kind, request.major, request.minor];
    let mut registers = [0_u64; 11];
    let mut at = 0;
    loop {
        let i = program[at];
        at += 1;
        let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
        let immediate = i64::from(i.immediate).cast_unsigned();
        let jump = usize::try_from(i.offset.max(0)).unwrap();
        match i.code {
            0x61 => registers[to] = context[jump / 4].into(),
            0xb7 => registers[to] = immediate,
            0xbf => registers[to] = registers[from],
            0x57 => registers[to] &= immediate,
            0x77 => registers[to] >>= immediate,
            0x15 if registers[to] == immediate => at += jump,
            0x55 if registers[to] != immediate => at += jump,
            0x15 | 0x55 => {}
            0x95 => return registers[0],
            other => panic!("no instruction {other:#x}"),
        }
    }
}

/// As the kernel's `devices` controller decides.
fn allows(policy: &Policy, request: &Request) -> bool {
    let (asked, mut applies) = (access_bits(request.access), false);
    for e in &policy.exceptions {
        let devices = e.kind == request.kind
            && e.major.is_none_or(|major| major == request.major)
            && e.minor.is_none_or(|minor| minor == request.minor);
        let given = access_bits(e.access);
        applies |= devices
            && if policy.allow_by_default {
                asked & given != 0
            } else {
                asked & !given == 0
            };
    }
    applies != policy.allow_by_default
}

fn any_access() -> impl Strategy<Value = DeviceAccess> {
    let texts = vec!["r", "w", "m", "rw", "rm", "wm", "rwm"];
    prop::sample::select(texts).prop_map(|text| DeviceAccess::try_from(text).unwrap())
}

fn any_rule() -> impl Strategy<Value = LinuxDeviceCgroup> {
    let class = vec![DeviceClass::All, DeviceClass::Char, DeviceClass::Block];
    let number = || prop::option::of(0..3_u32);
    (
        any::<bool>(),
        prop::sample::select(class),
        (number(), number()),
        any_access(),
    )
        .prop_map(|(allow, class, numbers, access)| rule(allow, class, numbers, access))
}

fn any_request() -> impl Strategy<Value = Request> {
    (any::<bool>(), 0..3_u32, 0..3_u32, any_access()).prop_map(|(char, major, minor, access)| {
        Request {
            kind: if char { Kind::Char } else { Kind::Block },
            major,
            minor,
            access,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn programs_decide_as_the_version_1_controller(
        rules in prop::collection::vec(any_rule(), 0..8),
        requests in prop::collection::vec(any_request(), 32),
    ) {
        if let Ok(policy) = Policy::from_rules(&rules) {
            let program = program(&policy);
            for request in requests {
                let verdict = run(&program, &request);
                prop_assert_eq!(verdict == 1, allows(&policy, &request), "{:?}", request);
            }
        }
    }

    /// For single accesses the policy is the list read in order, the last match winning.
    #[test]
    fn policies_mean_what_their_rules_say(
        rules in prop::collection::vec(any_rule(), 0..8),
        requests in prop::collection::vec(any_request(), 32),
    ) {
        if let Ok(policy) = Policy::from_rules(&rules) {
            for request in requests.iter().filter(|r| access_bits(r.access).count_ones() == 1) {
                let wanted = request.access.to_string();
                let matching = rules.iter().rfind(|rule| {
                    let kind = match rule.typ().unwrap() {
                        LinuxDeviceType::C => request.kind == Kind::Char,
                        LinuxDeviceType::B => request.kind == Kind::Block,
                        _ => true,
                    };
                    kind && rule.major().is_none_or(|n| n == i64::from(request.major))
                        && rule.minor().is_none_or(|n| n == i64::from(request.minor))
                        && rule.access().as_deref().unwrap().contains(&wanted)
                });
                let expected = matching.is_some_and(LinuxDeviceCgroup::allow);
                prop_assert_eq!(allows(&policy, request), expected, "{:?}", request);
            }
        }
    }
}
