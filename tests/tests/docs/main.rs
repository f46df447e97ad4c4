//! The documentation is held to what it speaks of: its commands run, its options exist, its
//! tables name tests that are there.

mod blocks;
mod kernels;
mod pages;
mod words;

use std::fs;
use std::path::PathBuf;

use kobune_tests::root::repository;

/// Every page for users, by its path in the repository.
fn pages() -> Vec<(String, String)> {
    let docs = fs::read_dir(repository().join("docs")).expect("docs");
    let mut pages: Vec<PathBuf> = docs.flatten().map(|entry| entry.path()).collect();
    pages.retain(|path| path.extension().is_some_and(|kind| kind == "md"));
    pages.extend(["README.md", "CONTRIBUTING.md"].map(|name| repository().join(name)));
    pages.sort();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(repository()).expect("below");
        let text = fs::read_to_string(&path).expect("a page");
        (name.display().to_string(), text)
    };
    pages.into_iter().map(read).collect()
}
