//! From `run`'s options to a module as it would stand in a deployment, with docker's
//! container options as `createOptions`. Checks the form of a value; what it means is
//! checked by the daemon, as for every deployment.

mod files;
mod ports;
mod quantity;

use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::UsageError;
use super::run_args::{RunArguments, RunOption};
use crate::api::wire::RunRequest;
use crate::deployment::is_device_name;

/// What options refer to on the side of the caller.
pub(super) struct Surroundings<'a> {
    /// Working directory, for `-v ./data:/data`.
    pub(super) directory: &'a Path,
    /// An environment variable, for `-e KEY`.
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
    /// A file's text, for `--env-file`.
    pub(super) read: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// Docker's body of a container's creation in the making.
#[derive(Default)]
struct CreateOptions {
    top: Map<String, Value>,
    host: Map<String, Value>,
    env: Vec<String>,
}

/// The request that `arguments` ask for, without credentials.
pub(super) fn request(
    arguments: &RunArguments,
    around: &Surroundings<'_>,
) -> Result<RunRequest, UsageError> {
    let mut options = CreateOptions::default();
    for file in &arguments.env_files {
        let text = (around.read)(file).map_err(|error| {
            UsageError(format!(
                "cannot read --env-file {}: {error}",
                file.display()
            ))
        })?;
        options.env.extend(env_file(&text, around)?);
    }
    for option in &arguments.options {
        options
            .apply(option, around)
            .map_err(|reason| invalid(option, &reason))?;
    }
    if !arguments.command.is_empty() {
        options
            .top
            .insert("Cmd".to_owned(), json!(arguments.command));
    }
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => default_name(&arguments.image),
    };
    let module = json!({
        "type": "docker",
        "status": "running",
        "restartPolicy": restart_policy(arguments.restart.as_deref())?,
        "imagePullPolicy": pull_policy(arguments.pull.as_deref())?,
        "settings": {
            "image": arguments.image,
            "createOptions": options.finish().to_string(),
        },
    });
    Ok(RunRequest {
        name,
        module,
        registry_credentials: None,
    })
}

fn invalid(option: &RunOption, reason: &str) -> UsageError {
    UsageError(format!(
        "invalid value {:?} of {}: {reason}",
        option.value, option.name
    ))
}

/// The last part of the image's name, as far as it makes a module's name.
fn default_name(image: &str) -> String {
    let name = image.split('@').next().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default();
    name.split(':').next().unwrap_or_default().to_owned()
}

fn restart_policy(docker: Option<&str>) -> Result<&'static str, UsageError> {
    match docker {
        None | Some("no" | "never") => Ok("never"),
        Some("on-failure") => Ok("on-failure"),
        Some("on-unhealthy") => Ok("on-unhealthy"),
        Some("always" | "unless-stopped") => Ok("always"),
        Some(other) => Err(UsageError(format!(
            "invalid value {other:?} of --restart: expected no, on-failure, always or unless-stopped"
        ))),
    }
}

fn pull_policy(docker: Option<&str>) -> Result<&'static str, UsageError> {
    match docker {
        None | Some("always" | "missing") => Ok("on-create"),
        Some("never") => Ok("never"),
        Some(other) => Err(UsageError(format!(
            "invalid value {other:?} of --pull: expected always, missing or never"
        ))),
    }
}

/// Lines of `KEY=VALUE` or `KEY`; empty ones and those that begin with `#` are passed over.
fn env_file(text: &str, around: &Surroundings<'_>) -> Result<Vec<String>, UsageError> {
    text.lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(|line| variable(line, around).transpose())
        .collect::<Result<_, _>>()
        .map_err(|reason| UsageError(format!("invalid line of --env-file: {reason}")))
}

/// `KEY=VALUE`, or `KEY` with the caller's value; `None` where the caller has none.
fn variable(text: &str, around: &Surroundings<'_>) -> Result<Option<String>, String> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, (around.variable)(text)),
    };
    if key.is_empty() {
        return Err(format!("{text:?} has no name"));
    }
    Ok(value.map(|value| format!("{key}={value}")))
}

