//! `kobune-hub logs`: what a module of a device wrote.

use std::io::Read as _;
use std::io::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use super::Failure;
use super::client::Client;
use super::console::{Output, say};
use super::line::Line;
use super::method::MethodCommand;

/// Lines that are shown unless told otherwise.
const TAIL: u64 = 200;
/// How often a log that is followed is asked for.
const POLL: Duration = Duration::from_secs(2);
/// Most bytes of a log that is unpacked.
const LOG_MAX: u64 = 64 << 20;

/// Which log, and what of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LogsCommand {
    device: String,
    module: String,
    tail: u64,
    since: Option<String>,
    until: Option<String>,
    follow: bool,
    timestamps: bool,
}

impl LogsCommand {
    /// Reads what stands behind `logs`.
    pub(super) fn parse(words: &[&str], line: &mut Line) -> Result<Self, lexopt::Error> {
        let [device, module] = words else {
            return Err("logs needs DEVICE and MODULE".into());
        };
        let command = Self {
            device: (*device).to_owned(),
            module: (*module).to_owned(),
            tail: line.value("tail")?.unwrap_or(TAIL),
            since: line.value("since")?,
            until: line.value("until")?,
            follow: line.flag("follow"),
            timestamps: line.flag("timestamps"),
        };
        if command.follow && command.until.is_some() {
            return Err("either --follow or --until".into());
        }
        Ok(command)
    }

    /// The lines since `since`, oldest first.
    fn read(&self, client: &Client, since: Option<&str>) -> Result<Vec<Value>, Failure> {
        let filter = json!({ "tail": self.tail, "since": since, "until": self.until });
        let payload = json!({ "schemaVersion": "1.0", "encoding": "gzip", "contentType": "json",
            "items": [{ "id": format!("^{}$", escaped(&self.module)), "filter": filter }] });
        let answer =
            MethodCommand::of_agent(&self.device, "GetModuleLogs", payload).call(client)?;
        let of_module = |item: &&Value| item["id"] == self.module.as_str();
        let Some(item) = answer.as_array().and_then(|all| all.iter().find(of_module)) else {
            let (module, device) = (&self.module, &self.device);
            return Err(format!("device {device} has no log of a module {module}").into());
        };
        unpack(item)
    }
}

/// A module's name where a regular expression is taken.
fn escaped(name: &str) -> String {
    let special = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let escape = |c: char| match special(c) {
        true => format!("\\{c}"),
        false => c.to_string(),
    };
    name.chars().map(escape).collect()
}

fn unpack(item: &Value) -> Result<Vec<Value>, Failure> {
    let packed = STANDARD.decode(item["payloadBytes"].as_str().unwrap_or_default())?;
    let mut text = Vec::new();
    MultiGzDecoder::new(packed.as_slice())
        .take(LOG_MAX)
        .read_to_end(&mut text)
        .map_err(|error| format!("the log cannot be unpacked: {error}"))?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let lines = serde_json::from_slice(&text);
    Ok(lines.map_err(|error| format!("the log is malformed: {error}"))?)
}

/// Prints the log; one that is followed until the command is ended.
pub(super) fn run(client: &Client, output: Output, command: &LogsCommand) -> Result<(), Failure> {
    let mut shown = command.read(client, command.since.as_deref())?;
    if !command.follow {
        return match output {
            Output::Text => print(&shown, command.timestamps),
            Output::Json => say(&format!("{:#}\n", Value::Array(shown))),
        };
    }
    let mut seen = Seen::default();
    loop {
        let new = seen.take_new(shown);
        match output {
            Output::Text => print(&new, command.timestamps)?,
            Output::Json => say(&new
                .iter()
                .map(|line| format!("{line}\n"))
                .collect::<String>())?,
        }
        std::thread::sleep(POLL);
        let since = seen.latest.as_deref().or(command.since.as_deref());
        shown = command.read(client, since)?;
    }
}

/// Each line to where the module wrote it.
fn print(lines: &[Value], timestamps: bool) -> Result<(), Failure> {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    for line in lines {
        let text = line["text"].as_str().unwrap_or_default();
        let at = match timestamps {
            true => format!("{} ", line["timestamp"].as_str().unwrap_or_default()),
            false => String::new(),
        };
        match line["stream"] == "stderr" {
            true => writeln!(err, "{at}{text}")?,
            false => writeln!(out, "{at}{text}")?,
        }
    }
    Ok(out.flush()?)
}

/// What of a log has been shown: its latest moment, and the lines of that moment.
#[derive(Debug, Default)]
struct Seen {
    latest: Option<String>,
    lines: Vec<Value>,
}

impl Seen {
    /// The lines that have not been taken yet. A log is asked for from its latest moment on,
    /// so that what was written in that very moment comes once more.
    fn take_new(&mut self, lines: Vec<Value>) -> Vec<Value> {
        if lines.is_empty() {
            return lines;
        }
        let mut known = std::mem::take(&mut self.lines);
        let mut new = Vec::new();
        for line in &lines {
            match known.iter().position(|one| one == line) {
                Some(at) => drop(known.remove(at)),
                None => new.push(line.clone()),
            }
        }
        if let Some(latest) = lines.last().map(|line| &line["timestamp"]) {
            self.latest = latest.as_str().map(str::to_owned);
            self.lines = lines
                .iter()
                .filter(|line| line["timestamp"] == *latest)
                .cloned()
                .collect();
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_once_and_a_repeated_one_as_often_as_it_was_written() {
        let line = |at: &str, text: &str| json!({ "timestamp": at, "text": text });
        let mut seen = Seen::default();
        let first = vec![line("1", "a"), line("2", "b"), line("2", "b")];
        assert_eq!(seen.take_new(first.clone()), first);
        assert_eq!(seen.latest.as_deref(), Some("2"));
        let second = vec![
            line("2", "b"),
            line("2", "b"),
            line("2", "b"),
            line("3", "b"),
        ];
        assert_eq!(seen.take_new(second.clone()), second[2..]);
        let nothing = [Value::Null; 0];
        assert_eq!(seen.take_new(Vec::new()), nothing);
        assert_eq!(seen.take_new(vec![line("3", "b")]), nothing);
    }

    #[test]
    fn names_are_no_expressions() {
        assert_eq!(escaped("a.b_c-1"), "a\\.b_c\\-1");
    }
}
