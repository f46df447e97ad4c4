//! Automatic deployments as JSON, with their metrics.

use std::collections::BTreeMap;

use hyper::Method;
use hyper::header::ETAG;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, ApiError, Call, body};
use crate::configuration::{Configuration, Target};
use crate::core::{ConfigurationSpec, HubError, Precondition, etag};
use crate::handle::HubHandle;
use crate::moment::Moment;
use crate::query::{self, Source};
use crate::rollout;
use crate::twin::Object;

/// A configuration as it is sent; whatever else is in it is the hub's to say.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigurationBody {
    id: Option<String>,
    schema_version: Option<String>,
    labels: Option<Object>,
    content: Option<Object>,
    target_condition: Option<String>,
    priority: Option<u32>,
    metrics: Option<MetricsBody>,
}

#[derive(Debug, Deserialize)]
struct MetricsBody {
    queries: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TestBody {
    target_condition: Option<String>,
    custom_metric_queries: Option<BTreeMap<String, String>>,
}

pub(super) async fn route(call: &Call, rest: &[&str], hub: &HubHandle) -> Answer {
    match (&call.method, rest) {
        (&Method::GET, []) => list(call, hub).await,
        (&Method::POST, ["testQueries"]) => test(call),
        (&Method::GET, [id]) => get((*id).to_owned(), hub).await,
        (&Method::PUT, [id]) => put(call, (*id).to_owned(), hub).await,
        (&Method::DELETE, [id]) => {
            let (id, precondition) = ((*id).to_owned(), call.precondition(Precondition::Present));
            hub.ask_as(call.caller.actor(), move |hub| {
                hub.remove_configuration(&id, &precondition, Moment::now())
            })
            .await?;
            rollout::run(hub).await;
            Ok(super::no_content())
        }
        _ => Err(ApiError::no_route()),
    }
}

async fn list(call: &Call, hub: &HubHandle) -> Answer {
    let top = call.parameter("top").unwrap_or_else(|| "100".to_owned());
    let top: usize = top
        .parse()
        .map_err(|_| ApiError::invalid("the parameter top is no number"))?;
    let mut all = hub.ask(|hub| Ok(hub.configurations())).await?;
    all.truncate(top);
    Ok(super::json(&Value::Array(measured(hub, &all).await?)))
}

async fn get(id: String, hub: &HubHandle) -> Answer {
    let configuration = hub.ask(move |hub| hub.configuration(&id)).await?;
    let revision = configuration.revision;
    let value = measured(hub, &[configuration]).await?.remove(0);
    let mut response = super::json(&value);
    let quoted = format!("\"{}\"", etag(revision));
    if let Ok(value) = quoted.parse() {
        response.headers_mut().insert(ETAG, value);
    }
    Ok(response)
}

async fn put(call: &Call, id: String, hub: &HubHandle) -> Answer {
    let parsed: ConfigurationBody = body::parse(&call.body)?;
    if parsed.id.as_ref().is_some_and(|own| *own != id) {
        return Err(ApiError::invalid("id is not that of the path"));
    }
    let metrics = parsed.metrics.and_then(|metrics| metrics.queries);
    let metrics = metrics.unwrap_or_default();
    for (name, text) in &metrics {
        if let Err(error) = query::parse(text) {
            return Err(ApiError::invalid(format!(
                "metrics.queries.{name}: {error}"
            )));
        }
    }
    let spec = ConfigurationSpec {
        id: id.clone(),
        schema_version: parsed.schema_version,
        labels: parsed.labels.unwrap_or_default(),
        content: parsed.content,
        target_condition: parsed.target_condition.unwrap_or_default(),
        priority: parsed.priority.unwrap_or_default(),
        metrics,
    };
    let precondition = call.precondition(Precondition::Absent);
    hub.ask_as(call.caller.actor(), move |hub| {
        hub.put_configuration(spec, &precondition, Moment::now())
    })
    .await?;
    rollout::run(hub).await;
    get(id, hub).await
}

/// Whether condition and queries are understood, without making anything of them.
fn test(call: &Call) -> Answer {
    let asked: TestBody = body::parse(&call.body)?;
    let condition = asked.target_condition.unwrap_or_default();
    let condition = Target::parse(&condition)
        .err()
        .map(|error| error.to_string());
    let mut errors = Object::new();
    for (name, text) in asked.custom_metric_queries.unwrap_or_default() {
        if let Err(error) = query::parse(&text) {
            errors.insert(name, json!(error.to_string()));
        }
    }
    Ok(super::json(&json!({
        "targetConditionError": condition,
        "customMetricQueryErrors": errors,
    })))
}

/// The queries behind the metrics that every configuration has.
fn system_queries(configuration: &Configuration) -> BTreeMap<String, String> {
    let id = &configuration.id;
    let twins = match configuration.settings_of() {
        Some(Source::Modules) => "SELECT deviceId, moduleId FROM devices.modules",
        Some(Source::Devices) | None => "SELECT deviceId FROM devices",
    };
    let agents = "SELECT deviceId FROM devices.modules WHERE moduleId = '$edgeAgent' AND";
    let applied = format!("configurations.[[{id}]].status = 'Applied'");
    let mut queries = BTreeMap::from([(
        "targetedCount",
        format!("{twins} WHERE IS_DEFINED(configurations.[[{id}]])"),
    )]);
    if configuration.settings_of().is_some() {
        queries.insert("appliedCount", format!("{twins} WHERE {applied}"));
    } else {
        let reported = format!(
            "{agents} {applied} AND properties.desired.$version = \
             properties.reported.lastDesiredVersion AND properties.reported.lastDesiredStatus.code"
        );
        queries.insert("appliedCount", format!("{agents} {applied}"));
        queries.insert("reportedSuccessfulCount", format!("{reported} = 200"));
        queries.insert("reportedFailedCount", format!("{reported} <> 200"));
    }
    let named = queries.into_iter();
    named.map(|(name, text)| (name.to_owned(), text)).collect()
}

/// The configurations as JSON, with all metrics counted in one go.
async fn measured(hub: &HubHandle, all: &[Configuration]) -> Result<Vec<Value>, HubError> {
    let system: Vec<_> = all.iter().map(system_queries).collect();
    let sets = all.iter().zip(&system);
    let sets = sets.flat_map(|(configuration, system)| [system, &configuration.metrics]);
    let texts: Vec<&str> = sets
        .flat_map(BTreeMap::values)
        .map(String::as_str)
        .collect();
    let mut counts = hub.counts().of(hub, &texts).await?.into_iter();
    let mut results = |queries: &BTreeMap<String, String>| -> Object {
        let counted = queries.keys().zip(counts.by_ref());
        counted.map(|(name, n)| (name.clone(), json!(n))).collect()
    };
    let json = all.iter().zip(&system).map(|(configuration, system)| {
        let system_results = results(system);
        let own_results = results(&configuration.metrics);
        let mut value = configuration_json(configuration);
        value["systemMetrics"] = json!({ "results": system_results, "queries": system });
        value["metrics"] = json!({ "results": own_results, "queries": configuration.metrics });
        value
    });
    Ok(json.collect())
}

fn configuration_json(configuration: &Configuration) -> Value {
    json!({
        "id": configuration.id,
        "schemaVersion": configuration.schema_version,
        "labels": configuration.labels,
        "content": configuration.content,
        "targetCondition": configuration.target_condition,
        "createdTimeUtc": configuration.created,
        "lastUpdatedTimeUtc": configuration.updated,
        "priority": configuration.priority,
        "etag": etag(configuration.revision),
    })
}
