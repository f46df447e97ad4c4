use super::*;
use proptest::prelude::*;

/// 2026-01-05 00:00 UTC, a Monday.
const MONDAY: i64 = 1_767_571_200;
const HOUR: i64 = 3600;

fn utc(_: i64) -> i64 {
    0
}

/// Central Europe's summer time of 2026, which begins on March 29 at 01:00 UTC.
fn berlin(unix: i64) -> i64 {
    if unix >= 1_774_746_000 {
        2 * HOUR
    } else {
        HOUR
    }
}

fn windows(texts: &[&str]) -> Metered {
    Metered {
        windows: texts.iter().map(|text| text.parse().expect(text)).collect(),
        large: 100,
        ..Metered::default()
    }
}

fn until(verdict: &Verdict) -> Option<(WaitReason, i64)> {
    match verdict {
        Verdict::Go => None,
        Verdict::Wait(wait) => Some((wait.reason, wait.until)),
    }
}

#[test]
fn large_pulls_wait_for_the_next_window_and_small_ones_do_not() {
    let rules = windows(&["01:00-05:00", "sat,sun 22:00-06:00"]);
    let ledger = Ledger::default();
    for (at, expected) in [
        (24 * HOUR, Some(25 * HOUR)),
        (25 * HOUR - 1, Some(25 * HOUR)),
        (25 * HOUR, None),
        (29 * HOUR - 1, None),
        (29 * HOUR, Some(49 * HOUR)),
        // Saturday night goes on into Sunday, Sunday's into Monday.
        (5 * 24 * HOUR + 21 * HOUR, Some(5 * 24 * HOUR + 22 * HOUR)),
        (6 * 24 * HOUR + 5 * HOUR + 1800, None),
        (7 * 24 * HOUR + 5 * HOUR + 1800, None),
        (7 * 24 * HOUR + 6 * HOUR, Some(8 * 24 * HOUR + HOUR)),
    ] {
        let verdict = rules.verdict(&ledger, MONDAY + at, true, utc);
        let expected = expected.map(|at| (WaitReason::Window, MONDAY + at));
        assert_eq!(until(&verdict), expected, "at {at}");
        assert_eq!(rules.verdict(&ledger, MONDAY + at, false, utc), Verdict::Go);
    }
}

#[test]
fn a_window_is_local_time_also_on_the_day_the_clocks_change() {
    let rules = windows(&["04:00-05:00"]);
    let midnight = 1_774_738_800; // 2026-03-29 00:00 in Berlin
    let verdict = rules.verdict(&Ledger::default(), midnight, true, berlin);
    // Three hours later, not four: 02:00 became 03:00.
    assert_eq!(
        until(&verdict),
        Some((WaitReason::Window, midnight + 3 * HOUR))
    );
    let Verdict::Wait(wait) = verdict else {
        panic!("waits");
    };
    let text = wait.to_string();
    assert_eq!(text, "until 2026-03-29 04:00: large pulls have their hours");
    // The hour that does not exist does not come on that day.
    let rules = windows(&["02:15-02:45"]);
    let verdict = rules.verdict(&Ledger::default(), midnight, true, berlin);
    let next = midnight + 23 * HOUR + 2 * HOUR + 900;
    assert_eq!(until(&verdict), Some((WaitReason::Window, next)));
}

#[test]
fn the_budget_is_for_a_day_and_for_all_pulls() {
    let rules = Metered {
        daily: Some(1000),
        ..Metered::default()
    };
    let now = |unix| Now {
        unix,
        uptime: Duration::ZERO,
    };
    let mut ledger = Ledger::default();
    assert!(ledger.turn(now(MONDAY), utc), "the first day");
    ledger.used = 999;
    assert_eq!(rules.verdict(&ledger, MONDAY, false, utc), Verdict::Go);
    ledger.used = 1000;
    for is_large in [true, false] {
        let verdict = rules.verdict(&ledger, MONDAY + HOUR, is_large, utc);
        let midnight = MONDAY + 24 * HOUR;
        assert_eq!(until(&verdict), Some((WaitReason::Budget, midnight)));
    }
    assert!(!ledger.turn(now(MONDAY + 24 * HOUR - 1), utc));
    assert!(ledger.turn(now(MONDAY + 24 * HOUR), utc));
    assert_eq!(ledger.used, 0);
}

#[test]
fn a_clock_that_goes_back_gives_no_budget_again_and_blocks_nothing_for_ever() {
    let at = |unix, hours: i64| Now {
        unix,
        uptime: Duration::from_secs(u64::try_from(hours * HOUR).expect("not negative")),
    };
    let mut ledger = Ledger::default();
    ledger.turn(at(MONDAY, 0), utc);
    ledger.used = 7;
    // A boot at 1970, then the time from the network, then the next boot.
    assert!(!ledger.turn(at(0, 0), utc));
    assert!(!ledger.turn(at(MONDAY + HOUR, 1), utc));
    assert!(!ledger.turn(at(0, 1), utc));
    assert!(!ledger.turn(at(23 * HOUR, 24), utc));
    assert_eq!(ledger.used, 7);
    // The day was from a clock that was far ahead: a day of waiting is enough.
    assert!(ledger.turn(at(24 * HOUR, 25), utc));
    assert_eq!(ledger.used, 0);
}

#[test]
fn windows_are_read_or_refused() {
    for text in [
        "00:00-24:00",
        "23:00-01:00",
        "mon 01:00-02:00",
        "Mon-Fri,sun 01:00-02:00",
        "fri-mon 01:00-02:00",
    ] {
        text.parse::<Window>().expect(text);
    }
    let wrapped: Window = "fri-mon 01:00-02:00".parse().expect("a window");
    assert_eq!(wrapped.days, [true, false, false, false, true, true, true]);
    for text in [
        "",
        "01:00",
        "1:00-2:00",
        "01:00-25:00",
        "24:00-01:00",
        "01:60-02:00",
        "01:00-01:00",
        "xyz 01:00-02:00",
        "mon 01:00",
        "mon- 01:00-02:00",
        "+1:00-02:00",
        "01:00-24:01",
    ] {
        text.parse::<Window>().expect_err(text);
    }
}

proptest! {
    #[test]
    fn whoever_waits_as_told_may_go(start in 0_i64..2_000_000_000, from in 0_u16..1440, to in 0_u16..1441, day in 0_usize..7) {
        prop_assume!(from != to);
        let mut days = [false; 7];
        days[day] = true;
        let rules = Metered { windows: vec![Window { days, from, to }], ..Metered::default() };
        if let Verdict::Wait(wait) = rules.verdict(&Ledger::default(), start, true, berlin) {
            prop_assert!(wait.until > start);
            // But where the window lies in the hour that a change of clocks skips.
            if berlin(start) == berlin(wait.until) {
                prop_assert_eq!(rules.verdict(&Ledger::default(), wait.until, true, berlin), Verdict::Go);
                let earlier = rules.verdict(&Ledger::default(), wait.until - 60, true, berlin);
                prop_assert!(earlier != Verdict::Go || wait.until - 60 < start);
            }
        }
    }
}
