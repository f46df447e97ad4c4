//! Annotations: labels, and what the image specification derives from an image.

use std::collections::HashMap;

use super::SpecRequest;

const PREFIX: &str = "org.opencontainers.image.";

/// Annotations by the image specification's conversion rules, overridden by the image's
/// labels, and these by labels and annotations of the options.
pub(super) fn annotations(request: &SpecRequest<'_>) -> HashMap<String, String> {
    let image = request.image;
    let config = request.image_config();
    let ports = config.and_then(|c| c.exposed_ports().as_ref());
    let derived = [
        ("os", Some(image.os().to_string())),
        ("architecture", Some(image.architecture().to_string())),
        ("author", image.author().clone()),
        ("created", image.created().clone()),
        ("stopSignal", config.and_then(|c| c.stop_signal().clone())),
        ("exposedPorts", ports.map(|ports| joined(ports))),
    ];
    let derived = derived
        .into_iter()
        .filter_map(|(name, value)| Some((format!("{PREFIX}{name}"), value?)));
    let labels = config.and_then(|c| c.labels().clone());
    derived
        .chain(labels.into_iter().flatten())
        .chain(request.options.labels.clone())
        .chain(request.options.annotations.clone())
        .collect()
}

fn joined(ports: &[String]) -> String {
    let mut ports = ports.to_vec();
    ports.sort();
    ports.join(",")
}
