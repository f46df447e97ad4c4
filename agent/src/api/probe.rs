//! A process in a module that is only asked how it ends, as health checks are.

use std::time::Duration;

use kobune_runtime::{Exec, ExecError, ExecRequest, RuntimeError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::exec::{self, copy_output, end, exit, prepare};
use super::session::Frame;
use crate::command::ModuleAccess;
use crate::error_chain::chain;
use crate::sys;

/// Bytes of output that are kept, as docker keeps.
const OUTPUT: usize = 4096;
/// Time to read on after its end.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// It ended with 0, in time.
    pub(crate) passed: bool,
    /// The first of what it wrote, or why it did not run.
    pub(crate) output: String,
}

impl Outcome {
    fn failed(output: String) -> Self {
        let passed = false;
        Self { passed, output }
    }
}

/// Runs the process and ends it after `timeout`. `None` where the module does not run.
pub(crate) async fn run(
    access: ModuleAccess,
    request: ExecRequest,
    timeout: Duration,
) -> Option<Outcome> {
    match exec::run(access, request).await {
        Ok(started) => watch(started, timeout).await,
        Err(RuntimeError::Exec { source, .. }) => match source {
            ExecError::NotRunning | ExecError::Paused => None,
            source => Some(Outcome::failed(chain(&source))),
        },
        Err(_) => None,
    }
}

async fn watch(mut started: Exec, timeout: Duration) -> Option<Outcome> {
    let (chunks, output) = mpsc::channel(1);
    let mut copies = JoinSet::new();
    match prepare(started.streams.take()) {
        Ok((_, outputs)) => {
            for (stream, frame) in outputs {
                copies.spawn(copy_output(stream, frame, chunks.clone()));
            }
        }
        Err(error) => {
            end(Some(started)).await;
            return Some(Outcome::failed(error.to_string()));
        }
    }
    drop(chunks);
    let process = sys::register_exec(started).ok()?;
    let text = tokio::spawn(collect(output));
    let code = tokio::time::timeout(timeout, exit(&process)).await;
    let rest = async { while copies.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_WORDS, rest).await;
    copies.shutdown().await;
    end(Some(process.into_inner())).await;
    let text = text.await.unwrap_or_default();
    match code {
        Ok(Some(code)) => Some(Outcome {
            passed: code == 0,
            output: match text.is_empty() {
                true => format!("exit code {code}"),
                false => text,
            },
        }),
        Ok(None) => None,
        Err(_) => {
            let text = format!("no result within {timeout:?} {text}");
            Some(Outcome::failed(text.trim_end().to_owned()))
        }
    }
}

/// The first of what a process writes.
async fn collect(mut output: mpsc::Receiver<Frame>) -> String {
    let mut text = Vec::new();
    while let Some(frame) = output.recv().await {
        if let Frame::Stdout(bytes) | Frame::Stderr(bytes) = frame {
            let room = OUTPUT.saturating_sub(text.len());
            text.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }
    String::from_utf8_lossy(&text).trim_end().to_owned()
}
