//! `GetModuleLogs`, and the text that `UploadModuleLogs` uploads.

use std::collections::VecDeque;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use kobune_runtime::Timestamp;
use kobune_runtime::log::{self, LogLine, LogQuery};
use serde_json::{Value, json};

use super::request::{Content, Filter, InvalidCall, LogsRequest};
use super::{CallError, Methods};
use crate::moment;

/// Most bytes of a response's payloads: 128 KiB is a hub's bound, the rest is for what
/// stands around them.
const MAX_RESPONSE: usize = 127_000;
/// Most bytes of one module's log that are taken into memory for a response: what is
/// more would not fit into one, compressed either.
const MAX_LOG: usize = 8 << 20;
/// The same for an upload.
const MAX_UPLOAD: usize = 64 << 20;
/// Severity of a line that states none.
const INFO: u8 = 6;

/// A module's log as it was asked for.
pub(super) struct ModuleLog {
    pub(super) module: String,
    pub(super) bytes: Vec<u8>,
}

/// Whom a JSON line is from.
struct Origin<'a> {
    hub: &'a str,
    device: &'a str,
    module: &'a str,
}

/// One line that the filter let through.
struct Line {
    timestamp: Timestamp,
    stream: &'static str,
    level: u8,
    text: String,
}

/// The method's response.
pub(super) async fn get(methods: &Methods, request: LogsRequest) -> Result<Value, CallError> {
    let gzip = request.gzip;
    let logs = read_within(methods, request, MAX_LOG).await?;
    let entry = |log: &ModuleLog| match gzip {
        true => {
            json!({"id": log.module, "payloadBytes": STANDARD.encode(&log.bytes), "payload": null})
        }
        false => {
            let text = String::from_utf8_lossy(&log.bytes);
            json!({"id": log.module, "payloadBytes": null, "payload": text})
        }
    };
    let entries: Vec<Value> = logs.iter().map(entry).collect();
    let response = Value::from(entries);
    let size = response.to_string().len();
    if size > MAX_RESPONSE {
        return Err(CallError::TooLarge(size));
    }
    Ok(response)
}

/// The logs of every module that the request names, each compressed where that is asked for.
pub(super) async fn read(
    methods: &Methods,
    request: LogsRequest,
) -> Result<Vec<ModuleLog>, CallError> {
    read_within(methods, request, MAX_UPLOAD).await
}

async fn read_within(
    methods: &Methods,
    request: LogsRequest,
    max: usize,
) -> Result<Vec<ModuleLog>, CallError> {
    let modules = methods.handle.modules();
    let names: Vec<String> = modules.iter().map(|module| module.name.clone()).collect();
    let methods = methods.clone();
    let work = move || {
        let now = Timestamp::now();
        let mut logs = Vec::new();
        for module in names {
            let Some(item) = request.item_for(&module) else {
                continue;
            };
            let dir = methods.state_dir.join("modules").join(&module).join("log");
            let lines = lines(&dir, &item.filter, now, max)?;
            let origin = Origin {
                hub: &methods.hub,
                device: &methods.device_id,
                module: &module,
            };
            let mut bytes = render(lines, request.content, &item.filter, &origin);
            if request.gzip {
                bytes = compress(&bytes);
            }
            logs.push(ModuleLog { module, bytes });
        }
        Ok(logs)
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| CallError::Lost)?
}

