//! Where what is copied goes: docker's rules, without the files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use kobune_runtime::copy::{FileKind, FileStat, names_content, names_directory};

/// A copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// What is packed.
    pub(super) source: PathBuf,
    /// The directory that gets it.
    pub(super) into: PathBuf,
    /// Its name there, if it is another.
    pub(super) rename: Option<OsString>,
}

impl Plan {
    /// Of source and target, each as given and as found.
    pub(super) fn make(
        (source, found): (&Path, &FileStat),
        (target, there): (&Path, &FileStat),
    ) -> Result<Self, String> {
        let kind = found
            .kind
            .ok_or_else(|| format!("{}: no such file or directory", source.display()))?;
        let is_directory = kind == FileKind::Directory;
        let renamed = |source: &Path| {
            let into = there.path.parent().unwrap_or(Path::new("/"));
            Ok(Self {
                source: source.to_owned(),
                into: into.to_owned(),
                rename: there.path.file_name().map(ToOwned::to_owned),
            })
        };
        match there.kind {
            Some(FileKind::Directory) => Ok(Self {
                source: source.to_owned(),
                into: there.path.clone(),
                rename: None,
            }),
            Some(_) if is_directory => Err(format!(
                "{} is a directory, {} is not",
                source.display(),
                target.display()
            )),
            None if !is_directory && names_directory(target) => {
                Err(format!("{}: no such directory", target.display()))
            }
            // Its content under a name of its own: the directory itself.
            None if names_content(source) => renamed(&found.path),
            _ => renamed(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_as_docker_has_them() {
        use FileKind::{Directory, File};
        // Source, its kind, target, its kind; then what is packed, where to, under which name.
        type Case = (
            &'static str,
            FileKind,
            &'static str,
            Option<FileKind>,
            (&'static str, &'static str, Option<&'static str>),
        );
        let cases: [Case; 8] = [
            ("/s/f", File, "/t", None, ("/s/f", "/", Some("t"))),
            ("/s/f", File, "/t/x", Some(File), ("/s/f", "/t", Some("x"))),
            ("/s/f", File, "/t", Some(Directory), ("/s/f", "/t", None)),
            ("/s", Directory, "/t", None, ("/s", "/", Some("t"))),
            ("/s", Directory, "/t", Some(Directory), ("/s", "/t", None)),
            ("/s/.", Directory, "/t", None, ("/s", "/", Some("t"))),
            (
                "/s/.",
                Directory,
                "/t",
                Some(Directory),
                ("/s/.", "/t", None),
            ),
            ("/s", Directory, "/t/", None, ("/s", "/", Some("t"))),
        ];
        let stat = |path: &str, kind| FileStat {
            path: Path::new(path).components().collect(),
            kind,
        };
        for (source, kind, target, there, (packed, into, rename)) in cases {
            let plan = Plan::make(
                (Path::new(source), &stat(source, Some(kind))),
                (Path::new(target), &stat(target, there)),
            );
            let expected = Plan {
                source: packed.into(),
                into: into.into(),
                rename: rename.map(Into::into),
            };
            assert_eq!(plan, Ok(expected), "{source} to {target}");
        }
        for (source, kind, target, there) in [
            ("/s", None, "/t", None),
            ("/s", Some(Directory), "/t", Some(File)),
            ("/s", Some(File), "/t/", None),
        ] {
            Plan::make(
                (Path::new(source), &stat(source, kind)),
                (Path::new(target), &stat(target, there)),
            )
            .unwrap_err();
        }
    }
}
