//! Many simulated devices in one process, to load a hub with: each is one connection of an
//! `$edgeAgent` with the agent's own packets and waits, and nothing behind it.
//!
//! `kobune-fleet STATE MQTT-PORT COUNT` enrols `COUNT` devices at the hub with the state
//! directory `STATE`, connects them over loopback, and keeps them connected until its
//! standard input ends, an hour at most. What happens is one JSON object a line on standard
//! output. On standard input it takes `deploy NAME`, an automatic deployment to all, and `count NAME`,
//! which asks the hub for that deployment's metrics.
//!
//! It touches loopback only, whatever the hub is called.

mod device;
mod enrol;
mod service;
mod tally;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use device::Fleet;
use service::Service;
use tally::Tally;

/// It ends by itself after this.
const LIFE: Duration = Duration::from_secs(3600);
/// Handshakes under way when the fleet connects for the first time.
const FIRST_AT_ONCE: usize = 64;
/// Descriptors beside those of the connections.
const FILES_BESIDE: u64 = 256;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match &arguments[..] {
        [state, port, count] => parse(port, count)
            .and_then(|(port, count)| runtime()?.block_on(run(state.as_ref(), port, count))),
        _ => Err("kobune-fleet STATE MQTT-PORT COUNT".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tally::say(&json!({ "error": error.to_string() }));
            ExitCode::FAILURE
        }
    }
}

fn parse(port: &str, count: &str) -> Result<(u16, usize), Failure> {
    Ok((port.parse()?, count.parse()?))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}

async fn run(state: &Path, port: u16, count: usize) -> Result<(), Failure> {
    raise_limit(count)?;
    let service = Arc::new(Service::open(state)?);
    let devices = enrol::all(&service, count).await?;
    tally::say(&json!({ "enrolled": devices.len() }));
    let fleet = Arc::new(Fleet {
        tally: Tally::default(),
        tls: service.tls(),
        hub: service.host().to_owned(),
        port,
        first: Semaphore::new(FIRST_AT_ONCE),
    });
    for device in devices {
        tokio::spawn(device.live(Arc::clone(&fleet)));
    }
    tokio::spawn(tally::tell(Arc::clone(&fleet)));
    // An end of the hour is as good as one of the input.
    let _ = timeout(LIFE, obey(&service)).await;
    Ok(())
}

/// Carries out what standard input says, to its end.
async fn obey(service: &Service) {
    let (sender, mut lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = lines.recv().await {
        let done = match line.split_once(' ') {
            Some(("deploy", name)) => enrol::deploy(service, name).await,
            Some(("count", name)) => enrol::count(service, name).await,
            _ => Err(format!("{line:?} is no command").into()),
        };
        match done {
            Ok(answer) => tally::say(&answer),
            Err(error) => tally::say(&json!({ "error": error.to_string() })),
        }
    }
}

/// Lets the process have a descriptor for each connection.
fn raise_limit(count: usize) -> Result<(), Failure> {
    let wanted = u64::try_from(count)? + FILES_BESIDE;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))?;
    }
    Ok(())
}