impl CreateOptions {
    fn apply(&mut self, option: &RunOption, around: &Surroundings<'_>) -> Result<(), String> {
        let value = option.value.as_str();
        match option.name {
            "--env" => self.env.extend(variable(value, around)?),
            "--entrypoint" => self.set("Entrypoint", json!([value])),
            "--hostname" => self.set("Hostname", value.into()),
            "--user" => self.set("User", value.into()),
            "--workdir" => self.set("WorkingDir", value.into()),
            "--stop-signal" => self.set("StopSignal", value.into()),
            "--stop-timeout" => self.set("StopTimeout", quantity::whole(value)?.into()),
            "--label" => self.label(value),
            "--network" => self.set_host("NetworkMode", value.into()),
            "--memory" => self.set_host("Memory", quantity::bytes(value)?.into()),
            "--shm-size" => self.set_host("ShmSize", quantity::bytes(value)?.into()),
            "--cpus" => self.set_host("NanoCpus", quantity::nano(value)?.into()),
            "--pids-limit" => self.set_host("PidsLimit", quantity::whole(value)?.into()),
            "--privileged" => self.set_host("Privileged", (value == "true").into()),
            "--read-only" => self.set_host("ReadonlyRootfs", (value == "true").into()),
            "--init" => self.set_host("Init", (value == "true").into()),
            "--interactive" => self.set("OpenStdin", (value == "true").into()),
            "--tty" => self.set("Tty", (value == "true").into()),
            "--sdnotify" => self.sdnotify(value)?,
            "--cap-add" => self.push_host("CapAdd", value.into()),
            "--cap-drop" => self.push_host("CapDrop", value.into()),
            "--group-add" => self.push_host("GroupAdd", value.into()),
            "--security-opt" => self.push_host("SecurityOpt", value.into()),
            "--dns" => self.push_host("Dns", value.into()),
            "--device-cgroup-rule" => self.push_host("DeviceCgroupRules", value.into()),
            "--device" if is_device_name(value) => self.push_host(
                "DeviceRequests",
                json!({ "Driver": "cdi", "DeviceIDs": [value] }),
            ),
            "--device" => self.push_host("Devices", files::device(value)?),
            "--mount" => self.push_host("Mounts", files::mount(value)?),
            "--storage-opt" => self.storage_option(value)?,
            "--ulimit" => self.push_host("Ulimits", quantity::ulimit(value)?),
            "--add-host" => self.push_host("ExtraHosts", extra_host(value)?),
            "--volume" => self.volume(value, around)?,
            "--tmpfs" => self.tmpfs(value),
            "--publish" => self.publish(value)?,
            "--log-driver" => self.log("Type").clone_from(&json!(value)),
            "--log-opt" => self.log_option(value)?,
            other => return Err(format!("option {other} has no meaning")),
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: Value) {
        self.top.insert(key.to_owned(), value);
    }

    fn set_host(&mut self, key: &str, value: Value) {
        self.host.insert(key.to_owned(), value);
    }

    fn push_host(&mut self, key: &str, value: Value) {
        let list = self.host.entry(key).or_insert_with(|| json!([]));
        list.as_array_mut()
            .expect("invariant: only this makes the key")
            .push(value);
    }

    fn storage_option(&mut self, text: &str) -> Result<(), String> {
        let (key, value) = text.split_once('=').ok_or("expected size=SIZE")?;
        self.host.entry("StorageOpt").or_insert_with(|| json!({}))[key] = value.into();
        Ok(())
    }

    /// podman's; who else may tell of a module is not offered.
    fn sdnotify(&mut self, who: &str) -> Result<(), String> {
        match who {
            "ignore" => return Ok(()),
            "container" => {}
            _ => return Err(format!("expected container or ignore, not {who:?}")),
        }
        let annotations = self.host.entry("Annotations");
        annotations.or_insert_with(|| json!({}))["io.containers.sdnotify"] = who.into();
        Ok(())
    }

    fn label(&mut self, text: &str) {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        self.top.entry("Labels").or_insert_with(|| json!({}))[key] = value.into();
    }

    fn volume(&mut self, text: &str, around: &Surroundings<'_>) -> Result<(), String> {
        match files::volume(text, around.directory)? {
            files::Volume::Bind(bind) => self.push_host("Binds", bind.into()),
            files::Volume::Anonymous(inside) => {
                self.top.entry("Volumes").or_insert_with(|| json!({}))[&inside] = json!({});
            }
        }
        Ok(())
    }

    fn tmpfs(&mut self, text: &str) {
        let (dir, options) = text.split_once(':').unwrap_or((text, ""));
        self.host.entry("Tmpfs").or_insert_with(|| json!({}))[dir] = options.into();
    }

    fn publish(&mut self, text: &str) -> Result<(), String> {
        for port in ports::parse(text)? {
            let bindings = self.host.entry("PortBindings").or_insert_with(|| json!({}));
            let bound = &mut bindings[&port.inside];
            if bound.is_null() {
                *bound = json!([]);
            }
            bound
                .as_array_mut()
                .expect("invariant: only this makes the key")
                .push(port.binding);
        }
        Ok(())
    }

    /// A field of the log's configuration, whose driver is docker's default if none is named.
    fn log(&mut self, key: &str) -> &mut Value {
        let config = self
            .host
            .entry("LogConfig")
            .or_insert_with(|| json!({ "Type": "json-file", "Config": {} }));
        &mut config[key]
    }

    fn log_option(&mut self, text: &str) -> Result<(), String> {
        let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
        self.log("Config")[key] = value.into();
        Ok(())
    }

    fn finish(mut self) -> Value {
        if !self.env.is_empty() {
            self.set("Env", json!(self.env));
        }
        if !self.host.is_empty() {
            let host = Value::Object(std::mem::take(&mut self.host));
            self.set("HostConfig", host);
        }
        Value::Object(self.top)
    }
}

/// `NAME:IP` or `NAME=IP`, in the first form.
fn extra_host(text: &str) -> Result<Value, String> {
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or("expected NAME:IP")?;
    if name.is_empty() || address.is_empty() {
        return Err("expected NAME:IP".to_owned());
    }
    Ok(format!("{name}:{address}").into())
}

#[cfg(test)]
mod tests;
