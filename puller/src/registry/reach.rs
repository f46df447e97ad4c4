//! Whether a registry can be reached at all.

use super::client::{Client, PlainHttp, Transport, failed};
use crate::config::{ProxyConfig, RegistryOptions};
use crate::error::PullError;

/// Asks a registry (`host` or `host:port`) for the version of its API, as a pull would begin,
/// but with no credentials. Any answer will do: that a login is needed is one.
///
/// # Errors
/// [`PullError::Client`] where the registry does not answer, or `options` cannot be used.
pub async fn reach(
    registry: &str,
    plain_http: &[String],
    proxy: Option<&ProxyConfig>,
    options: &RegistryOptions,
) -> Result<(), PullError> {
    let plain_http = PlainHttp::new(plain_http.to_vec())?;
    let transport = Transport {
        silence: std::time::Duration::from_secs(10),
        proxy: proxy.cloned(),
    };
    let client = Client::new(plain_http, &transport, options)?;
    let url = format!("{}/v2/", client.base(registry).await);
    let answer = client.http.get(url).send().await;
    answer.map(drop).map_err(failed)
}
