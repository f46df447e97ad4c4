//! Uploads, which go on after their call was answered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Url;
use serde_json::{Value, json};

use super::request::{BundleRequest, Content, LogsRequest, SasUrl};
use super::{CallError, Methods, logs};
use crate::error_chain::chain;
use kobune_runtime::Timestamp;

/// Tasks that are remembered; the oldest are forgotten first.
const MAX_TASKS: usize = 32;
/// Attempts at one upload.
const ATTEMPTS: u32 = 3;
/// Wait before the second attempt; it doubles before the next.
const RETRY: Duration = Duration::from_secs(5);
const BLOB_API: &str = "2020-10-02";

/// Every task that was started, by its correlation id. In memory only.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<VecDeque<Task>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Task {
    id: String,
    state: &'static str,
    message: String,
}

/// Why an upload failed.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error(transparent)]
    Logs(#[from] CallError),
    #[error("cannot upload {blob}")]
    Network {
        blob: String,
        source: reqwest::Error,
    },
    #[error("cannot upload {blob}: the storage answered {status}")]
    Refused {
        blob: String,
        status: reqwest::StatusCode,
    },
    #[error("the sasUrl cannot be the base of a blob's address")]
    Url,
}

/// What to upload.
struct Blob {
    name: String,
    content_type: &'static str,
    gzip: bool,
    bytes: Vec<u8>,
}

impl Tasks {
    /// Starts an upload of logs; the state of its task.
    pub(super) fn upload_logs(
        self: &Arc<Self>,
        methods: &Methods,
        request: LogsRequest,
        target: SasUrl,
    ) -> Value {
        let methods = methods.clone();
        self.start("upload logs", async move {
            for blob in log_blobs(&methods, request).await? {
                upload(&methods.http, &target.0, &blob).await?;
            }
            Ok(())
        })
    }

    /// Starts an upload of everything that helps to find out what is wrong.
    pub(super) fn upload_support_bundle(
        self: &Arc<Self>,
        methods: &Methods,
        request: BundleRequest,
    ) -> Value {
        let methods = methods.clone();
        self.start("upload support bundle", async move {
            let bytes = super::bundle::build(&methods, &request).await?;
            let name = format!(
                "{}/{}/support-bundle-{}.zip",
                methods.hub,
                methods.device_id,
                blob_time(Timestamp::now())
            );
            let blob = Blob {
                name,
                content_type: "application/zip",
                gzip: false,
                bytes,
            };
            upload(&methods.http, &request.target.0, &blob).await
        })
    }

    /// The state of a task, also of one that is not known.
    pub(super) fn status(&self, id: &str) -> Value {
        let tasks = self.lock();
        let found = tasks.iter().find(|task| task.id.eq_ignore_ascii_case(id));
        match found {
            Some(task) => task.json(),
            None => json!({"status": "Unknown", "message": "", "correlationId": id}),
        }
    }

    fn start(
        self: &Arc<Self>,
        what: &'static str,
        work: impl Future<Output = Result<(), UploadError>> + Send + 'static,
    ) -> Value {
        let task = Task {
            id: correlation_id(),
            state: "Running",
            message: String::new(),
        };
        let (id, state) = (task.id.clone(), task.json());
        self.remember(task);
        let tasks = Arc::clone(self);
        tokio::spawn(async move {
            match work.await {
                Ok(()) => tasks.finish(&id, "Completed", String::new()),
                Err(error) => {
                    let message = format!("Task {what} failed because of error {}", chain(&error));
                    tracing::warn!("{message}");
                    tasks.finish(&id, "Failed", message);
                }
            }
        });
        state
    }

    fn remember(&self, task: Task) {
        let mut tasks = self.lock();
        if tasks.len() == MAX_TASKS {
            tasks.pop_front();
        }
        tasks.push_back(task);
    }

