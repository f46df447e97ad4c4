//! What the agent keeps of memory while it has nothing to do.
//!
//! The agent's own code is most of it: the kernel maps what is run, and sixteen pages around
//! each of them, and leaves them mapped. Code that ran once, to read a deployment or to shake
//! hands with a hub, so counts for ever, and while a page is mapped the kernel takes it for
//! used. Unmapped it is a clean page of a file like any other: what is needed again costs a
//! fault, and where memory is short the rest goes first.

use std::ops::Range;
use std::sync::OnceLock;
use std::time::Duration;

use crate::sys;

/// After it the threads of a burst of work have ended, too.
const AWHILE: Duration = Duration::from_secs(3);

/// Mappings of the program and its libraries that hold what the files hold.
static PROGRAM: OnceLock<Vec<Range<usize>>> = OnceLock::new();

/// Sets the allocator up, and notes where the program is. To be called once, before there are
/// threads: what is mapped by then stays for as long as the process lives.
pub(crate) fn prepare() {
    sys::limit_allocator();
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let _ = PROGRAM.set(clean_files(&smaps));
}

/// Waits for `time`. Memory is given back once nothing has happened for a while.
pub(crate) async fn rest(time: Duration) {
    let rest = time.checked_sub(AWHILE);
    tokio::time::sleep(time.min(AWHILE)).await;
    if let Some(rest) = rest {
        release();
        tokio::time::sleep(rest).await;
    }
}

/// Gives back what a burst of work used: unused memory of the allocator, and mapped code.
fn release() {
    sys::trim_allocator();
    for range in PROGRAM.get().into_iter().flatten() {
        sys::unmap_clean(range);
    }
}

/// The mappings of files in `smaps` (proc(5)) that cannot be written to and hold no page that
/// was changed, as those are that the dynamic linker wrote to before it protected them.
fn clean_files(smaps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        match line.strip_prefix("Anonymous:") {
            Some(amount) if amount.trim() == "0 kB" => found.extend(candidate.take()),
            Some(_) => candidate = None,
            None => candidate = file_mapping(line).or(candidate),
        }
    }
    found
}

/// The addresses in the first line of a mapping, if it is of a file and not writable.
fn file_mapping(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (permissions, inode) = (fields.next()?, fields.nth(2)?);
    let is_file = permissions.ends_with('p') && inode != "0";
    let address = |text| usize::from_str_radix(text, 16).ok();
    (is_file && !permissions.contains('w')).then_some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
00400000-00500000 r-xp 00001000 fe:00 1234       /usr/bin/kobune
Size:               1024 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00500000-00510000 r--p 00101000 fe:00 1234       /usr/bin/kobune
Anonymous:            64 kB
00510000-00520000 rw-p 00111000 fe:00 1234       /usr/bin/kobune
Anonymous:             0 kB
7f0000000000-7f0000001000 r--p 00000000 00:00 0
Anonymous:             0 kB
7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0  [vdso]
Anonymous:             0 kB
";

    #[test]
    fn only_unchanged_mappings_of_files_are_clean() {
        let code = 0x0040_0000..0x0050_0000;
        assert_eq!(clean_files(SMAPS), vec![code]);
        assert!(clean_files("").is_empty());
        assert!(clean_files("xx-yy r-xp 0 0 7\nAnonymous: 0 kB\n").is_empty());
    }

    #[test]
    fn code_that_was_unmapped_runs_again() {
        prepare();
        release();
        assert!(!PROGRAM.get().unwrap().is_empty());
        assert_eq!(clean_files(SMAPS).len(), 1);
    }
}
