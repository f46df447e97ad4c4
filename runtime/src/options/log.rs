//! Where a container's output goes.

mod syslog;

use serde::{Deserialize, Serialize};

pub use syslog::{InvalidAddress, Syslog, SyslogAddress, SyslogFormat};

/// Bounds of a container's log: at most `max_files` files of about `max_size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogOptions {
    /// Bytes at which the log is rotated.
    pub max_size: u64,
    /// Files kept, the current one included; at least 1.
    pub max_files: u32,
}

/// Where a container's output goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogDriver {
    /// Into files.
    #[default]
    File,
    /// Nowhere.
    None,
    /// Into memory; onto the disk when the container fails.
    Ring,
    /// To the system's journal, and into memory.
    Journald {
        /// Its `SYSLOG_IDENTIFIER`.
        tag: Tag,
    },
    /// To a syslog server, and into memory.
    Syslog(Syslog),
}

/// Name under which a receiver knows the container: text with Docker's `{{.Name}}` and the like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

/// Text that is no tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTag {
    /// It is empty or has control characters.
    #[error("must be printable text")]
    Text,
    /// It has braces with something else between them.
    #[error(
        "may have {{{{.Name}}}}, {{{{.ID}}}}, {{{{.FullID}}}}, {{{{.ImageName}}}}, {{{{.ImageID}}}}, \
         {{{{.ImageFullID}}}} and {{{{.DaemonName}}}}, and no other braces"
    )]
    Word,
}

/// What a tag may tell of a container.
#[derive(Debug, Clone, Copy, Default)]
pub struct TagWords<'a> {
    /// The container's id, which is its name.
    pub name: &'a str,
    /// The image as it was asked for.
    pub image: &'a str,
    /// Digest of the image's configuration.
    pub image_id: &'a str,
}

impl Default for LogOptions {
    /// 10 MiB in three files: Docker's own default has no bound and fills the disk.
    fn default() -> Self {
        Self {
            max_size: 10 << 20,
            max_files: 3,
        }
    }
}

impl LogOptions {
    /// Files into which a log in memory is divided: when the oldest goes, three quarters stay.
    const RING_FILES: u32 = 4;
    /// Least bytes of each: what a module wrote at once goes into one of them.
    const RING_FILE: u64 = 32 << 10;

    /// A log in memory of `bytes` in all, 128 KiB at least.
    #[must_use]
    pub fn ring(bytes: u64) -> Self {
        Self {
            max_size: (bytes / u64::from(Self::RING_FILES)).max(Self::RING_FILE),
            max_files: Self::RING_FILES,
        }
    }
}

impl LogDriver {
    /// Whether the log is in memory and is gone with a reboot.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        match self {
            Self::File | Self::None => false,
            Self::Ring | Self::Journald { .. } | Self::Syslog(_) => true,
        }
    }

    /// Who gets the output as it comes; its tag is filled in with `words`.
    #[must_use]
    pub fn receiver(&self, words: TagWords<'_>) -> Option<Self> {
        match self {
            Self::File | Self::None | Self::Ring => None,
            Self::Journald { tag } => Some(Self::Journald {
                tag: tag.filled(words),
            }),
            Self::Syslog(syslog) => Some(Self::Syslog(Syslog {
                tag: syslog.tag.filled(words),
                ..syslog.clone()
            })),
        }
    }
}

impl Default for Tag {
    /// Docker's.
    fn default() -> Self {
        Self("{{.ID}}".to_owned())
    }
}

impl Tag {
    /// As it was written, or filled in.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn filled(&self, words: TagWords<'_>) -> Self {
        // What a container is named after may have no braces.
        Self(fill(&self.0, words).unwrap_or_else(|_| words.name.to_owned()))
    }
}

impl TryFrom<String> for Tag {
    type Error = InvalidTag;

    fn try_from(text: String) -> Result<Self, InvalidTag> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(InvalidTag::Text);
        }
        fill(&text, TagWords::default())?;
        Ok(Self(text))
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0
    }
}

fn fill(template: &str, words: TagWords<'_>) -> Result<String, InvalidTag> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, word)) = rest.split_once("{{") {
        let (word, behind) = word.split_once("}}").ok_or(InvalidTag::Word)?;
        text += before;
        let short = words.image_id.rsplit(':').next().unwrap_or_default();
        text += match word.trim() {
            ".Name" | ".ID" | ".FullID" => words.name,
            ".ImageName" => words.image,
            ".ImageID" => short.get(..12).unwrap_or(short),
            ".ImageFullID" => words.image_id,
            ".DaemonName" => "kobune",
            _ => return Err(InvalidTag::Word),
        };
        rest = behind;
    }
    Ok(text + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_filled_in_as_docker_does_it() {
        let words = TagWords {
            name: "led",
            image: "example.com/led:1",
            image_id: "sha256:0123456789abcdef",
        };
        let cases = [
            ("{{.ID}}", Some("led")),
            ("x/{{ .Name }}/{{.FullID}}", Some("x/led/led")),
            (
                "{{.ImageName}} {{.ImageID}}",
                Some("example.com/led:1 0123456789ab"),
            ),
            (
                "{{.ImageFullID}}{{.DaemonName}}",
                Some("sha256:0123456789abcdefkobune"),
            ),
            ("plain } text", Some("plain } text")),
            ("{{.Nothing}}", None),
            ("{{.Name", None),
            ("two\nlines", None),
            ("", None),
        ];
        for (template, expected) in cases {
            let tag = Tag::try_from(template.to_owned()).ok();
            let filled = tag.map(|tag| String::from(tag.filled(words)));
            assert_eq!(filled.as_deref(), expected, "{template:?}");
        }
    }
}
