//! `kobune config`: writes the hub into the configuration file, and checks the file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::UsageError;
use super::args::Global;
use super::words::{Word, Words};
use crate::config::{Config, ConfigError};
use crate::provisioning::Source;
use crate::store;

/// What to do with the configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ConfigVerb {
    /// Write down a connection string.
    Manual {
        connection_string: String,
        /// Replace another hub.
        force: bool,
    },
    /// Check the file.
    Apply,
}

/// Why the configuration was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProvisionError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{} has a hub already: -f replaces it", .0.display())]
    Exists(PathBuf),
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl ConfigVerb {
    /// Parses what follows `config`; `None` where help is asked for.
    pub(super) fn parse(
        words: &mut Words,
        global: &mut Global,
    ) -> Result<Option<Self>, UsageError> {
        let (mut verb, mut connection_string, mut force) = (None, None, false);
        while let Some(word) = words.next()? {
            match word {
                Word::Value(value) if verb.is_none() => verb = Some(super::words::text(value)?),
                Word::Option(name) => match name.as_str() {
                    "-h" | "--help" => return Ok(None),
                    "-f" | "--force" => force = words.switch()?,
                    "-c" | "--connection-string" => connection_string = Some(words.text()?),
                    _ => global.take(Word::Option(name), words)?,
                },
                other => return Err(other.unexpected()),
            }
        }
        match (verb.as_deref(), connection_string) {
            (Some("mp"), Some(connection_string)) => Ok(Some(Self::Manual {
                connection_string,
                force,
            })),
            (Some("mp"), None) => Err(UsageError(
                "no connection string: give it behind -c".to_owned(),
            )),
            (Some("apply"), None) => Ok(Some(Self::Apply)),
            (Some(other), _) => Err(UsageError(format!(
                "unknown command \"config {other}\": expected mp or apply"
            ))),
            (None, _) => Err(UsageError(
                "expected \"config mp\" or \"config apply\"".to_owned(),
            )),
        }
    }
}

/// Writes the device's connection string into the file `path`, which nobody but its owner
/// can read then; its other keys stay. The file is replaced whole or not at all.
pub(super) fn write(
    path: &Path,
    connection_string: &str,
    force: bool,
) -> Result<(), ProvisionError> {
    let failed = |action| {
        move |source| ProvisionError::File {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let old = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed("read")(error)),
    };
    if !force && Config::parse(path, &old)?.hub.is_some() {
        return Err(ProvisionError::Exists(path.to_owned()));
    }
    let text = with_hub(&old, connection_string);
    Config::parse(path, &text)?;
    store::replace(path, text.as_bytes()).map_err(failed("write"))
}

/// The file's text with this hub in the place of any other.
fn with_hub(old: &str, connection_string: &str) -> String {
    let mut text = String::new();
    let mut dropping = false;
    for line in old.lines() {
        let trimmed = line.trim_start();
        if trimmed.starts_with('[') {
            dropping =
                trimmed.starts_with("[provisioning]") || trimmed.starts_with("[provisioning.");
        }
        if !dropping {
            text += line;
            text.push('\n');
        }
    }
    if !text.is_empty() && !text.ends_with("\n\n") {
        text.push('\n');
    }
    let quoted = toml_string(connection_string.trim());
    text + "[provisioning]\nsource = \"manual\"\nconnection_string = " + &quoted + "\n"
}

fn toml_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// What the configuration says of the hub, in one line.
pub(super) fn describe(config: &Config) -> String {
    let hub = match config.hub.as_ref().map(|hub| &hub.source) {
        Some(Source::Manual(identity)) => {
            format!("device {} of hub {}", identity.device_id, identity.hub)
        }
        Some(Source::Dps(enrolment)) => format!(
            "registration {} in scope {}",
            enrolment.registration_id, enrolment.id_scope
        ),
        None => "no hub".to_owned(),
    };
    format!("The configuration is valid: {hub}. It counts from the daemon's next start.\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const FIRST: &str = "HostName=h;DeviceId=one;SharedAccessKey=AQID";
    const SECOND: &str = "HostName=h;DeviceId=two;SharedAccessKey=AQID";

    fn device(path: &Path) -> String {
        let config = Config::parse(path, &fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(config.log_level, crate::config::LogLevel::Debug);
        assert_eq!(config.network.bridge, "b0");
        describe(&config)
    }

    #[test]
    fn a_hub_is_added_and_only_by_force_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, "log_level = \"debug\"\n[network]\nbridge = \"b0\"").unwrap();
        write(&path, FIRST, false).unwrap();
        assert!(device(&path).contains("device one of hub h"));
        let error = write(&path, SECOND, false).unwrap_err();
        assert!(matches!(error, ProvisionError::Exists(_)), "{error}");
        assert!(device(&path).contains("device one"));
        write(&path, SECOND, true).unwrap();
        assert!(device(&path).contains("device two"));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_new_file_has_the_hub_and_a_bad_string_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/config.toml");
        write(&path, "HostName=h", false).unwrap_err();
        write(&path, "\"\n[network]", false).unwrap_err();
        assert!(!path.exists());
        write(&path, FIRST, false).unwrap();
        let config = Config::parse(&path, &fs::read_to_string(&path).unwrap()).unwrap();
        assert!(config.hub.is_some());
    }
}
