use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(1_800_000_000 + seconds, 0)
}

fn said(test: &[&str]) -> Healthcheck {
    Healthcheck {
        test: Some(test.iter().map(|word| (*word).to_owned()).collect()),
        ..Healthcheck::default()
    }
}

#[test]
fn the_command_and_the_defaults_are_dockers() {
    let cases: [(&[&str], Option<&[&str]>); 5] = [
        (&["NONE"], None),
        (&[], None),
        (&["CMD"], None),
        (&["CMD", "probe", "-x"], Some(&["probe", "-x"])),
        (&["CMD-SHELL", "a || b"], Some(&["/bin/sh", "-c", "a || b"])),
    ];
    for (test, expected) in cases {
        let check = Check::new(&said(test));
        let command = check.as_ref().map(|check| check.command.clone());
        let expected = expected.map(|words| words.iter().map(|w| (*w).to_owned()).collect());
        assert_eq!(command, expected, "{test:?}");
    }
    assert_eq!(Check::new(&Healthcheck::default()), None);
    let check = Check::new(&said(&["CMD", "x"])).unwrap();
    let seconds = Duration::from_secs;
    assert_eq!((check.interval, check.timeout), (seconds(30), seconds(30)));
    assert_eq!(
        (check.start_period, check.start_interval),
        (seconds(0), seconds(5))
    );
    assert_eq!(check.retries, 3);
    // What the options leave out is the image's.
    let options = Healthcheck {
        retries: Some(7),
        ..Healthcheck::default()
    };
    let check = Check::new(&options.or(said(&["CMD", "x"]))).unwrap();
    assert_eq!((check.command.len(), check.retries), (1, 7));
    assert_eq!(Check::new(&said(&["NONE"]).or(said(&["CMD", "x"]))), None);
}

/// Interval 10, start period 25, start interval 3, two failures. `+` passes, `-` fails; each
/// check ends a second after it was due.
#[test]
fn failures_in_a_row_make_unhealthy_and_one_success_healthy() {
    let check = Check {
        command: vec!["x".to_owned()],
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
        start_period: Duration::from_secs(25),
        start_interval: Duration::from_secs(3),
        retries: 2,
    };
    // Results, then what is known, the streak, and when the next is due.
    let cases = [
        ("", "starting", 0, 3),
        ("-", "starting", 0, 7),
        // Failures at 4, 8, 12, 16, 20, 24 do not count, that at 28 does.
        ("------", "starting", 0, 27),
        ("-------", "starting", 1, 38),
        ("--------", "unhealthy", 2, 49),
        ("--------+", "healthy", 0, 60),
        // Once healthy, failures count in the start period too.
        ("+", "healthy", 0, 14),
        ("+-", "healthy", 1, 25),
        ("+--", "unhealthy", 2, 36),
        ("+---", "unhealthy", 3, 47),
        ("+--+", "healthy", 0, 47),
        ("+-+-", "healthy", 1, 47),
    ];
    for (results, health, streak, due) in cases {
        let mut watch = Watch::new(&check, at(0));
        let mut now = 0;
        for result in results.chars() {
            now = watch.due.since(at(0)).unwrap().as_secs() + 1;
            watch.record(&check, result == '+', at(now));
        }
        let known = (watch.health.as_str(), watch.streak, watch.due);
        assert_eq!(known, (health, streak, at(due)), "{results:?} at {now}");
    }
    let mut watch = Watch::new(&check, at(0));
    watch.record(&check, true, at(4));
    for (now, due) in [(13, false), (14, true), (99, true), (3, true)] {
        assert_eq!(watch.is_due(&check, at(now)), due, "{now}");
    }
}

#[test]
fn unhealthy_is_since_the_failure_that_made_it_so() {
    let mut check = Check::new(&said(&["CMD", "x"])).unwrap();
    check.retries = 1;
    let mut watch = Watch::new(&check, at(0));
    watch.record(&check, false, at(31));
    watch.record(&check, false, at(62));
    assert_eq!(watch.health, Health::Unhealthy { since: at(31) });
}

#[test]
fn a_module_that_tells_when_it_is_ready_is_starting_until_then() {
    let sick = Some(Health::Unhealthy { since: at(7) });
    let (starting, healthy) = (Some(Health::Starting), Some(Health::Healthy));
    let cases = [
        (None, None, None),
        (healthy, None, healthy),
        (None, Some(false), starting),
        (healthy, Some(false), starting),
        (starting, Some(false), starting),
        // A check that fails says more than silence.
        (sick, Some(false), sick),
        (None, Some(true), healthy),
        (starting, Some(true), starting),
        (sick, Some(true), sick),
    ];
    for (checked, ready, expected) in cases {
        let known = Health::with_readiness(checked, ready);
        assert_eq!(known, expected, "{checked:?}, {ready:?}");
    }
}
