//! `module.json`: which image a module's source is built into.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct ModuleFile {
    image: Image,
}

#[derive(Deserialize)]
struct Image {
    repository: String,
    tag: Tag,
}

#[derive(Deserialize)]
struct Tag {
    version: String,
    /// Dockerfiles by platform; those for debugging end in `.debug`.
    platforms: BTreeMap<String, Value>,
}

/// The image's reference for `platform`: `repository:version-platform`. `expand` fills in
/// variables.
///
/// # Errors
/// What is wrong with the file, or the platforms that it has.
pub(crate) fn image(
    text: &str,
    platform: &str,
    mut expand: impl FnMut(&str) -> Result<String, String>,
) -> Result<String, String> {
    let file: ModuleFile = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Image { repository, tag } = file.image;
    if !tag.platforms.contains_key(platform) {
        let all: Vec<&str> = tag.platforms.keys().map(String::as_str).collect();
        return Err(format!(
            "has no platform {platform}: it has {}",
            all.join(", ")
        ));
    }
    let repository = expand(&repository).map_err(|error| format!("image.repository {error}"))?;
    let version = expand(&tag.version).map_err(|error| format!("image.tag.version {error}"))?;
    Ok(format!("{repository}:{version}-{platform}"))
}
