//! Bodies of requests.

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use serde::de::DeserializeOwned;

use super::ApiError;

/// Largest body in bytes: a deployment with 50 modules of 32 KB each, and some room.
const BODY_MAX: usize = 4 << 20;

pub(super) async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    match Limited::new(body, BODY_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(_) => Err(ApiError::invalid("the body does not end within 4 MiB")),
    }
}

pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::invalid(format!("the body: {error}")))
}
