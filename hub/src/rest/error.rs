//! Refusals, as IoT Hub words them.

use std::error::Error as _;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::core::{Denied, HubError, Refusal};
use crate::moment::Moment;

/// A request that is refused or failed.
#[derive(Debug)]
pub(crate) struct ApiError {
    refusal: Refusal,
    message: String,
}

impl ApiError {
    pub(super) fn new(status: u16, code: u32, name: &'static str, message: &str) -> Self {
        Self {
            refusal: Refusal { status, code, name },
            message: message.to_owned(),
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, 400_004, "ArgumentInvalid", &message.into())
    }

    pub(super) fn slow(message: &str) -> Self {
        Self::new(408, 408_000, "RequestTimeout", message)
    }

    pub(super) fn forbidden() -> Self {
        let message = "the token is not for this";
        Self::new(401, 401_002, "IotHubUnauthorizedAccess", message)
    }

    pub(super) fn no_route() -> Self {
        Self::new(404, 404_000, "NotFound", "there is nothing here")
    }

    /// Outside all who are not let in hear the same.
    pub(super) fn denied(denied: &Denied) -> Self {
        if let Denied::Store(error) = denied {
            tracing::error!(
                error = &**error as &dyn std::error::Error,
                "deciding on access"
            );
            return Self::new(500, 500_001, "ServerError", "the hub failed");
        }
        tracing::info!(error = denied as &dyn std::error::Error, "request refused");
        Self::new(401, 401_002, "IotHubUnauthorizedAccess", "Unauthorized")
    }

    /// `numeric` is the form for devices, the other that for services.
    pub(super) fn response(&self, numeric: bool) -> Response<Full<Bytes>> {
        let Refusal { status, code, name } = self.refusal;
        let now = Moment::now().rfc3339();
        let numbered = json!({
            "errorCode": code,
            "message": self.message,
            "trackingId": "",
            "timestampUtc": now,
            "info": null,
        });
        let body = match (numeric, code) {
            (true, _) => numbered,
            // Calls of methods word it so, the rest of the service differently.
            (false, 404_103 | 504_101) => json!({
                "Message": numbered.to_string(),
                "ExceptionMessage": "",
            }),
            (false, _) => json!({
                "Message": format!("ErrorCode:{name};{}", self.message),
                "ExceptionMessage": format!("Tracking ID: TimeStamp:{now}"),
            }),
        };
        let mut response = super::json(&body);
        *response.status_mut() =
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert("iothub-errorcode", HeaderValue::from_static(name));
        response
    }
}

impl From<HubError> for ApiError {
    fn from(error: HubError) -> Self {
        let refusal = error.refusal();
        let message = match refusal.status {
            500.. => {
                tracing::error!(error = &error as &dyn std::error::Error, "request failed");
                "the hub failed".to_owned()
            }
            _ => match error.source() {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            },
        };
        Self { refusal, message }
    }
}
