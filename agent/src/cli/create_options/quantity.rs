//! Numbers with units.

use serde_json::{Value, json};

/// A whole number, which may be negative (`-1`: no limit).
pub(super) fn whole(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "expected a number".to_owned())
}

/// Bytes with an optional binary unit: `b`, `k`, `m`, `g`, `kb`, `kib` and so on.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err("expected a size such as 64m".to_owned()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "expected a size such as 64m".to_owned())
}

/// A decimal number in units of 1e-9, exactly.
pub(super) fn nano(text: &str) -> Result<u64, String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let parse = || {
        let none = whole.is_empty() && fraction.is_empty();
        if none || !all_digits(whole) || !all_digits(fraction) || fraction.len() > 9 {
            return None;
        }
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        let fraction: u64 = format!("{fraction:0<9}").parse().ok()?;
        whole.checked_mul(1_000_000_000)?.checked_add(fraction)
    };
    parse().ok_or_else(|| "expected a number such as 0.5, with at most 9 decimals".to_owned())
}

/// `NAME=SOFT[:HARD]`.
pub(super) fn ulimit(text: &str) -> Result<Value, String> {
    let expected = || "expected NAME=SOFT[:HARD]".to_owned();
    let (name, limits) = text.split_once('=').ok_or_else(expected)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (whole(soft), whole(hard));
    match (name, soft, hard) {
        ("", ..) => Err(expected()),
        (name, Ok(soft), Ok(hard)) => Ok(json!({ "Name": name, "Soft": soft, "Hard": hard })),
        _ => Err(expected()),
    }
}
