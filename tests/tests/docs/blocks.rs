//! Blocks of code in a page, and what may be done with them.
//!
//! A block says in its info string what it is:
//!
//! | | |
//! |---|---|
//! | `sh` | commands, which the page's test runs, one block after the other |
//! | `sh background` | the same, of commands that go on until they are ended |
//! | `sh not-run: REASON` | commands that no test runs from the page |
//! | `text` | what a program says |
//! | another language | a file |

use crate::pages;

/// A block of commands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Of its first command in the page, counted from 1.
    pub(crate) line: usize,
    pub(crate) how: How,
    pub(crate) text: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum How {
    Run,
    Background,
    /// Why not.
    NotRun(String),
}

/// Blocks of commands in `page`; a block that does not say what it is is an error.
pub(crate) fn commands(page: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let block = lines.by_ref().map(|(_, line)| line);
        let block = block.take_while(|line| !line.trim_start().starts_with("```"));
        let text: String = block
            .map(|line| format!("{}\n", line.get(indent..).unwrap_or_default()))
            .collect();
        let how = match info.trim() {
            "" => return Err(format!("line {}: a block of no kind", at + 1)),
            "sh" => How::Run,
            "sh background" => How::Background,
            info => match info.strip_prefix("sh not-run: ") {
                Some(reason) => How::NotRun(reason.to_owned()),
                None if info.starts_with("sh") || info.starts_with("console") => {
                    return Err(format!("line {}: {info:?}?", at + 1));
                }
                None => continue,
            },
        };
        blocks.push(Block {
            line: at + 2,
            how,
            text,
        });
    }
    Ok(blocks)
}

#[test]
fn blocks_say_what_they_are() {
    let page = "a\n```sh\nls\n```\n  ```sh not-run: later\n  rm\n  ```\n```toml\n[a]\n```\n";
    let found = commands(page).expect("blocks");
    let not_run = How::NotRun("later".to_owned());
    let expected = [(3, How::Run, "ls\n"), (6, not_run, "rm\n")];
    let expected = expected.map(|(line, how, text)| Block {
        line,
        how,
        text: text.to_owned(),
    });
    assert_eq!(found, expected);
    for wrong in ["```\nls\n```\n", "```sh later\nls\n```\n"] {
        let _ = commands(wrong).expect_err(wrong);
    }
}

#[test]
fn every_command_of_a_page_is_run_by_its_test_or_says_why_not() {
    let mut run = 0;
    for (name, text) in crate::pages() {
        let blocks = commands(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        for block in blocks {
            match block.how {
                How::NotRun(reason) => {
                    assert!(reason.len() > 10, "{name}, line {}: why?", block.line);
                }
                How::Run | How::Background => {
                    let tested = pages::TESTED.contains(&name.as_str());
                    assert!(tested, "{name}, line {}: no test runs this", block.line);
                    run += 1;
                }
            }
        }
    }
    assert!(run > 20, "only {run} blocks are run");
}
