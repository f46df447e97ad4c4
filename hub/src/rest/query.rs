//! Queries over twins, page by page, and statistics.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::header::HeaderValue;
use serde::Deserialize;
use serde_json::{Value, json};

use super::twins::twin_json;
use super::{Answer, ApiError, Call, body};
use crate::core::{Hub, HubError};
use crate::handle::HubHandle;
use crate::identity::Identity;
use crate::query::{self, Query, Selection, Source};

/// Most items of one page.
const PAGE_MAX: usize = 1000;
/// Records that are read at a time.
const BATCH: usize = 256;

#[derive(Debug, Deserialize)]
struct QueryBody {
    query: String,
}

/// One page of results, and the last twin that was looked at if there may be more.
#[derive(Debug, Default)]
struct Page {
    items: Vec<Value>,
    more_after: Option<Identity>,
}

pub(super) async fn run(call: &Call, hub: &HubHandle) -> Answer {
    let text: QueryBody = body::parse(&call.body)?;
    let query = query::parse(&text.query).map_err(|error| ApiError::invalid(error.to_string()))?;
    let size = match call.header("x-ms-max-item-count") {
        None => PAGE_MAX,
        Some(text) => text
            .trim()
            .parse()
            .map_err(|_| ApiError::invalid("x-ms-max-item-count is no number"))?,
    };
    let after = match call.header("x-ms-continuation") {
        None | Some("") => None,
        Some(token) => Some(read_token(token)?),
    };
    let item_type = match query.selection {
        Selection::All => "Twin",
        Selection::Paths(_) | Selection::Count(_) => "Raw",
    };
    let size = size.clamp(1, PAGE_MAX);
    let page = hub
        .ask(move |hub| collect(hub, &query, after, size))
        .await?;
    let mut response = super::json(&Value::Array(page.items));
    let headers = response.headers_mut();
    headers.insert("x-ms-item-type", HeaderValue::from_static(item_type));
    if let Some(after) = page.more_after {
        let token = URL_SAFE_NO_PAD.encode(after.to_string());
        let token = HeaderValue::from_str(&token);
        headers.insert(
            "x-ms-continuation",
            token.expect("invariant: base64 is a header's value"),
        );
    }
    Ok(response)
}

/// Where the next page starts is all that a token says.
fn read_token(token: &str) -> Result<Identity, ApiError> {
    let text = URL_SAFE_NO_PAD.decode(token).ok();
    let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
    let identity = text.and_then(|text| Identity::from_client_id(&text).ok());
    identity.ok_or_else(|| ApiError::invalid("x-ms-continuation is not from here"))
}

fn collect(
    hub: &Hub,
    query: &Query,
    mut after: Option<Identity>,
    size: usize,
) -> Result<Page, HubError> {
    let mut page = Page::default();
    let mut count = 0_u64;
    loop {
        let batch = hub.page(after.as_ref(), BATCH)?;
        let Some(last) = batch.last() else {
            break;
        };
        after = Some(last.identity.clone());
        for entry in batch {
            let is_module = entry.identity.module.is_some();
            if is_module != (query.source == Source::Modules) {
                continue;
            }
            let twin = twin_json(&entry, &hub.activity(&entry.identity));
            if !query.matches(&twin) {
                continue;
            }
            count += 1;
            if let Selection::Count(_) = query.selection {
                continue;
            }
            page.items.push(query.select(twin));
            if page.items.len() == size {
                page.more_after = Some(entry.identity);
                return Ok(page);
            }
        }
    }
    if let Selection::Count(name) = &query.selection {
        page.items.push(json!({ name: count }));
    }
    Ok(page)
}

pub(super) async fn statistics(which: &str, hub: &HubHandle) -> Answer {
    let service = which == "service";
    let statistics = hub.ask(move |hub| {
        if service {
            return Ok(json!({ "connectedDeviceCount": hub.connections() }));
        }
        let (mut enabled, mut disabled) = (0_u64, 0_u64);
        let mut after = None;
        loop {
            let batch = hub.page(after.as_ref(), BATCH)?;
            let Some(last) = batch.last() else { break };
            after = Some(last.identity.clone());
            for entry in batch.iter().filter(|entry| entry.identity.module.is_none()) {
                match entry.record.enabled {
                    true => enabled += 1,
                    false => disabled += 1,
                }
            }
        }
        Ok(json!({
            "totalDeviceCount": enabled + disabled,
            "enabledDeviceCount": enabled,
            "disabledDeviceCount": disabled,
        }))
    });
    Ok(super::json(&statistics.await?))
}
