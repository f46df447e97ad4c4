//! The support bundle: a zip of what helps to find out what is wrong, without secrets.

use serde_json::{Value, json};

use super::request::{BundleRequest, Call, Content, LogsRequest};
use super::{CallError, Methods, logs};
use crate::command::Command;

/// Lines of each module's log where the request names no time.
const TAIL: usize = 10_000;

struct Entry {
    name: String,
    crc: u32,
    compressed: Vec<u8>,
    size: usize,
    offset: usize,
}

/// Logs, the state of every module and the deployment, which the core shows without its
/// registries' passwords.
pub(super) async fn build(
    methods: &Methods,
    request: &BundleRequest,
) -> Result<Vec<u8>, CallError> {
    let mut files = Vec::new();
    for module in methods.handle.modules().iter() {
        let name = module.name.clone();
        let inspect = |reply| Command::Inspect {
            module: name,
            reply,
        };
        if let Ok(inspection) = methods.handle.ask(inspect).await {
            let text = serde_json::to_string_pretty(&inspection).unwrap_or_default();
            files.push((format!("inspect/{}.json", module.name), text.into_bytes()));
        }
    }
    let deployment = methods
        .handle
        .ask(|reply| Command::Deployment { reply })
        .await;
    if let Ok(view) = deployment {
        let text = serde_json::to_string_pretty(&view).unwrap_or_default();
        files.push(("deployment.json".to_owned(), text.into_bytes()));
    }
    for log in logs::read(methods, logs_request(request)?).await? {
        files.push((format!("logs/{}_log.txt", log.module), log.bytes));
    }
    let zipped = tokio::task::spawn_blocking(move || zip(files)).await;
    zipped.map_err(|_| CallError::Lost)
}

/// The request for the logs, as a caller of `GetModuleLogs` would write it.
fn logs_request(request: &BundleRequest) -> Result<LogsRequest, CallError> {
    let tail = match request.since {
        Some(_) => Value::Null,
        None => TAIL.into(),
    };
    let filter = json!({"since": request.since, "until": request.until, "tail": tail,
        "includeTimestamp": true});
    let payload = json!({"schemaVersion": "1.0", "contentType": "text",
        "items": {"id": "all", "filter": filter}});
    match Call::parse("GetModuleLogs", payload.to_string().as_bytes())? {
        Call::GetModuleLogs(request) => Ok(LogsRequest {
            content: Content::Text,
            ..request
        }),
        _ => Err(CallError::Lost),
    }
}

/// A zip archive with these files, deflated.
#[allow(clippy::cast_possible_truncation)] // Logs are rotated far below 4 GiB.
fn zip(files: Vec<(String, Vec<u8>)>) -> Vec<u8> {
    const DEFLATED: u16 = 8;
    const UTF8: u16 = 1 << 11;
    let mut archive = Vec::new();
    let mut directory = Vec::new();
    let count = files.len() as u16;
    for (name, content) in files {
        let entry = Entry::new(name, &content, archive.len());
        let mut fields = Vec::new();
        // Version 2.0, names in UTF-8, no time: the bundle's own name has it.
        for field in [20, UTF8, DEFLATED, 0, 0x21] {
            fields.extend(field.to_le_bytes());
        }
        for field in [entry.crc, entry.compressed.len() as u32, entry.size as u32] {
            fields.extend(field.to_le_bytes());
        }
        fields.extend((entry.name.len() as u16).to_le_bytes());
        fields.extend(0_u16.to_le_bytes());
        archive.extend(b"PK\x03\x04");
        archive.extend(&fields);
        archive.extend(entry.name.as_bytes());
        archive.extend(&entry.compressed);
        directory.extend(b"PK\x01\x02");
        directory.extend(20_u16.to_le_bytes());
        directory.extend(&fields);
        directory.extend([0; 10]);
        directory.extend((entry.offset as u32).to_le_bytes());
        directory.extend(entry.name.as_bytes());
    }
    let start = archive.len() as u32;
    archive.extend(&directory);
    archive.extend(b"PK\x05\x06\0\0\0\0");
    archive.extend(count.to_le_bytes());
    archive.extend(count.to_le_bytes());
    archive.extend((directory.len() as u32).to_le_bytes());
    archive.extend(start.to_le_bytes());
    archive.extend([0; 2]);
    archive
}

impl Entry {
    fn new(name: String, content: &[u8], offset: usize) -> Self {
        // A gzip member is a deflate stream between a head of 10 bytes and a tail of 8.
        let member = logs::compress(content);
        let mut crc = flate2::Crc::new();
        crc.update(content);
        Self {
            name,
            crc: crc.sum(),
            compressed: member[10..member.len() - 8].to_vec(),
            size: content.len(),
            offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_archive_is_one_that_other_programs_read() {
        let files = vec![
            ("logs/led_log.txt".to_owned(), b"line\n".repeat(500)),
            ("empty.json".to_owned(), Vec::new()),
        ];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.zip");
        std::fs::write(&path, zip(files)).unwrap();
        let script = "import sys,zipfile; z=zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; \
                      print(z.namelist(), len(z.read('logs/led_log.txt')))";
        let Ok(output) = Command::new("python3")
            .args(["-c", script])
            .arg(&path)
            .output()
        else {
            assert!(std::env::var_os("CI").is_none(), "this test needs python3");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.trim(), "['logs/led_log.txt', 'empty.json'] 2500");
    }
}