/// Tail, since and until come first, as with a container engine, then level and text.
fn lines(
    dir: &Path,
    filter: &Filter,
    now: Timestamp,
    max: usize,
) -> Result<VecDeque<Line>, CallError> {
    let moment = |name: &'static str, text: &Option<String>| {
        let parsed = text.as_deref().map(|text| moment::parse(text, now));
        parsed.transpose().map_err(|error| InvalidCall::Field {
            field: name,
            reason: format!("is not valid: {error}"),
        })
    };
    let query = LogQuery {
        tail: filter.tail,
        since: moment("since", &filter.since)?,
        until: moment("until", &filter.until)?,
    };
    let (mut lines, mut size) = (VecDeque::new(), 0);
    let mut begun: [Vec<u8>; 2] = Default::default();
    log::read(dir, &query, &mut |record: LogLine<'_>| {
        let piece = &mut begun[usize::from(record.stream.as_str() == "stderr")];
        piece.extend_from_slice(record.message);
        if !record.partial {
            let line = Line::new(&record, &std::mem::take(piece));
            if line.passes(filter) {
                size += line.text.len();
                lines.push_back(line);
            }
        }
        match size > max {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    if size > max {
        return Err(CallError::TooLarge(size));
    }
    Ok(lines)
}

impl Line {
    fn new(record: &LogLine<'_>, message: &[u8]) -> Self {
        let text = String::from_utf8_lossy(message).into_owned();
        Self {
            timestamp: record.timestamp,
            stream: record.stream.as_str(),
            level: severity(&text),
            text,
        }
    }

    fn passes(&self, filter: &Filter) -> bool {
        let level = filter.level.is_none_or(|level| level == self.level);
        level
            && filter
                .regex
                .as_ref()
                .is_none_or(|regex| regex.is_match(&self.text))
    }
}

/// The number in `<6> text`, as syslog has it.
fn severity(text: &str) -> u8 {
    match text.as_bytes() {
        [b'<', digit @ b'0'..=b'7', b'>', ..] => digit - b'0',
        _ => INFO,
    }
}

fn render(
    lines: VecDeque<Line>,
    content: Content,
    filter: &Filter,
    origin: &Origin<'_>,
) -> Vec<u8> {
    if content == Content::Json {
        let entries: Vec<Value> = lines.into_iter().map(|line| line.json(origin)).collect();
        return Value::from(entries).to_string().into_bytes();
    }
    let mut text = String::new();
    for line in lines {
        if filter.timestamps {
            text += &format!("{} ", line.timestamp);
        }
        text += &line.text;
        text.push('\n');
    }
    text.into_bytes()
}

impl Line {
    fn json(self, origin: &Origin<'_>) -> Value {
        let prefix = format!("<{}> ", self.level);
        let text = self.text.strip_prefix(&prefix).unwrap_or(&self.text);
        json!({
            "iothub": origin.hub,
            "device": origin.device,
            "id": origin.module,
            "stream": self.stream,
            "loglevel": self.level,
            "text": text,
            "timestamp": self.timestamp,
        })
    }
}

pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.expect("invariant: a vector takes every byte")
}

#[cfg(test)]
mod tests {
    use super::super::request::Call;
    use super::*;

    fn shown(log: &str, filter: &str, content: &str) -> Result<String, CallError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("log"), log).unwrap();
        let payload = format!(
            r#"{{"schemaVersion":"1.0","contentType":"{content}","items":{{"id":"led","filter":{filter}}}}}"#
        );
        let Ok(Call::GetModuleLogs(request)) = Call::parse("GetModuleLogs", payload.as_bytes())
        else {
            panic!("{payload}");
        };
        let filter = &request.item_for("led").unwrap().filter;
        let lines = lines(dir.path(), filter, Timestamp::now(), 1000)?;
        let origin = Origin {
            hub: "h",
            device: "d",
            module: "led",
        };
        let bytes = render(lines, request.content, filter, &origin);
        Ok(String::from_utf8(bytes).unwrap())
    }

    const LOG: &str = "\
2026-01-02T03:04:05.000000000Z stdout F plain
2026-01-02T03:04:06.000000000Z stderr P <3> in two
2026-01-02T03:04:06.000000000Z stderr F  pieces
2026-01-02T03:04:07.000000000Z stdout F <7> detail
2026-01-02T03:04:08.000000000Z stdout F last
";

    #[test]
    fn filters_choose_lines() {
        for (filter, expected) in [
            ("null", "plain\n<3> in two pieces\n<7> detail\nlast\n"),
            (r#"{"tail":2}"#, "<7> detail\nlast\n"),
            (r#"{"since":"2026-01-02T03:04:07Z"}"#, "<7> detail\nlast\n"),
            (r#"{"until":"2026-01-02T03:04:05Z"}"#, "plain\n"),
            (r#"{"loglevel":3}"#, "<3> in two pieces\n"),
            (r#"{"loglevel":6}"#, "plain\nlast\n"),
            (r#"{"regex":"two p|last"}"#, "<3> in two pieces\nlast\n"),
            (r#"{"regex":"plain","tail":1}"#, ""),
            (
                r#"{"tail":1,"includeTimestamp":true}"#,
                "2026-01-02T03:04:08.000000000Z last\n",
            ),
        ] {
            assert_eq!(shown(LOG, filter, "text").unwrap(), expected, "{filter}");
        }
    }

    #[test]
    fn json_tells_where_each_line_is_from() {
        let shown = shown(LOG, r#"{"loglevel":3}"#, "json").unwrap();
        let expected = json!([{"iothub": "h", "device": "d", "id": "led", "stream": "stderr",
            "loglevel": 3, "text": "in two pieces", "timestamp": "2026-01-02T03:04:06.000000000Z"}]);
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), expected);
    }

    #[test]
    fn a_bad_time_and_too_much_text_are_refused() {
        let error = shown(LOG, r#"{"since":"yesterday"}"#, "text").unwrap_err();
        assert!(matches!(error, CallError::Invalid(_)), "{error}");
        let long = format!("2026-01-02T03:04:05Z stdout F {}\n", "x".repeat(600)).repeat(3);
        let error = shown(&long, "null", "text").unwrap_err();
        assert!(matches!(error, CallError::TooLarge(1200)), "{error}");
    }
}