    fn finish(&self, id: &str, state: &'static str, message: String) {
        let mut tasks = self.lock();
        if let Some(task) = tasks.iter_mut().find(|task| task.id == id) {
            (task.state, task.message) = (state, message);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Task>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    fn json(&self) -> Value {
        json!({"status": self.state, "message": self.message, "correlationId": self.id})
    }
}

async fn log_blobs(methods: &Methods, request: LogsRequest) -> Result<Vec<Blob>, UploadError> {
    let (content_type, extension) = match request.content {
        Content::Json => ("application/json", "json"),
        Content::Text => ("text/plain", "log"),
    };
    let (gzip, suffix) = (request.gzip, if request.gzip { ".gz" } else { "" });
    let time = blob_time(Timestamp::now());
    let logs = logs::read(methods, request).await?;
    let blob = |log: logs::ModuleLog| Blob {
        name: format!(
            "{}/{}/{}-{time}.{extension}{suffix}",
            methods.hub, methods.device_id, log.module
        ),
        content_type,
        gzip,
        bytes: log.bytes,
    };
    Ok(logs.into_iter().map(blob).collect())
}

/// `2026-01-02--03-04-05`.
fn blob_time(now: Timestamp) -> String {
    let text = now.to_string();
    text[..19].replace('T', "--").replace(':', "-")
}

/// Puts the blob into the container that `container` names and authorizes for.
async fn upload(http: &reqwest::Client, container: &Url, blob: &Blob) -> Result<(), UploadError> {
    let url = blob_url(container, &blob.name).ok_or(UploadError::Url)?;
    let mut wait = RETRY;
    let mut attempt = 1;
    loop {
        match put(http, url.clone(), blob).await {
            Err(error) if attempt < ATTEMPTS && error.is_transient() => {
                tokio::time::sleep(wait).await;
                (attempt, wait) = (attempt + 1, wait * 2);
            }
            result => return result,
        }
    }
}

async fn put(http: &reqwest::Client, url: Url, blob: &Blob) -> Result<(), UploadError> {
    let mut request = http
        .put(url)
        .header("x-ms-blob-type", "BlockBlob")
        .header("x-ms-version", BLOB_API)
        .header("Content-Type", blob.content_type)
        .body(blob.bytes.clone());
    if blob.gzip {
        request = request.header("Content-Encoding", "gzip");
    }
    let response = request
        .send()
        .await
        .map_err(|source| UploadError::Network {
            blob: blob.name.clone(),
            // The address has the signature in it.
            source: source.without_url(),
        })?;
    match response.status() {
        status if status.is_success() => Ok(()),
        status => Err(UploadError::Refused {
            blob: blob.name.clone(),
            status,
        }),
    }
}

impl UploadError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Network { .. } => true,
            Self::Refused { status, .. } => status.is_server_error() || status.as_u16() == 429,
            Self::Logs(_) | Self::Url => false,
        }
    }
}

/// The blob's name goes behind the container's path, before its signature.
fn blob_url(container: &Url, name: &str) -> Option<Url> {
    let mut url = container.clone();
    let mut segments = url.path_segments_mut().ok()?;
    segments.pop_if_empty().extend(name.split('/'));
    drop(segments);
    Some(url)
}

/// A random UUID.
fn correlation_id() -> String {
    let random = ring::rand::generate::<[u8; 16]>(&ring::rand::SystemRandom::new());
    let mut bytes = random.map(ring::rand::Random::expose).unwrap_or_default();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_goes_behind_the_containers_path() {
        let container = Url::parse("https://a.blob.core.windows.net/logs?sv=1&sig=a%2Fb").unwrap();
        let url = blob_url(&container, "h.net/dev 1/led-2026.log").unwrap();
        assert_eq!(
            url.as_str(),
            "https://a.blob.core.windows.net/logs/h.net/dev%201/led-2026.log?sv=1&sig=a%2Fb"
        );
    }

    #[test]
    fn names_of_blobs_have_the_time() {
        let time = blob_time(Timestamp::from_unix(1_767_323_045, 0));
        assert_eq!(time, "2026-01-02--03-04-05");
    }

    /// Answers each request with the next status; what was asked is returned.
    async fn storage(listener: tokio::net::TcpListener, statuses: &[u16]) -> Vec<String> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut requests = Vec::new();
        for status in statuses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\nbytes") {
                request.push(stream.read_u8().await.unwrap());
            }
            requests.push(String::from_utf8(request).unwrap());
            let answer =
                format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        requests
    }

    async fn uploaded(statuses: &[u16]) -> (Vec<String>, Result<(), UploadError>) {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let container = Url::parse(&format!("http://{address}/logs?sig=s3cret")).unwrap();
        let tls = crate::hub::transport::tls(None, None).unwrap();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .build()
            .unwrap();
        let blob = Blob {
            name: "h/d/led.log.gz".to_owned(),
            content_type: "text/plain",
            gzip: true,
            bytes: b"bytes".to_vec(),
        };
        tokio::join!(
            storage(listener, statuses),
            upload(&http, &container, &blob)
        )
    }

    #[tokio::test]
    async fn a_blob_is_put_as_the_storage_wants_it() {
        let (requests, result) = uploaded(&[201]).await;
        result.unwrap();
        let request = requests[0].to_ascii_lowercase();
        assert!(
            request.starts_with("put /logs/h/d/led.log.gz?sig=s3cret "),
            "{request}"
        );
        for header in [
            "x-ms-blob-type: blockblob",
            "x-ms-version: ",
            "content-encoding: gzip",
        ] {
            assert!(request.contains(header), "{header}: {request}");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_hides_the_signature() {
        let (requests, result) = uploaded(&[403]).await;
        let error = chain(&result.unwrap_err());
        assert_eq!(requests.len(), 1);
        assert!(
            error.contains("h/d/led.log.gz") && error.contains("403"),
            "{error}"
        );
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn old_tasks_are_forgotten_and_unknown_ones_said_to_be() {
        let tasks = Tasks::default();
        for index in 0..=MAX_TASKS {
            tasks.remember(Task {
                id: index.to_string(),
                state: "Running",
                message: String::new(),
            });
        }
        tasks.finish("5", "Failed", "why".to_owned());
        assert_eq!(tasks.status("0")["status"], "Unknown");
        assert_eq!(tasks.status("5")["message"], "why");
        assert_eq!(tasks.status("6")["status"], "Running");
        let (a, b) = (correlation_id(), correlation_id());
        assert_ne!(a, b);
        assert_eq!((a.len(), &a[14..15]), (36, "4"));
    }
}
