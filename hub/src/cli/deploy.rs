//! `kobune-hub deploy` and `kobune-hub deployment`: modules of one device, or of all that
//! match a condition.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use hyper::Method;
use kobune_iothub_auth::percent_encode;
use kobune_manifest::Variables;
use serde_json::{Value, json};

use super::Failure;
use super::client::{Client, Request};
use super::console::{Output, cell, table};
use super::device;
use super::line::Line;
use crate::portal::hide;

/// Largest manifest in bytes.
const MANIFEST_MAX: u64 = 4 << 20;

/// A manifest and whom it is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DeployCommand {
    /// `-` is standard input.
    manifest: PathBuf,
    /// Variables for its credentials, beside the environment.
    env_files: Vec<PathBuf>,
    to: Target,
}

#[derive(Debug, PartialEq, Eq)]
enum Target {
    Device(String),
    /// An automatic deployment.
    Matching {
        name: String,
        condition: String,
        priority: u32,
    },
}

/// What to do with automatic deployments.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DeploymentCommand {
    List,
    Show(String),
    Delete(String),
}

impl DeployCommand {
    /// Reads what stands behind `deploy`.
    pub(super) fn parse(words: &[&str], line: &mut Line) -> Result<Self, lexopt::Error> {
        let [manifest] = words else {
            return Err("deploy needs a MANIFEST, or - for standard input".into());
        };
        let device: Option<String> = line.value("device")?;
        let condition: Option<String> = line.value("target-condition")?;
        let to = match (device, condition) {
            (Some(device), None) => Target::Device(device),
            (None, Some(condition)) => Target::Matching {
                condition,
                name: line.value("name")?.ok_or("--name is missing")?,
                priority: line.value("priority")?.unwrap_or_default(),
            },
            _ => return Err("deploy needs --device, or --name and --target-condition".into()),
        };
        Ok(Self {
            manifest: PathBuf::from(manifest),
            env_files: line
                .values("env-file")?
                .into_iter()
                .map(PathBuf::from)
                .collect(),
            to,
        })
    }
}

impl DeploymentCommand {
    /// Reads what stands behind `deployment`.
    pub(super) fn parse(words: &[&str]) -> Result<Self, lexopt::Error> {
        match words {
            ["list"] => Ok(Self::List),
            ["show", name] => Ok(Self::Show((*name).to_owned())),
            ["delete", name] => Ok(Self::Delete((*name).to_owned())),
            _ => Err("deployment needs list, show NAME, or delete NAME".into()),
        }
    }
}

pub(super) fn run(client: &Client, command: &DeployCommand) -> Result<(), Failure> {
    let mut content = json!({ "modulesContent": modules_content(&command.manifest)? });
    fill_credentials(&mut content, command)?;
    let request = match &command.to {
        Target::Device(id) => {
            let path = device::path(id, None) + "/applyConfigurationContent";
            let action = format!("set the modules of device {id}");
            Request::new(Method::POST, path, action).body(content)
        }
        Target::Matching {
            name,
            condition,
            priority,
        } => {
            let body = json!({ "id": name, "schemaVersion": "2.0", "content": content,
                "targetCondition": condition, "priority": priority, "labels": {} });
            let action = format!("create deployment {name}");
            Request::new(Method::PUT, path(name), action).body(body)
        }
    };
    client.send(request)?;
    Ok(())
}

/// Puts registries' user names and passwords where a manifest has variables for them.
fn fill_credentials(content: &mut Value, command: &DeployCommand) -> Result<(), Failure> {
    let variables = Variables::default().with_files(&command.env_files)?;
    let filled = kobune_manifest::fill_credentials(content, &|name| variables.get(name));
    let path = command.manifest.display();
    filled.map_err(|problems| format!("{path} cannot be deployed:\n{problems}"))?;
    Ok(())
}

pub(super) fn run_deployment(
    client: &Client,
    output: Output,
    command: &DeploymentCommand,
) -> Result<(), Failure> {
    match command {
        DeploymentCommand::List => {
            let request = Request::new(Method::GET, "/configurations", "list the deployments");
            let mut all = client.send(request)?;
            hide(&mut all, &[]);
            output.show(&all, list)
        }
        DeploymentCommand::Show(name) => {
            let action = format!("read deployment {name}");
            let mut found = client.send(Request::new(Method::GET, path(name), action))?;
            hide(&mut found, &[]);
            output.show(&found, |found| format!("{found:#}\n"))
        }
        DeploymentCommand::Delete(name) => {
            let action = format!("delete deployment {name}");
            client.send(Request::new(Method::DELETE, path(name), action).if_match("*"))?;
            Ok(())
        }
    }
}

fn path(name: &str) -> String {
    format!("/configurations/{}", percent_encode(name))
}

/// The `modulesContent` of a manifest's file; some tools put it into `content`.
fn modules_content(path: &Path) -> Result<Value, Failure> {
    let named = match path == Path::new("-") {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    };
    let text = read(path).map_err(|error| format!("cannot read {named}: {error}"))?;
    let mut manifest: Value = serde_json::from_str(&text)
        .map_err(|error| format!("{named} is no valid JSON: {error}"))?;
    if let Some(inner) = manifest.get_mut("content") {
        manifest = inner.take();
    }
    let modules = manifest["modulesContent"].take();
    if !modules.is_object() {
        return Err(format!("{named} is no deployment manifest: modulesContent is missing").into());
    }
    Ok(modules)
}

fn read(path: &Path) -> std::io::Result<String> {
    let input: Box<dyn std::io::Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(path)?),
    };
    let mut text = String::new();
    input.take(MANIFEST_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MANIFEST_MAX {
        return Err(std::io::Error::other("it has more than 4 MiB"));
    }
    Ok(text)
}

fn list(all: &Value) -> String {
    let all = all.as_array().map_or(&[][..], Vec::as_slice);
    let rows: Vec<_> = all
        .iter()
        .map(|one| {
            let count = |name: &str| cell(&one["systemMetrics"]["results"][name]);
            [
                cell(&one["id"]),
                cell(&one["priority"]),
                count("targetedCount"),
                count("appliedCount"),
                count("reportedSuccessfulCount"),
                count("reportedFailedCount"),
                cell(&one["targetCondition"]),
            ]
        })
        .collect();
    let heads = [
        "DEPLOYMENT",
        "PRIORITY",
        "TARGETED",
        "APPLIED",
        "SUCCESSFUL",
        "FAILED",
        "CONDITION",
    ];
    table(heads, &rows)
}
