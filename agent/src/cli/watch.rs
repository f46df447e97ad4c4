//! What goes on, as it goes on: `kobune stats` and `kobune events`.

use std::collections::BTreeMap;
use std::time::Duration;

use kobune_runtime::Timestamp;

use super::args::Output;
use super::{CliError, Console, output};
use crate::api::client::{Client, ClientError};
use crate::api::wire::{ErrorCode, ErrorView, Event, StatsView};

/// Between two samples of a stream.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between the two samples that tell once how busy a module is.
const ONCE: Duration = Duration::from_millis(500);
/// Begins a screen anew.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows what the named modules use, or all that run.
pub(super) async fn stats(
    names: &[String],
    once: bool,
    client: &Client,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let mut before = sample(names, client).await?;
    loop {
        tokio::time::sleep(if once { ONCE } else { INTERVAL }).await;
        let mut now = sample(names, client).await?;
        for view in &mut now {
            let earlier = before.iter().find(|earlier| earlier.name == view.name);
            view.cpu_percent = earlier.and_then(|earlier| percent(earlier, view));
        }
        match (console.output, once) {
            (_, true) => return console.show(&now, |now| output::stats(now)),
            (Output::Json, false) => console.print(&output::json_line(&now))?,
            (Output::Text, false) => {
                let head = if console.terminal { CLEAR } else { "" };
                console.print(&format!("{head}{}", output::stats(&now)))?;
            }
        }
        console.out.flush().map_err(CliError::Output)?;
        before = now;
    }
}

async fn sample(names: &[String], client: &Client) -> Result<Vec<StatsView>, CliError> {
    let mut all = client.stats().await?;
    for name in names {
        if !all.iter().any(|view| view.name == *name) {
            // Says whether there is none or it does not run.
            let module = client.inspect(name).await?;
            let message = format!("module {name}: it is {}", module.view.status);
            return Err(ClientError::Refused(ErrorView {
                code: ErrorCode::Conflict,
                message,
                problems: Vec::new(),
            })
            .into());
        }
    }
    all.retain(|view| names.is_empty() || names.contains(&view.name));
    Ok(all)
}

/// Percent of one processor between two samples, rounded; absent where it cannot be told, as
/// after a restart.
fn percent(before: &StatsView, now: &StatsView) -> Option<u64> {
    let used = now.cpu_nanos?.checked_sub(before.cpu_nanos?)?;
    let passed = now.at.since(before.at)?.as_nanos();
    let percent = (u128::from(used) * 100 + passed / 2).checked_div(passed)?;
    u64::try_from(percent).ok()
}

/// Shows what happens until the daemon ends.
pub(super) async fn events(client: &Client, console: &mut Console<'_>) -> Result<(), CliError> {
    let mut events = client.events().await?;
    let mut known = BTreeMap::new();
    while let Some(event) = events.next().await? {
        let text = match console.output {
            Output::Json => output::json_line(&event),
            Output::Text => match line(event, &mut known) {
                Some(line) => format!("{}  {line}\n", Timestamp::now()),
                None => continue,
            },
        };
        console.print(&text)?;
        console.out.flush().map_err(CliError::Output)?;
    }
    Ok(())
}

/// The event in words; `None` where it says nothing new to people.
fn line(event: Event, known: &mut BTreeMap<String, String>) -> Option<String> {
    match event {
        Event::Module { module } => {
            let mut text = format!("module {} is {}", module.name, module.status);
            if let Some(code) = module.exit_code {
                let memory = if module.out_of_memory {
                    ", out of memory"
                } else {
                    ""
                };
                text.push_str(&format!(" (exit code {code}{memory})"));
            }
            if let Some(problem) = &module.problem {
                text.push_str(&format!(": {problem}"));
            }
            let before = known.insert(module.name, text.clone());
            Some(text).filter(|text| before.as_ref() != Some(text))
        }
        Event::ModuleRemoved { name } => {
            known.remove(&name);
            Some(format!("module {name} is removed"))
        }
        Event::PullProgress(_) => None,
        Event::Pulled { image } => Some(format!("image {image} is pulled")),
        Event::PullFailed { image, problem } => Some(format!("image {image}: {problem}")),
        Event::Deployment {
            revision,
            state,
            problems,
        } => {
            let state = serde_json::to_value(state).ok()?;
            let mut text = format!("deployment {revision} is {}", state.as_str()?);
            for problem in problems {
                text.push_str(&format!("; {problem}"));
            }
            Some(text)
        }
        Event::Missed { count } => Some(format!("{count} events were missed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_of_one_processor_and_absent_after_a_restart() {
        let sample = |seconds: u64, nanos: u64| StatsView {
            name: "m".to_owned(),
            at: Timestamp::from_unix(seconds, 0),
            cpu_nanos: Some(nanos),
            cpu_percent: None,
            memory: None,
            memory_limit: None,
            memory_kills: None,
            pids: None,
            pids_limit: None,
            network_received: None,
            network_sent: None,
            block_read: None,
            block_write: None,
        };
        let before = sample(10, 5_000_000_000);
        for (seconds, nanos, expected) in [
            (12, 8_000_000_000, Some(150)),
            (12, 5_000_000_000, Some(0)),
            (11, 5_006_000_000, Some(1)),
            (12, 1, None),
            (10, 6_000_000_000, None),
            (9, 6_000_000_000, None),
        ] {
            let now = sample(seconds, nanos);
            assert_eq!(percent(&before, &now), expected, "{seconds} {nanos}");
        }
    }
}
