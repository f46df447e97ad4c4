//! Devices, volumes and mounts.

use std::path::Path;

use serde_json::{Value, json};

use super::quantity;

/// What `-v` asks for.
pub(super) enum Volume {
    /// An element of docker's `Binds`.
    Bind(String),
    /// A volume without a name at this path.
    Anonymous(String),
}

/// `HOST[:INSIDE[:ACCESS]]` or `HOST:ACCESS`.
pub(super) fn device(text: &str) -> Result<Value, String> {
    let is_access = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, inside, access) = match *parts.as_slice() {
        [host] => (host, host, "rwm"),
        [host, access] if is_access(access) => (host, host, access),
        [host, inside] => (host, inside, "rwm"),
        [host, inside, access] if is_access(access) => (host, inside, access),
        [_, _, access] => return Err(format!("{access:?} is no set of r, w and m")),
        _ => return Err("expected HOST[:INSIDE[:rwm]]".to_owned()),
    };
    if !host.starts_with('/') || !inside.starts_with('/') {
        return Err("expected absolute paths".to_owned());
    }
    Ok(json!({
        "PathOnHost": host,
        "PathInContainer": inside,
        "CgroupPermissions": access,
    }))
}

/// `SOURCE:INSIDE[:OPTIONS]`, or `INSIDE` alone; a source that begins with `.` is relative
/// to `directory`, one without `/` names a volume.
pub(super) fn volume(text: &str, directory: &Path) -> Result<Volume, String> {
    let Some((source, rest)) = text.split_once(':') else {
        if !text.starts_with('/') {
            return Err("expected an absolute path inside".to_owned());
        }
        return Ok(Volume::Anonymous(text.to_owned()));
    };
    if source.is_empty() || !rest.starts_with('/') {
        return Err("expected SOURCE:INSIDE with an absolute path inside".to_owned());
    }
    let source = if source.starts_with('.') {
        let path = Path::new(source);
        // Components drop the dots in between; the one at the begin goes with them here.
        let path: std::path::PathBuf = directory.join(path).components().collect();
        path.display().to_string()
    } else if source.starts_with('~') {
        return Err("a source with '~' is for the shell to expand".to_owned());
    } else {
        source.to_owned()
    };
    Ok(Volume::Bind(format!("{source}:{rest}")))
}

/// `type=..,source=..,target=..` and further keys.
pub(super) fn mount(text: &str) -> Result<Value, String> {
    let mut mount = json!({ "Type": "volume" });
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match key {
            "type" if matches!(value, "bind" | "volume" | "tmpfs") => {
                mount["Type"] = value.into();
            }
            "type" => return Err(format!("unknown type {value:?}: bind, volume or tmpfs")),
            "source" | "src" => mount["Source"] = value.into(),
            "target" | "dst" | "destination" => mount["Target"] = value.into(),
            "readonly" | "ro" => match value {
                "" | "true" | "1" => mount["ReadOnly"] = true.into(),
                "false" | "0" => mount["ReadOnly"] = false.into(),
                _ => return Err(format!("invalid value {value:?} of {key}")),
            },
            "bind-propagation" => mount["BindOptions"] = json!({ "Propagation": value }),
            "tmpfs-size" => {
                mount["TmpfsOptions"]["SizeBytes"] = quantity::bytes(value)?.into();
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8).map_err(|_| "expected an octal mode")?;
                mount["TmpfsOptions"]["Mode"] = mode.into();
            }
            _ => return Err(format!("unknown key {key:?}")),
        }
    }
    if mount["Target"].as_str().unwrap_or_default().is_empty() {
        return Err("no target".to_owned());
    }
    if mount["Type"] == "bind" && mount["Source"].as_str().unwrap_or_default().is_empty() {
        return Err("no source".to_owned());
    }
    Ok(mount)
}
