//! The options of the log driver `syslog`.

use std::path::PathBuf;

use kobune_runtime::{InvalidAddress, Syslog, SyslogAddress, SyslogFormat, Tag};

use super::super::super::fields::{Fault, Fields, Findings, Node};

/// Syslog's facilities, in the order of their numbers.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];
/// Docker's.
const DEFAULT_FACILITY: u8 = 3;

pub(super) fn parse(config: &mut Fields<'_>, tag: Tag, findings: &mut Findings) -> Syslog {
    let address = config.take("syslog-address");
    let address = address.and_then(|node| parse_address(&node, findings));
    let address =
        address.unwrap_or_else(|| SyslogAddress::Unix(PathBuf::from(SyslogAddress::LOCAL)));
    let format = findings.read(config.take("syslog-format"), format);
    let format = format.flatten().unwrap_or(match address {
        SyslogAddress::Unix(_) => SyslogFormat::Local,
        SyslogAddress::Udp(_) | SyslogAddress::Tcp(_) => SyslogFormat::Rfc3164,
    });
    let facility = findings.read(config.take("syslog-facility"), facility);
    Syslog {
        tag,
        address,
        format,
        facility: facility.unwrap_or(DEFAULT_FACILITY),
    }
}

/// Nothing where it is empty, wrong, or asks for what there is not.
fn parse_address(node: &Node<'_>, findings: &mut Findings) -> Option<SyslogAddress> {
    let text = findings
        .accept(node.text())
        .filter(|text| !text.is_empty())?;
    match text.parse() {
        Ok(address) => Some(address),
        // A log that would go over the network unprotected, or nowhere, is not what was asked for.
        Err(error @ (InvalidAddress::Tls | InvalidAddress::Host)) => {
            findings.refuse(node, error.to_string());
            None
        }
        Err(error @ (InvalidAddress::Scheme | InvalidAddress::Path)) => {
            findings.faults.push(node.fault(error.to_string()));
            None
        }
    }
}

fn format(node: &Node<'_>) -> Result<Option<SyslogFormat>, Fault> {
    Ok(Some(match node.text()?.as_str() {
        "" => return Ok(None),
        "rfc3164" => SyslogFormat::Rfc3164,
        "rfc5424" => SyslogFormat::Rfc5424,
        "rfc5424micro" => SyslogFormat::Rfc5424Micro,
        _ => return Err(node.fault("must be rfc3164, rfc5424 or rfc5424micro")),
    }))
}

fn facility(node: &Node<'_>) -> Result<u8, Fault> {
    let text = node.text()?;
    if text.is_empty() {
        return Ok(DEFAULT_FACILITY);
    }
    let named = FACILITIES.iter().position(|name| *name == text);
    let number = named.or_else(|| text.parse().ok());
    let number = number.filter(|number| *number < FACILITIES.len());
    number
        .and_then(|number| u8::try_from(number).ok())
        .ok_or_else(|| node.fault("must be a facility such as daemon or local0, or 0 to 23"))
}
