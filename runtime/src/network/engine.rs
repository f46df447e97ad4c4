//! Which engine publishes ports.

use std::io;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::error::NetworkError;
use super::ipam::Ipv4Subnet;
use super::nft;

/// Which engine shall publish ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Engine {
    /// nf_tables where the kernel has all we need of it, else legacy ip_tables likewise,
    /// else the forwarder.
    #[default]
    Auto,
    /// nf_tables or an error.
    NfTables,
    /// Legacy ip_tables or an error.
    IpTables,
    /// The forwarder.
    Forwarder,
}

impl EngineInUse {
    /// Whether the kernel publishes the ports.
    pub(crate) fn has_rules(self) -> bool {
        self != Self::Forwarder
    }
}

/// Which engine publishes ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EngineInUse {
    /// Rules of a table of our own.
    NfTables,
    /// Rules in chains of our own, in the tables that all programs share.
    IpTables,
    /// A process per module. Modules reach each other and the host, but nothing beyond:
    /// there is no outbound address translation.
    Forwarder,
}

/// Whether nf_tables take our rules.
pub(super) fn probe(table: &str) -> io::Result<()> {
    let example = Ipv4Subnet::new(Ipv4Addr::new(172, 18, 0, 0), 16);
    nft::probe(
        &format!("{table}-probe"),
        example.expect("invariant: a valid subnet"),
    )
}

/// The engine, and why it is not the one that does everything. Legacy ip_tables are looked
/// at only where they may be used: looking makes their tables.
pub(super) fn choose(
    wanted: Engine,
    nf_tables: io::Result<()>,
    ip_tables: impl FnOnce() -> io::Result<()>,
) -> io::Result<(EngineInUse, Option<String>)> {
    let configured = || Some("chosen by configuration".to_owned());
    match (wanted, nf_tables) {
        (Engine::Forwarder, _) => Ok((EngineInUse::Forwarder, configured())),
        (Engine::IpTables, _) => Ok((ip_tables().map(|()| EngineInUse::IpTables)?, configured())),
        (_, Ok(())) => Ok((EngineInUse::NfTables, None)),
        (Engine::NfTables, Err(error)) => Err(error),
        (Engine::Auto, Err(error)) => {
            let reason = format!("the kernel lacks nf_tables: {error}");
            Ok(match ip_tables() {
                Ok(()) => (EngineInUse::IpTables, Some(reason)),
                Err(error) => (
                    EngineInUse::Forwarder,
                    Some(format!("{reason}; and ip_tables: {error}")),
                ),
            })
        }
    }
}

/// An engine that is demanded does not work.
pub(super) fn error(engine: Engine, table: &str, source: io::Error) -> NetworkError {
    match engine {
        Engine::IpTables => NetworkError::LegacyRules(source),
        _ => NetworkError::Rules {
            table: table.to_owned(),
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_falls_back_only_where_it_was_left_open() {
        let refused = || Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        let unasked = || panic!("ip_tables are not to be looked at");
        assert_eq!(
            choose(Engine::Auto, Ok(()), unasked).unwrap(),
            (EngineInUse::NfTables, None)
        );
        let (engine, reason) = choose(Engine::Auto, refused(), || Ok(())).unwrap();
        assert_eq!(engine, EngineInUse::IpTables);
        assert!(reason.unwrap().contains("not supported"));
        let (engine, reason) = choose(Engine::Auto, refused(), refused).unwrap();
        assert_eq!(engine, EngineInUse::Forwarder);
        assert!(
            reason
                .unwrap()
                .contains("ip_tables: Operation not supported")
        );
        choose(Engine::NfTables, refused(), unasked).unwrap_err();
        choose(Engine::IpTables, Ok(()), refused).unwrap_err();
        let (engine, _) = choose(Engine::IpTables, Ok(()), || Ok(())).unwrap();
        assert_eq!(engine, EngineInUse::IpTables);
        let (engine, _) = choose(Engine::Forwarder, Ok(()), unasked).unwrap();
        assert_eq!(engine, EngineInUse::Forwarder);
    }
}
