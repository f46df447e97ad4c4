//! A line as the journal or a syslog server takes it. Pure.

use std::io::Write as _;

use kobune_runtime::log::LogStream;
use kobune_runtime::shim::LogReceiver;
use kobune_runtime::{LogDriver, SyslogFormat, Timestamp};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// Longest names that RFC 5424 has for the device and for the program.
const NAMES: (usize, usize) = (255, 48);

/// Syslog's severities.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    Error = 3,
    Warning = 4,
    Info = 6,
}

/// What stands around every line of one container.
pub(super) enum Envelope {
    /// Fields that are the same for all.
    Journal(Vec<u8>),
    Syslog {
        format: SyslogFormat,
        facility: u8,
        host: String,
        tag: String,
        pid: i32,
    },
}

impl Severity {
    /// Docker's choice.
    pub(super) fn of(stream: LogStream) -> Self {
        match stream {
            LogStream::Stdout => Self::Info,
            LogStream::Stderr => Self::Error,
        }
    }
}

impl Envelope {
    /// Nothing where the driver has no receiver; `pid` is the main process's.
    pub(super) fn new(receiver: LogReceiver, pid: i32) -> Option<Self> {
        let LogReceiver {
            driver,
            container,
            image,
        } = receiver;
        match driver {
            LogDriver::Journald { tag } => {
                let tag = tag.as_str();
                let fields = [
                    ("CONTAINER_NAME", container.as_str()),
                    ("CONTAINER_ID", &container),
                    ("CONTAINER_ID_FULL", &container),
                    ("CONTAINER_TAG", tag),
                    ("IMAGE_NAME", &image),
                    ("SYSLOG_IDENTIFIER", tag),
                ];
                let fields = fields.map(|(name, value)| format!("{name}={value}\n"));
                Some(Self::Journal(fields.concat().into_bytes()))
            }
            LogDriver::Syslog(syslog) => {
                let host = nix::unistd::gethostname().unwrap_or_default();
                Some(Self::Syslog {
                    format: syslog.format,
                    facility: syslog.facility,
                    host: name(&host.to_string_lossy(), NAMES.0),
                    tag: match syslog.format {
                        SyslogFormat::Local | SyslogFormat::Rfc3164 => syslog.tag.into(),
                        SyslogFormat::Rfc5424 | SyslogFormat::Rfc5424Micro => {
                            name(syslog.tag.as_str(), NAMES.1)
                        }
                    },
                    pid,
                })
            }
            LogDriver::File | LogDriver::None | LogDriver::Ring => None,
        }
    }

    /// Makes `out` the message of `text`, which has no line feed.
    pub(super) fn seal(
        &self,
        out: &mut Vec<u8>,
        at: Timestamp,
        severity: Severity,
        partial: bool,
        text: &[u8],
    ) {
        out.clear();
        let at = at.to_string();
        let level = severity as u8;
        // Writing to a vector does not fail.
        let _ = match self {
            Self::Journal(fields) => {
                out.extend_from_slice(fields);
                let partial = if partial {
                    "CONTAINER_PARTIAL_MESSAGE=true\n"
                } else {
                    ""
                };
                write!(
                    out,
                    "PRIORITY={level}\nSYSLOG_TIMESTAMP={at}\n{partial}MESSAGE="
                )
            }
            Self::Syslog {
                format,
                facility,
                host,
                tag,
                pid,
            } => {
                let priority = facility * 8 + level;
                match format {
                    SyslogFormat::Local => {
                        write!(out, "<{priority}>{} {tag}[{pid}]: ", short(&at))
                    }
                    SyslogFormat::Rfc3164 => {
                        write!(out, "<{priority}>{} {host} {tag}[{pid}]: ", short(&at))
                    }
                    SyslogFormat::Rfc5424 => {
                        write!(out, "<{priority}>1 {}Z {host} {tag} {pid} - - ", &at[..19])
                    }
                    SyslogFormat::Rfc5424Micro => {
                        write!(out, "<{priority}>1 {}Z {host} {tag} {pid} - - ", &at[..26])
                    }
                }
            }
        };
        out.extend_from_slice(text);
        if let Self::Journal(_) = self {
            out.push(b'\n');
        }
    }
}

/// `Jan  2 03:04:05` of `2026-01-02T03:04:05.678901234Z`.
fn short(at: &str) -> String {
    let month = at[5..7].parse::<usize>().unwrap_or(1);
    let month = MONTHS.get(month.wrapping_sub(1)).unwrap_or(&MONTHS[0]);
    let day = at[8..10].trim_start_matches('0');
    format!("{month} {day:>2} {}", &at[11..19])
}

/// A name as RFC 5424 has it: visible ASCII, bounded, `-` for none.
fn name(text: &str, bound: usize) -> String {
    let visible = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    let name: String = text.chars().map(visible).take(bound).collect();
    if name.is_empty() {
        "-".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(driver: &str, severity: Severity, partial: bool) -> String {
        let receiver = LogReceiver {
            driver: serde_json::from_str(driver).unwrap(),
            container: "led".to_owned(),
            image: "example.com/led:1".to_owned(),
        };
        let mut envelope = Envelope::new(receiver, 42).unwrap();
        if let Envelope::Syslog { host, .. } = &mut envelope {
            host.replace_range(.., "boat");
        }
        let mut out = b"what was there".to_vec();
        let at = "2026-01-02T03:04:05.678901234Z".parse().unwrap();
        envelope.seal(&mut out, at, severity, partial, b"a\xffb");
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn the_journal_gets_dockers_fields() {
        let fields = "CONTAINER_NAME=led\nCONTAINER_ID=led\nCONTAINER_ID_FULL=led\n\
            CONTAINER_TAG=t\nIMAGE_NAME=example.com/led:1\nSYSLOG_IDENTIFIER=t\n";
        let driver = r#"{"journald":{"tag":"t"}}"#;
        let time = "SYSLOG_TIMESTAMP=2026-01-02T03:04:05.678901234Z\n";
        assert_eq!(
            sealed(driver, Severity::Info, false),
            format!("{fields}PRIORITY=6\n{time}MESSAGE=a\u{fffd}b\n")
        );
        assert_eq!(
            sealed(driver, Severity::Error, true),
            format!(
                "{fields}PRIORITY=3\n{time}CONTAINER_PARTIAL_MESSAGE=true\nMESSAGE=a\u{fffd}b\n"
            )
        );
    }

    #[test]
    fn syslog_has_four_forms() {
        let cases = [
            ("local", "<30>Jan  2 03:04:05 my led[42]: "),
            ("rfc3164", "<30>Jan  2 03:04:05 boat my led[42]: "),
            ("rfc5424", "<30>1 2026-01-02T03:04:05Z boat my_led 42 - - "),
            (
                "rfc5424micro",
                "<30>1 2026-01-02T03:04:05.678901Z boat my_led 42 - - ",
            ),
        ];
        for (format, expected) in cases {
            let driver = format!(
                r#"{{"syslog":{{"tag":"my led","address":"unix:///dev/log","format":"{format}","facility":3}}}}"#
            );
            let message = sealed(&driver, Severity::Info, false);
            assert_eq!(message, format!("{expected}a\u{fffd}b"));
        }
    }
}
