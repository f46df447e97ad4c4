//! The signal that asks a container to end.

use std::str::FromStr;

use nix::sys::signal::Signal;
use oci_spec::image::ImageConfiguration;

use super::SpecError;
use crate::options::ContainerOptions;

/// First and last real-time signal as C libraries number them for programs.
const REAL_TIME: (i32, i32) = (34, 64);

/// The stop signal of a container by number: the options', else the image's, else SIGTERM.
///
/// An image names it with or without `SIG`, as `RTMIN+n` or `RTMAX-n`, or by number.
pub fn stop_signal(
    image: &ImageConfiguration,
    options: &ContainerOptions,
) -> Result<i32, SpecError> {
    let named = image
        .config()
        .as_ref()
        .and_then(|config| config.stop_signal().as_deref());
    match (options.stop_signal, named) {
        (Some(number), _) => in_range(number).ok_or_else(|| SpecError::StopSignal {
            signal: number.to_string(),
        }),
        (None, Some(name)) if !name.is_empty() => {
            signal_number(name).ok_or_else(|| SpecError::StopSignal {
                signal: name.to_owned(),
            })
        }
        (None, _) => Ok(Signal::SIGTERM as i32),
    }
}

/// The number of a signal: `15`, `TERM`, `SIGTERM` in any case, `RTMIN+3`, `RTMAX-2`.
#[must_use]
pub fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return in_range(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let (first, last) = REAL_TIME;
    let real_time = |offset: &str| offset.parse::<i32>().ok().filter(|n| (0..=30).contains(n));
    match name {
        "RTMIN" => Some(first),
        "RTMAX" => Some(last),
        _ => {
            if let Some(offset) = name.strip_prefix("RTMIN+") {
                real_time(offset).map(|offset| first + offset)
            } else if let Some(offset) = name.strip_prefix("RTMAX-") {
                real_time(offset).map(|offset| last - offset)
            } else {
                let signal = Signal::from_str(&format!("SIG{name}")).ok()?;
                Some(signal as i32)
            }
        }
    }
}

fn in_range(number: i32) -> Option<i32> {
    (1..=REAL_TIME.1).contains(&number).then_some(number)
}
