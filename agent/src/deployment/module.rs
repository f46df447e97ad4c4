//! One of a deployment's `modules`.

use std::collections::BTreeMap;
use std::error::Error;

use kobune_puller::parse_reference;
use oci_spec::distribution::Reference;

use super::fields::{Fault, Fields, Findings, Node};
use super::{
    DEFAULT_STARTUP_ORDER, DesiredStatus, ImagePullPolicy, ModuleSpec, RestartPolicy, Strictness,
    Warning, chunks, create_options, fingerprint,
};

/// Reads a module; its faults and warnings, with paths below it, go to `findings`.
pub(super) fn parse(
    node: &Node<'_>,
    strictness: Strictness,
    findings: &mut Findings,
) -> Option<ModuleSpec> {
    let mut fields = findings.accept(node.object())?;
    let kind = required(&mut fields, "type", strictness, findings);
    findings.read(kind, docker_type);
    let status = required(&mut fields, "status", strictness, findings);
    let status = findings.read(status, desired_status);
    let restart_policy = findings.read(fields.take("restartpolicy"), restart_policy);
    let image_pull_policy = findings.read(fields.take("imagepullpolicy"), image_pull_policy);
    let startup_order = findings.read(fields.take("startuporder"), startup_order);
    let version = findings.read(fields.take("version"), Node::text);
    let env = environment(fields.take("env"), findings);
    // The id of an automatic deployment, which the hub adds.
    fields.take("configuration");

    let settings = findings.accept(fields.require("settings"));
    findings.warn_leftovers(fields);
    let mut settings = findings.read(settings, Node::object)?;
    let image = findings.accept(settings.require("image"));
    let image = findings.read(image, image_reference);
    let joined = findings.accept(chunks::take(&mut settings));
    findings.warn_leftovers(settings);
    let joined = joined?;
    let options_node = Node::new(joined.path, &joined.value);
    let mut options = create_options::parse(&options_node, findings);
    options.env = merge_env(&env, std::mem::take(&mut options.env));

    let (image, image_text) = image?;
    Some(ModuleSpec {
        image,
        image_text,
        options,
        env,
        restart_policy: restart_policy.unwrap_or(RestartPolicy::OnUnhealthy),
        image_pull_policy: image_pull_policy.unwrap_or(ImagePullPolicy::OnCreate),
        status: status.unwrap_or(DesiredStatus::Running),
        startup_order: startup_order.unwrap_or(DEFAULT_STARTUP_ORDER),
        version: version.unwrap_or_default(),
        warnings: warnings(findings),
        refusals: texts(findings.refusals.drain(..)),
        create_options: fingerprint::sorted(joined.value.clone()),
    })
}

pub(super) fn warnings(findings: &mut Findings) -> Vec<Warning> {
    texts(findings.warnings.drain(..))
}

fn texts(faults: impl Iterator<Item = Fault>) -> Vec<Warning> {
    faults
        .map(|Fault { path, message }| Warning {
            field: path,
            message,
        })
        .collect()
}

/// A field that a twin must have and a local file may leave out.
fn required<'a>(
    fields: &mut Fields<'a>,
    name: &str,
    strictness: Strictness,
    findings: &mut Findings,
) -> Option<Node<'a>> {
    match strictness {
        Strictness::Twin => findings.accept(fields.require(name)),
        Strictness::Local => fields.take(name),
    }
}

pub(super) fn docker_type(node: &Node<'_>) -> Result<(), Fault> {
    one_of(node, &[("docker", ())])
}

fn desired_status(node: &Node<'_>) -> Result<DesiredStatus, Fault> {
    let words = [
        ("running", DesiredStatus::Running),
        ("stopped", DesiredStatus::Stopped),
    ];
    one_of(node, &words)
}

fn restart_policy(node: &Node<'_>) -> Result<RestartPolicy, Fault> {
    let words = [
        ("never", RestartPolicy::Never),
        ("on-failure", RestartPolicy::OnFailure),
        ("on-unhealthy", RestartPolicy::OnUnhealthy),
        ("always", RestartPolicy::Always),
    ];
    one_of(node, &words)
}

fn image_pull_policy(node: &Node<'_>) -> Result<ImagePullPolicy, Fault> {
    let words = [
        ("on-create", ImagePullPolicy::OnCreate),
        ("never", ImagePullPolicy::Never),
    ];
    one_of(node, &words)
}

/// The value of the word that the text is, in any case.
fn one_of<T: Copy>(node: &Node<'_>, words: &[(&str, T)]) -> Result<T, Fault> {
    let text = node.text()?;
    let found = words
        .iter()
        .find(|(word, _)| word.eq_ignore_ascii_case(&text));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        node.fault(format!("must be {}, not {text:?}", known.join(" or ")))
    })
}

fn startup_order(node: &Node<'_>) -> Result<u32, Fault> {
    u32::try_from(node.integer()?)
        .map_err(|_| node.fault(format!("must be from 0 to {}", u32::MAX)))
}

/// Registry, repository and tag or digest; `latest` where there is neither.
fn image_reference(node: &Node<'_>) -> Result<(Reference, String), Fault> {
    let text = node.text()?.trim().to_owned();
    if text.is_empty() {
        return Err(node.fault("must not be blank"));
    }
    if text.starts_with("$upstream") {
        return Err(node.fault("names a parent device: nested devices are not supported"));
    }
    if text.contains("${") {
        return Err(node.fault(format!(
            "has a placeholder that nothing filled in: {text:?}"
        )));
    }
    let reference = parse_reference(&text).map_err(|error| {
        // The error itself only repeats the text.
        let why = error.source().map(ToString::to_string);
        let why = why.unwrap_or_else(|| error.to_string());
        node.fault(format!("is no image reference: {text:?}: {why}"))
    })?;
    Ok((reference, text))
}

/// `{"NAME": {"value": "text"}}`.
fn environment(node: Option<Node<'_>>, findings: &mut Findings) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for (name, node) in findings.read(node, Node::entries).into_iter().flatten() {
        if name.is_empty() || name.contains(['=', '\0']) {
            findings.faults.push(node.fault("is no name of a variable"));
            continue;
        }
        if node.value().is_null() {
            continue;
        }
        if let Some(value) = variable(&node, findings) {
            env.insert(name.to_owned(), value);
        }
    }
    env
}

fn variable(node: &Node<'_>, findings: &mut Findings) -> Option<String> {
    let mut fields = findings.accept(node.object())?;
    let value = fields.take("value");
    let Some(value) = value else {
        return Some(String::new());
    };
    let text = findings.accept(value.text())?;
    if text.contains('\0') {
        let fault = value.fault("contains a NUL character");
        findings.faults.push(fault);
        return None;
    }
    Some(text)
}

/// The module's variables, then those of createOptions, which outrank them.
fn merge_env(env: &BTreeMap<String, String>, own: Vec<String>) -> Vec<String> {
    let overridden = |name: &str| {
        own.iter()
            .any(|entry| entry.split('=').next() == Some(name))
    };
    let mut merged: Vec<String> = env
        .iter()
        .filter(|(name, _)| !overridden(name))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    merged.extend(own);
    merged
}
