//! Bodies of requests.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use serde::de::DeserializeOwned;

use super::ApiError;

/// Largest body in bytes: a deployment with 50 modules of 32 KB each, and some room.
const BODY_MAX: usize = 4 << 20;

/// How long it may take until all of it is here.
const WITHIN: Duration = Duration::from_secs(30);

pub(super) async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    let whole = Limited::new(body, BODY_MAX).collect();
    match tokio::time::timeout(WITHIN, whole).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(_)) => Err(ApiError::invalid("the body does not end within 4 MiB")),
        Err(_) => Err(ApiError::slow("the body does not end within 30 s")),
    }
}

pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::invalid(format!("the body: {error}")))
}
