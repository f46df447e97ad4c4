//! The directories an archive listed, in little memory: a path costs what it does not share with the
//! one before.

use super::archive::Time;

/// Directories in the order of the archive, with mode and time.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// What each path adds to the beginning it shares with the path before.
    endings: Vec<u8>,
    directories: Vec<Directory>,
    last: Vec<u8>,
}

#[derive(Debug)]
struct Directory {
    time: Time,
    mode: u16,
    shared: u16,
    ending: u16,
}

/// Gives them back one by one.
#[derive(Debug)]
pub(super) struct Paths {
    listed: Listed,
    next: usize,
    position: usize,
    path: Vec<u8>,
}

impl Listed {
    /// Adds a directory; paths are shorter than 4096 bytes, modes have 12 bits.
    pub(super) fn push(&mut self, path: &[u8], mode: u32, time: Time) {
        let pairs = path.iter().zip(&self.last);
        let shared = pairs.take_while(|(one, other)| one == other).count();
        let ending = &path[shared..];
        self.endings.extend_from_slice(ending);
        let short = |number: usize| u16::try_from(number).expect("invariant: paths are short");
        self.directories.push(Directory {
            time,
            mode: short(mode as usize & 0o7777),
            shared: short(shared),
            ending: short(ending.len()),
        });
        self.last.truncate(shared);
        self.last.extend_from_slice(ending);
    }

    /// Bytes it takes.
    pub(super) fn memory(&self) -> usize {
        self.endings.len() + self.directories.len() * size_of::<Directory>()
    }

    pub(super) fn into_iter(self) -> Paths {
        Paths {
            listed: self,
            next: 0,
            position: 0,
            path: Vec::new(),
        }
    }
}

impl Paths {
    /// The next directory: path, mode, time.
    pub(super) fn next(&mut self) -> Option<(&[u8], u32, Time)> {
        let directory = self.listed.directories.get(self.next)?;
        let end = self.position + usize::from(directory.ending);
        self.path.truncate(directory.shared.into());
        self.path
            .extend_from_slice(&self.listed.endings[self.position..end]);
        self.position = end;
        self.next += 1;
        Some((&self.path, directory.mode.into(), directory.time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(paths in proptest::collection::vec("[ab/]{0,6}", 0..20)) {
            let time = |seconds| Time { seconds, nanoseconds: 0 };
            let mut listed = Listed::default();
            for (path, number) in paths.iter().zip(0..) {
                listed.push(path.as_bytes(), 0o2755, time(number));
            }
            let mut out = listed.into_iter();
            for (path, number) in paths.iter().zip(0..) {
                prop_assert_eq!(out.next(), Some((path.as_bytes(), 0o2755, time(number))));
            }
            prop_assert_eq!(out.next(), None);
        }
    }
}
