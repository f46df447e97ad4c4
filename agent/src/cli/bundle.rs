//! `bundle create` and `bundle apply`: images and their deployment in one file.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use kobune_puller::{BundleRequest, Credentials, Platform, PullRequest, Store};

use super::args::{ApplyArguments, Global, Verb};
use super::execute::{self, read_manifest};
use super::help::Topic;
use super::manifest::fill_credentials;
use super::words::{Word, Words, text};
use super::{CliError, Console, UsageError};
use crate::api::client::Client;
use crate::api::wire::StoreRequest;
use crate::config::Config;
use crate::daemon::open_puller;
use crate::deployment::{self, Strictness};

/// What to do with bundles.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BundleVerb {
    Create(Box<CreateArguments>),
    Apply(ApplyArguments),
}

/// What to bundle.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CreateArguments {
    /// The deployment.
    pub(super) deployment: PathBuf,
    /// The bundle.
    pub(super) file: PathBuf,
    /// Lists of layers to leave out.
    pub(super) have: Vec<PathBuf>,
    /// Of the device; this machine's where absent.
    pub(super) platform: Platform,
    pub(super) env_files: Vec<PathBuf>,
}

/// `create -o FILE [--have LIST] [--platform P] [--env-file FILE] DEPLOYMENT`, `apply [-d] FILE`
pub(super) fn parse(words: &mut Words, global: &mut Global) -> Result<Verb, UsageError> {
    let (mut what, mut file, mut output) = (None, None, None);
    let (mut have, mut env_files, mut detach) = (Vec::new(), Vec::new(), false);
    let mut platform = Platform::host();
    while let Some(word) = words.next()? {
        let creates = what.as_deref() == Some("create");
        match word {
            Word::Value(word) if what.is_none() => what = Some(text(word)?),
            Word::Value(path) if file.is_none() => file = Some(PathBuf::from(path)),
            Word::Option(name) => match name.as_str() {
                "-h" | "--help" => return Ok(Verb::Help(Topic::Bundle)),
                "-o" | "--output" if creates => output = Some(PathBuf::from(words.value()?)),
                "--have" if creates => have.push(words.value()?.into()),
                "--platform" if creates => {
                    let text = words.text()?;
                    let parsed = text.parse();
                    platform = parsed.map_err(|error: kobune_puller::InvalidPlatform| {
                        UsageError(error.to_string())
                    })?;
                }
                "-d" | "--detach" if !creates => detach = words.switch()?,
                "--env-file" => env_files.push(words.value()?.into()),
                _ => global.take(Word::Option(name), words)?,
            },
            other => return Err(other.unexpected()),
        }
    }
    let file = file.ok_or_else(|| UsageError("no file named; see 'kobune help bundle'".to_owned()));
    let verb = match what.as_deref() {
        Some("create") => BundleVerb::Create(Box::new(CreateArguments {
            deployment: file?,
            file: output.ok_or_else(|| UsageError("no bundle named: use --output".to_owned()))?,
            have,
            platform,
            env_files,
        })),
        Some("apply") => BundleVerb::Apply(ApplyArguments {
            file: file?,
            env_files,
            detach,
        }),
        _ => {
            let message = "expected 'bundle create' or 'bundle apply'; see 'kobune help bundle'";
            return Err(UsageError(message.to_owned()));
        }
    };
    Ok(Verb::Bundle(verb))
}

/// Fetches the deployment's images into one file. Needs no daemon, and no root.
pub(super) async fn create(
    arguments: &CreateArguments,
    config: &Config,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let text = read_manifest(&arguments.deployment)?;
    let filled = fill_credentials(text.clone(), &arguments.deployment, &arguments.env_files)?;
    let request = request(arguments, &text, &filled)?;
    let mut work = arguments.file.clone().into_os_string();
    work.push(".blobs");
    let work = PathBuf::from(work);
    let bundled = bundle(config, &request, &work, &arguments.file).await;
    // What is left there is of no use, and is in nobody's way.
    let _ = std::fs::remove_dir_all(&work);
    let bundled = bundled?;
    let (digest, size) = (bundled.digest, super::output::size(bundled.size));
    let (images, left_out) = (request.images.len(), bundled.left_out);
    console.print(&format!(
        "{digest}  {size}, {images} images, {left_out} layers left out\n"
    ))
}

async fn bundle(
    config: &Config,
    request: &BundleRequest,
    work: &Path,
    file: &Path,
) -> Result<kobune_puller::Bundled, CliError> {
    let failed = |what: &str, source: std::io::Error| CliError::Input {
        what: what.to_owned(),
        source,
    };
    let store = Store::open(work.join("store"));
    let store =
        store.map_err(|error| failed("the directory for blobs", std::io::Error::other(error)))?;
    let puller = open_puller(config, &store)?;
    let bundled = puller.bundle(request, &work.join("layout"), file).await;
    bundled.map_err(|error| CliError::Bundle(Box::new(error)))
}

fn request(
    arguments: &CreateArguments,
    text: &[u8],
    filled: &[u8],
) -> Result<BundleRequest, CliError> {
    let invalid = |message: String| CliError::from(UsageError(message));
    let name = arguments.deployment.display();
    let parsed = deployment::parse(&String::from_utf8_lossy(filled), Strictness::Local);
    let parsed = parsed.map_err(|error| {
        let problems: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
        invalid(format!("{name} is not valid: {}", problems.join("; ")))
    })?;
    let images = parsed.modules.values().map(|spec| {
        let credentials = parsed
            .credentials_for(&spec.image)
            .map(|known| Credentials {
                username: known.username.clone(),
                password: known.password.clone(),
            });
        let request = PullRequest {
            reference: spec.image.clone(),
            credentials,
            platform: arguments.platform.clone(),
        };
        (spec.image.whole(), request)
    });
    let images: BTreeMap<String, PullRequest> = images.collect();
    let deployment = String::from_utf8(text.to_vec());
    Ok(BundleRequest {
        images: images.into_values().collect(),
        deployment: Some(deployment.map_err(|_| invalid(format!("{name} is no text")))?),
        have: have(&arguments.have)?,
    })
}

/// Digests, with or without their algorithm, a line for each.
fn have(lists: &[PathBuf]) -> Result<HashSet<String>, CliError> {
    let mut have = HashSet::new();
    for list in lists {
        let text = std::fs::read_to_string(list).map_err(|source| CliError::Input {
            what: list.display().to_string(),
            source,
        })?;
        for line in text.split_whitespace() {
            let hex = line.rsplit_once(':').map_or(line, |(_, hex)| hex);
            if hex.len() < 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                let message = format!("{}: {line:?} is no digest of a layer", list.display());
                return Err(UsageError(message).into());
            }
            have.insert(hex.to_ascii_lowercase());
        }
    }
    Ok(have)
}

/// Loads the images, and applies the deployment.
pub(super) async fn apply(
    arguments: &ApplyArguments,
    client: &Client,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let name = arguments.file.display().to_string();
    let path = std::path::absolute(&arguments.file).map_err(|source| CliError::Input {
        what: name.clone(),
        source,
    })?;
    let report = client.store(&StoreRequest::Load { path }).await?;
    let Some(deployment) = report.deployment else {
        let message = format!("{name} carries no deployment; its images are loaded");
        return Err(UsageError(message).into());
    };
    execute::apply_text(deployment.into_bytes(), arguments, client, console).await
}
