//! Names in archives: splitting and refusing them, without touching a disk.

use super::error::UnpackError;

/// The kernel's `PATH_MAX`.
pub(crate) const MAX_PATH: usize = 4096;
/// The kernel's `NAME_MAX`.
const MAX_COMPONENT: usize = 255;

/// The prefix of whiteout entries (OCI image specification, layer.md).
const WHITEOUT: &[u8] = b".wh.";
/// Marks its directory as opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The prefix of AUFS's own bookkeeping, which has no meaning elsewhere.
const AUFS: &[u8] = b".wh..wh.";

/// What the last component of a name asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Leaf<'a> {
    /// An entry of this name.
    Entry(&'a [u8]),
    /// That this name of lower layers disappears.
    Whiteout(&'a [u8]),
    /// That everything in this directory in lower layers disappears.
    Opaque,
    /// Nothing: AUFS bookkeeping.
    Ignored,
}

/// Splits a name into its components, relative to the root of the layer: a leading `/`, empty
/// components and `.` are dropped. The root itself has no components.
pub(crate) fn components(path: &[u8]) -> Result<Vec<&[u8]>, UnpackError> {
    if path.len() > MAX_PATH {
        return Err(UnpackError::Limit {
            name: super::error::lossy(&path[..MAX_COMPONENT]),
            what: "name length",
            limit: MAX_PATH as u64,
        });
    }
    if path.contains(&0) {
        return Err(UnpackError::name(path, "it contains a NUL byte"));
    }
    let mut kept = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(UnpackError::name(path, "it contains `..`")),
            long if long.len() > MAX_COMPONENT => {
                return Err(UnpackError::Limit {
                    name: super::error::lossy(path),
                    what: "length of one component",
                    limit: MAX_COMPONENT as u64,
                });
            }
            good => kept.push(good),
        }
    }
    Ok(kept)
}

/// Reads whiteout markers. `path` is only for the error.
pub(crate) fn leaf<'a>(name: &'a [u8], path: &[u8]) -> Result<Leaf<'a>, UnpackError> {
    if name == OPAQUE {
        return Ok(Leaf::Opaque);
    }
    if name.starts_with(AUFS) {
        return Ok(Leaf::Ignored);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(Leaf::Entry(name)),
        Some(b"" | b"." | b"..") => Err(UnpackError::name(path, "it is a whiteout of no file")),
        Some(hidden) => Ok(Leaf::Whiteout(hidden)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_relative_components() {
        let cases: &[(&[u8], &[&[u8]])] = &[
            (b"", &[]),
            (b"./", &[]),
            (b"/", &[]),
            (b"a", &[b"a"]),
            (b"./a//b/", &[b"a", b"b"]),
            (b"/etc/passwd", &[b"etc", b"passwd"]),
            (b"a/.../b", &[b"a", b"...", b"b"]),
            (b"\xff\xfe", &[b"\xff\xfe"]),
        ];
        for (path, expected) in cases {
            assert_eq!(components(path).expect("good"), *expected, "{path:?}");
        }
    }

    #[test]
    fn escaping_and_impossible_names_are_refused() {
        let long = vec![b'a'; 256];
        let deep = b"a/".repeat(2049);
        for path in [
            b"..".as_slice(),
            b"a/../b",
            b"/..",
            b"a/..",
            b"a\0b",
            &long,
            &deep,
        ] {
            let error = components(path).expect_err("refused");
            assert!(error.is_content(), "{error}");
        }
    }

    #[test]
    fn whiteouts_are_told_from_entries() {
        let cases: &[(&[u8], Leaf<'_>)] = &[
            (b"a", Leaf::Entry(b"a")),
            (b".wh", Leaf::Entry(b".wh")),
            (b"x.wh.y", Leaf::Entry(b"x.wh.y")),
            (b".wh.a", Leaf::Whiteout(b"a")),
            (b".wh..hidden", Leaf::Whiteout(b".hidden")),
            (b".wh..wh..opq", Leaf::Opaque),
            (b".wh..wh.plnk", Leaf::Ignored),
            (b".wh..wh.aufs", Leaf::Ignored),
        ];
        for (name, expected) in cases {
            assert_eq!(leaf(name, name).expect("good"), *expected);
        }
        for name in [b".wh.".as_slice(), b".wh..", b".wh..."] {
            leaf(name, name).expect_err("a whiteout of nothing, of the directory or of its parent");
        }
    }
}
