//! Queries over twins, page by page, and statistics.

use std::ops::ControlFlow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::header::HeaderValue;
use serde::Deserialize;
use serde_json::{Value, json};

use super::scan::{self, Range};
use super::twins::twin_json;
use super::{Answer, ApiError, Call, body};
use crate::core::{Activity, HubError};
use crate::handle::HubHandle;
use crate::identity::Identity;
use crate::query::{self, Query, Selection, Source};
use crate::record::Entry;

/// Most items of one page.
const PAGE_MAX: usize = 1000;

#[derive(Debug, Deserialize)]
struct QueryBody {
    query: String,
}

/// One page of results, and the last twin that was looked at if there may be more.
#[derive(Debug, Default)]
struct Page {
    items: Vec<Value>,
    /// All that were found.
    count: u64,
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
    let page = collect(hub, query, after, size).await?;
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

async fn collect(
    hub: &HubHandle,
    query: Query,
    after: Option<Identity>,
    size: usize,
) -> Result<Page, HubError> {
    let devices = query.devices();
    let (query, range) = (Arc::new(query), Range { after, devices });
    let page = {
        let query = Arc::clone(&query);
        scan::records(hub, range, Page::default(), move |page, entry, activity| {
            page.see(&query, entry, activity, size)
        })
    };
    let mut page = page.await?;
    if let Selection::Count(name) = &query.selection {
        page.items.push(json!({ name: page.count }));
    }
    Ok(page)
}

impl Page {
    /// Takes what is asked for of `entry`, until there are `size` items.
    fn see(
        &mut self,
        query: &Query,
        entry: &Entry,
        activity: &Activity,
        size: usize,
    ) -> ControlFlow<()> {
        let is_module = entry.identity.module.is_some();
        if is_module != (query.source == Source::Modules) {
            return ControlFlow::Continue(());
        }
        let twin = twin_json(entry, activity);
        if !query.matches(&twin) {
            return ControlFlow::Continue(());
        }
        self.count += 1;
        if let Selection::Count(_) = query.selection {
            return ControlFlow::Continue(());
        }
        self.items.push(query.select(twin));
        if self.items.len() < size {
            return ControlFlow::Continue(());
        }
        self.more_after = Some(entry.identity.clone());
        ControlFlow::Break(())
    }
}

pub(super) async fn statistics(which: &str, hub: &HubHandle) -> Answer {
    if which == "service" {
        let connected = hub.ask(|hub| Ok(hub.connections())).await?;
        return Ok(super::json(&json!({ "connectedDeviceCount": connected })));
    }
    let counted = scan::records(hub, Range::default(), [0_u64; 2], |counts, entry, _| {
        if entry.identity.module.is_none() {
            counts[usize::from(entry.record.enabled)] += 1;
        }
        ControlFlow::Continue(())
    });
    let [disabled, enabled] = counted.await?;
    Ok(super::json(&json!({
        "totalDeviceCount": enabled + disabled,
        "enabledDeviceCount": enabled,
        "disabledDeviceCount": disabled,
    })))
}
