//! Limits of the processes.

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType};

use super::SpecError;
use crate::options::Ulimit;

/// `RLIM_INFINITY`.
const UNLIMITED: u64 = u64::MAX;

/// The limits asked for; nothing where there are none, and each is then the agent's.
pub(super) fn rlimits(ulimits: &[Ulimit]) -> Result<Option<Vec<PosixRlimit>>, SpecError> {
    let all: Result<Vec<_>, _> = ulimits.iter().map(rlimit).collect();
    all.map(|all| Some(all).filter(|all| !all.is_empty()))
}

fn rlimit(ulimit: &Ulimit) -> Result<PosixRlimit, SpecError> {
    let name = || ulimit.name.clone();
    let kind = kind(&ulimit.name).ok_or_else(|| SpecError::UlimitName { name: name() })?;
    let (soft, hard) = (
        ulimit.soft.unwrap_or(UNLIMITED),
        ulimit.hard.unwrap_or(UNLIMITED),
    );
    if soft > hard {
        return Err(SpecError::UlimitOrder { name: name() });
    }
    let builder = PosixRlimitBuilder::default()
        .typ(kind)
        .soft(soft)
        .hard(hard);
    Ok(builder.build().expect("invariant: every field is set"))
}

fn kind(name: &str) -> Option<PosixRlimitType> {
    Some(match name {
        "as" => PosixRlimitType::RlimitAs,
        "core" => PosixRlimitType::RlimitCore,
        "cpu" => PosixRlimitType::RlimitCpu,
        "data" => PosixRlimitType::RlimitData,
        "fsize" => PosixRlimitType::RlimitFsize,
        "locks" => PosixRlimitType::RlimitLocks,
        "memlock" => PosixRlimitType::RlimitMemlock,
        "msgqueue" => PosixRlimitType::RlimitMsgqueue,
        "nice" => PosixRlimitType::RlimitNice,
        "nofile" => PosixRlimitType::RlimitNofile,
        "nproc" => PosixRlimitType::RlimitNproc,
        "rss" => PosixRlimitType::RlimitRss,
        "rtprio" => PosixRlimitType::RlimitRtprio,
        "rttime" => PosixRlimitType::RlimitRttime,
        "sigpending" => PosixRlimitType::RlimitSigpending,
        "stack" => PosixRlimitType::RlimitStack,
        _ => return None,
    })
}
