//! `SecurityOpt`, `MaskedPaths` and `ReadonlyPaths`.

use std::path::PathBuf;

use kobune_runtime::seccomp::CustomProfile;
use kobune_runtime::{SeccompChoice, Security};

use super::super::fields::{Fault, Fields, Findings, Node};
use super::mounts::absolute;

pub(super) fn parse(host: &mut Fields<'_>, findings: &mut Findings) -> Security {
    let mut security = Security::default();
    let items = findings.read(host.take("securityopt"), Node::list);
    for item in items.unwrap_or_default() {
        if let Some(text) = findings.accept(item.text()) {
            option(&item, &text, &mut security, findings);
        }
    }
    // An empty list says something: nothing is masked.
    let masked = paths(host.take_present("maskedpaths"), findings);
    let read_only = paths(host.take_present("readonlypaths"), findings);
    security.masked_paths = masked.or(security.masked_paths);
    security.readonly_paths = read_only.or(security.readonly_paths);
    security
}

fn paths(node: Option<Node<'_>>, findings: &mut Findings) -> Option<Vec<PathBuf>> {
    let node = node?;
    Some(findings.read_list(Some(node), absolute))
}

/// One of `SecurityOpt`: `name=value`, or with the colon of old.
fn option(item: &Node<'_>, text: &str, security: &mut Security, findings: &mut Findings) {
    let at = text.find(['=', ':']);
    let (name, value) = at.map_or((text, ""), |at| (&text[..at], &text[at + 1..]));
    match name {
        "no-new-privileges" => match value {
            "" | "true" => security.no_new_privileges = true,
            "false" => security.no_new_privileges = false,
            _ => findings
                .faults
                .push(item.fault("must be no-new-privileges, with =true or =false")),
        },
        "seccomp" => {
            if let Some(choice) = findings.accept(seccomp(item, value)) {
                security.seccomp = choice;
            }
        }
        "apparmor" => {
            let confined = !matches!(value, "" | "unconfined");
            security.apparmor = confined.then(|| value.to_owned());
        }
        "systempaths" if value == "unconfined" => {
            security.masked_paths = Some(Vec::new());
            security.readonly_paths = Some(Vec::new());
        }
        "label" => findings.warn(item, "has no effect: there are no SELinux labels"),
        _ => findings.faults.push(item.fault(format!(
            "is no security option: {name:?}; there are no-new-privileges, seccomp, apparmor, \
             systempaths=unconfined and label"
        ))),
    }
}

fn seccomp(item: &Node<'_>, value: &str) -> Result<SeccompChoice, Fault> {
    match value.trim() {
        "" | "builtin" => Ok(SeccompChoice::Default),
        "unconfined" => Ok(SeccompChoice::Unconfined),
        json if json.starts_with('{') => match CustomProfile::parse(json) {
            Ok(_) => Ok(SeccompChoice::Profile(json.to_owned())),
            Err(error) => Err(item.fault(format!("is {}", crate::error_chain::chain(&error)))),
        },
        _ => Err(item.fault(
            "must give the seccomp profile itself as JSON, unconfined or builtin: files are read \
             by Docker's command line, not by its API",
        )),
    }
}
