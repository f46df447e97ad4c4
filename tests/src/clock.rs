//! Environments of programs for which time is not what it is: libfaketime's.

use std::path::Path;

/// Variables of an environment.
pub type Variables = Vec<(String, String)>;

/// The clock, but for that of timers, is off by `offset` as libfaketime reads it.
#[must_use]
pub fn off_by(offset: &str) -> Variables {
    variables(&[("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("FAKETIME", offset)])
}

/// As [`off_by`], with the offset that `file` has at each moment.
#[must_use]
pub fn as_in(file: &Path) -> Variables {
    variables(&[
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_TIMESTAMP_FILE", &file.display().to_string()),
    ])
}

/// Time passes `factor` times as fast, that of timers as well.
#[must_use]
pub fn fast(factor: u32) -> Variables {
    variables(&[("FAKETIME", &format!("+0 x{factor}"))])
}

fn variables(set: &[(&str, &str)]) -> Variables {
    // Where Debian has it on this machine.
    let lib = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let preload = format!("{lib}/faketime/libfaketimeMT.so.1");
    let all = [("LD_PRELOAD", preload.as_str())].into_iter();
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    all.chain(set.iter().copied()).map(owned).collect()
}
