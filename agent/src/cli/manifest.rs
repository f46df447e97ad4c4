//! `kobune manifest build`: a deployment template of IoT Edge's tools turned into a manifest,
//! and the credentials that such a manifest gets when it is applied. Needs no daemon and no hub.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kobune_manifest::{Inputs, ModuleDir, Problems, Variables, VariablesError, build};
use serde_json::Value;

use super::UsageError;
use super::args::Global;
use super::words::{Word, Words, text};
use crate::deployment::{self, InvalidDeployment, Strictness};

/// Variable that names a platform, as IoT Edge's tools have it.
const PLATFORM_VARIABLE: &str = "DEFAULT_PLATFORM";

/// Which template, and what goes into it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ManifestArguments {
    template: PathBuf,
    platform: Option<String>,
    env_files: Vec<PathBuf>,
    /// The directory of the modules' directories; `modules` beside the template otherwise.
    modules: Option<PathBuf>,
    /// Standard output otherwise.
    out: Option<PathBuf>,
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub(super) enum ManifestError {
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is no valid JSON", path.display())]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error(transparent)]
    Variables(#[from] VariablesError),
    #[error("{} cannot be built", path.display())]
    Template {
        path: PathBuf,
        /// Not a source: each is shown in a line of its own.
        problems: Problems,
    },
    #[error("{} lacks credentials", path.display())]
    Credentials {
        path: PathBuf,
        /// The same.
        problems: Problems,
    },
    #[error("what {} makes is no valid deployment", path.display())]
    Deployment {
        path: PathBuf,
        /// The same.
        invalid: InvalidDeployment,
    },
}

impl ManifestError {
    /// What is wrong one by one, a line each.
    pub(super) fn problems(&self) -> String {
        match self {
            Self::Template { problems, .. } | Self::Credentials { problems, .. } => {
                problems.to_string()
            }
            Self::Deployment { invalid, .. } => invalid.to_string(),
            _ => String::new(),
        }
    }
}

impl ManifestArguments {
    /// Parses what follows `manifest`; `None` where help is asked for.
    pub(super) fn parse(
        words: &mut Words,
        global: &mut Global,
    ) -> Result<Option<Self>, UsageError> {
        let (mut arguments, mut verb, mut template) = (Self::default(), None, None);
        while let Some(word) = words.next()? {
            match word {
                Word::Value(value) if verb.is_none() => verb = Some(text(value)?),
                Word::Value(value) if template.is_none() => template = Some(value.into()),
                Word::Option(name) => match name.as_str() {
                    "-h" | "--help" => return Ok(None),
                    "--platform" => arguments.platform = Some(words.text()?),
                    "--env-file" => arguments.env_files.push(words.value()?.into()),
                    "--modules" => arguments.modules = Some(words.value()?.into()),
                    "--out" => arguments.out = Some(words.value()?.into()),
                    _ => global.take(Word::Option(name), words)?,
                },
                other => return Err(other.unexpected()),
            }
        }
        if verb.as_deref() != Some("build") {
            return Err(UsageError("expected \"manifest build\"".to_owned()));
        }
        arguments.template = template.ok_or_else(|| UsageError("no template named".to_owned()))?;
        Ok(Some(arguments))
    }

    /// The manifest, as it is to be written.
    fn build(&self) -> Result<Value, ManifestError> {
        let directory = self.template.parent().unwrap_or(Path::new(""));
        let text = read(&self.template)?;
        let template = serde_json::from_str(&text).map_err(|source| ManifestError::Json {
            path: self.template.clone(),
            source,
        })?;
        let variables = Variables::default()
            .with_file_if_any(&directory.join(".env"))?
            .with_files(&self.env_files)?;
        let variable = |name: &str| variables.get(name);
        let platform = self
            .platform
            .clone()
            .or_else(|| variable(PLATFORM_VARIABLE));
        let modules = self
            .modules
            .clone()
            .unwrap_or_else(|| directory.join("modules"));
        let module_file = |dir: &ModuleDir| {
            let path = match dir {
                ModuleDir::Named(name) => modules.join(name),
                ModuleDir::Path(path) => directory.join(path),
            };
            let path = path.join("module.json");
            fs::read_to_string(&path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let inputs = Inputs {
            platform: platform.as_deref(),
            variable: &variable,
            module_file: &module_file,
        };
        let manifest = build(template, &inputs).map_err(|problems| ManifestError::Template {
            path: self.template.clone(),
            problems,
        })?;
        self.check(&manifest)?;
        Ok(manifest)
    }

    /// Whether the agent would take the manifest. Of a layer that cannot be said.
    fn check(&self, manifest: &Value) -> Result<(), ManifestError> {
        let desired = &manifest["modulesContent"]["$edgeAgent"]["properties.desired"];
        if desired.is_null() {
            return Ok(());
        }
        let parsed = deployment::parse(&desired.to_string(), Strictness::Twin);
        parsed
            .map(drop)
            .map_err(|invalid| ManifestError::Deployment {
                path: self.template.clone(),
                invalid,
            })
    }
}

/// Builds the manifest and writes it into its file, which is replaced whole or not at all; to
/// be printed where there is none.
pub(super) fn run(arguments: &ManifestArguments) -> Result<Option<String>, ManifestError> {
    let text = format!("{:#}\n", arguments.build()?);
    let Some(out) = &arguments.out else {
        return Ok(Some(text));
    };
    let mut new = out.clone().into_os_string();
    new.push(".new");
    let written = fs::write(&new, &text).and_then(|()| fs::rename(&new, out));
    written.map_err(|source| ManifestError::File {
        action: "write",
        path: out.clone(),
        source,
    })?;
    Ok(None)
}

/// The bytes of a manifest with its registries' user names and passwords where it names
/// variables for them. What has none, or is no JSON, is as it was.
pub(super) fn fill_credentials(
    manifest: Vec<u8>,
    path: &Path,
    env_files: &[PathBuf],
) -> Result<Vec<u8>, ManifestError> {
    let variables = Variables::default().with_files(env_files)?;
    let Ok(mut value) = serde_json::from_slice::<Value>(&manifest) else {
        return Ok(manifest);
    };
    let filled = kobune_manifest::fill_credentials(&mut value, &|name| variables.get(name));
    match filled {
        Ok(0) => Ok(manifest),
        Ok(_) => Ok(value.to_string().into_bytes()),
        Err(problems) => Err(ManifestError::Credentials {
            path: path.to_owned(),
            problems,
        }),
    }
}

fn read(path: &Path) -> Result<String, ManifestError> {
    fs::read_to_string(path).map_err(|source| ManifestError::File {
        action: "read",
        path: path.to_owned(),
        source,
    })
}
