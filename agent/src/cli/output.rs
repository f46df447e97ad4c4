//! What is printed, as text.

use std::fmt::Write;
use std::time::Duration;

use kobune_runtime::Timestamp;
use serde::Serialize;

use crate::api::wire::{
    ImageView, ModuleInspection, ModuleStatus, ModuleView, ProcessView, StatsView,
};
use crate::check::Check;
use crate::crash::Crash;

/// Least width of a column, as the IoT Edge tool has it.
const COLUMN: usize = 15;
/// Spaces between columns.
const GAP: usize = 3;
/// Characters of a problem that a list shows; `inspect` shows all.
const PROBLEM: usize = 60;

/// `value` over several lines.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    let mut text =
        serde_json::to_string_pretty(value).expect("invariant: wire types have string keys");
    text.push('\n');
    text
}

/// One by itself, several as a list.
pub(super) fn inspections(inspections: &[ModuleInspection]) -> String {
    match inspections {
        [one] => json(one),
        all => json(all),
    }
}

/// `value` in one line.
pub(super) fn json_line<T: Serialize>(value: &T) -> String {
    let mut text = serde_json::to_string(value).expect("invariant: wire types have string keys");
    text.push('\n');
    text
}

/// The module table in the form of `iotedge list`.
pub(super) fn list(modules: &[ModuleView], now: Timestamp) -> String {
    let mut rows = vec![["NAME", "STATUS", "DESCRIPTION", "CONFIG"].map(str::to_owned)];
    let mut sorted: Vec<&ModuleView> = modules.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    rows.extend(sorted.into_iter().map(|view| {
        [
            view.name.clone(),
            view.status.as_str().to_owned(),
            description(view, now),
            view.image.clone(),
        ]
    }));
    table(&rows)
}

/// Which checks there are.
pub(super) fn checks<'a>(checks: impl Iterator<Item = &'a Check>) -> String {
    let mut rows = vec![["ID", "ABOUT", "PASSES WHEN"].map(str::to_owned)];
    rows.extend(checks.map(|check| {
        [
            check.id.to_owned(),
            check.section.to_string(),
            check.title.to_owned(),
        ]
    }));
    table(&rows)
}

/// The images on disk.
pub(super) fn images(images: &[ImageView]) -> String {
    let mut rows = vec![["IMAGE", "ID", "SIZE", "USED BY"].map(str::to_owned)];
    rows.extend(images.iter().map(|image| {
        let id = image.id.split_once(':').map_or(&*image.id, |(_, hex)| hex);
        [
            image.reference.clone(),
            id.get(..12).unwrap_or(id).to_owned(),
            size(image.size),
            image.modules.join(", "),
        ]
    }));
    table(&rows)
}

/// Bytes in decimal units, as docker shows them.
pub(super) fn size(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut scale = 1000;
    while bytes / scale >= 1000 && unit + 1 < units.len() {
        scale *= 1000;
        unit += 1;
    }
    format!(
        "{}.{} {}",
        bytes / scale,
        bytes % scale * 10 / scale,
        units[unit]
    )
}

/// A module's processes.
pub(super) fn processes(processes: &[ProcessView]) -> String {
    let mut rows = vec![["PID", "INSIDE", "USER", "TIME", "MEMORY", "COMMAND"].map(str::to_owned)];
    rows.extend(processes.iter().map(|process| {
        let seconds = process.cpu_millis / 1000;
        [
            process.pid.to_string(),
            process.inner_pid.to_string(),
            process.uid.to_string(),
            format!("{}:{:02}", seconds / 60, seconds % 60),
            size(process.memory),
            process.command.clone(),
        ]
    }));
    table(&rows)
}

/// A module's runs that ended badly, the latest last, each with what it wrote at its end.
pub(super) fn history(crashes: &[Crash]) -> String {
    let mut text = String::new();
    for crash in crashes {
        let memory = if crash.out_of_memory {
            ", out of memory"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "{}  exit code {}{memory}, restart {}, {}",
            crash.exited_at, crash.exit_code, crash.restart_count, crash.image
        );
        for line in crash.log.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

/// What modules use.
pub(super) fn stats(samples: &[StatsView]) -> String {
    let names = [
        "NAME",
        "CPU",
        "MEMORY",
        "PIDS",
        "NETWORK IN/OUT",
        "BLOCK IN/OUT",
    ];
    let mut rows = vec![names.map(str::to_owned)];
    let bytes = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), size);
    let pair = |one, other| format!("{} / {}", bytes(one), bytes(other));
    rows.extend(samples.iter().map(|sample| {
        let percent = sample.cpu_percent;
        let memory = match sample.memory_limit {
            Some(_) => pair(sample.memory, sample.memory_limit),
            None => bytes(sample.memory),
        };
        [
            sample.name.clone(),
            percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent} %")),
            memory,
            sample
                .pids
                .map_or_else(|| "-".to_owned(), |pids| pids.to_string()),
            pair(sample.network_received, sample.network_sent),
            pair(sample.block_read, sample.block_write),
        ]
    }));
    table(&rows)
}

fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let longest = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let width = |column| longest(column).unwrap_or_default().max(COLUMN - GAP) + GAP;
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Status in words, and what is wrong.
fn description(view: &ModuleView, now: Timestamp) -> String {
    let since = |at: Option<Timestamp>| at.map(|at| ago(now.since(at).unwrap_or_default()));
    let ended = |word: String| match since(view.last_exit) {
        Some(time) => format!("{word} {time} ago"),
        None => word,
    };
    let words = match view.status {
        ModuleStatus::Running | ModuleStatus::Unhealthy => match since(view.last_start) {
            Some(time) => match &view.health {
                Some(health) => format!("Up {time} ({health})"),
                None => format!("Up {time}"),
            },
            None => "Up".to_owned(),
        },
        ModuleStatus::Paused => match since(view.last_start) {
            Some(time) => format!("Up {time}, paused"),
            None => "Paused".to_owned(),
        },
        ModuleStatus::Stopped => ended("Stopped".to_owned()),
        ModuleStatus::Failed => ended(match view.exit_code {
            Some(code) if view.out_of_memory => format!("Failed ({code}, out of memory)"),
            Some(code) => format!("Failed ({code})"),
            None => "Failed".to_owned(),
        }),
        ModuleStatus::Backoff => {
            stated(view).unwrap_or_else(|| ended("Restarting, ended".to_owned()))
        }
        ModuleStatus::Dead => "Dead".to_owned(),
        ModuleStatus::Unknown => stated(view).unwrap_or_else(|| "Unknown".to_owned()),
    };
    match view.problem.as_deref() {
        None => words,
        Some(problem) => format!("{words}: {}", clipped(problem)),
    }
}

/// The state as the daemon words it, without the problem that it puts behind.
fn stated(view: &ModuleView) -> Option<String> {
    let text = view.description.as_deref()?;
    let problem = view.problem.as_deref().unwrap_or_default();
    let state = text
        .find(&format!("; {problem}"))
        .map_or(text, |at| &text[..at]);
    Some(state.to_owned())
}

fn clipped(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= PROBLEM {
        return line.to_owned();
    }
    let begin: String = line.chars().take(PROBLEM - 3).collect();
    format!("{begin}...")
}

/// A length of time in its largest unit that gives at least two of it, or else one second.
fn ago(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [("day", 86_400), ("hour", 3600), ("minute", 60)];
    let (unit, count) = units
        .into_iter()
        .map(|(unit, length)| (unit, seconds / length))
        .find(|(_, count)| *count >= 2)
        .unwrap_or(("second", seconds));
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fake_core::running;

    #[test]
    fn the_list_is_sorted_and_aligned() {
        let now = Timestamp::from_unix(100 + 185, 0);
        let mut stopped = running("button", "r/button:1");
        stopped.status = ModuleStatus::Stopped;
        stopped.last_exit = Some(Timestamp::from_unix(284, 0));
        let mut failed = running("a-module-with-a-long-name", "r/long:1");
        failed.status = ModuleStatus::Failed;
        failed.exit_code = Some(137);
        failed.last_exit = Some(Timestamp::from_unix(300, 0));
        let mut unknown = running("new", "r/new:1");
        unknown.status = ModuleStatus::Unknown;
        unknown.problem = Some(format!("pull failed: {}", "x".repeat(80)));
        unknown.description = unknown
            .problem
            .as_ref()
            .map(|problem| format!("Not created yet; {problem} (next attempt in 9 seconds)"));
        let mut backoff = running("loop", "r/loop:1");
        backoff.status = ModuleStatus::Backoff;
        backoff.description = Some("Restarting in 10 seconds".to_owned());
        let shown = list(
            &[running("led", "r/led:1"), stopped, failed, unknown, backoff],
            now,
        );
        let problem = format!("Not created yet: pull failed: {}...", "x".repeat(44));
        let expected = [
            ["NAME", "STATUS", "DESCRIPTION", "CONFIG"],
            [
                "a-module-with-a-long-name",
                "failed",
                "Failed (137) 0 seconds ago",
                "r/long:1",
            ],
            ["button", "stopped", "Stopped 1 second ago", "r/button:1"],
            ["led", "running", "Up 3 minutes", "r/led:1"],
            ["loop", "backoff", "Restarting in 10 seconds", "r/loop:1"],
            ["new", "unknown", &problem, "r/new:1"],
        ]
        .map(|[a, b, c, d]| format!("{a:<28}{b:<15}{c:<80}{d}\n"))
        .concat();
        assert_eq!(shown, expected);
    }

    #[test]
    fn an_empty_list_is_its_heading() {
        let shown = list(&[], Timestamp::from_unix(0, 0));
        assert_eq!(
            shown,
            "NAME           STATUS         DESCRIPTION    CONFIG\n"
        );
    }

    #[test]
    fn images_show_short_ids_and_sizes() {
        let image = ImageView {
            reference: "r/led:1".to_owned(),
            id: "sha256:0123456789abcdef".to_owned(),
            digest: None,
            size: 12_345_678,
            pulled: None,
            modules: vec!["a".to_owned(), "b".to_owned()],
        };
        let expected = "IMAGE          ID             SIZE           USED BY\n\
                        r/led:1        0123456789ab   12.3 MB        a, b\n";
        assert_eq!(images(&[image]), expected);
    }

    #[test]
    fn sizes_and_times_read_well() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1_550_000, "1.5 MB"),
            (u64::MAX, "18446744.0 TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (7199, "119 minutes"),
            (7200, "2 hours"),
            (172_800, "2 days"),
        ] {
            assert_eq!(ago(Duration::from_secs(seconds)), text);
        }
    }
}
