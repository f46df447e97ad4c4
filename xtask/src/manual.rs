//! Manual page and shell completions: `cargo xtask manual DIR`. All of it comes from the
//! help texts of the command line; nothing is said here that they do not say.

#[path = "../../agent/src/cli/help.rs"]
mod help;

mod page;
mod shells;

use std::fs;
use std::path::Path;

/// A command of the command line, as its help has it.
#[derive(Debug)]
struct Command {
    name: &'static str,
    /// What follows the name, such as `NAME...`.
    arguments: &'static str,
    summary: String,
    /// Its own text; none where the overview says all.
    text: Option<&'static str>,
}

/// What a line of a help text is.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Empty,
    /// `Usage: ...`, and what stands below it.
    Usage(&'a str),
    /// Ends with a colon.
    Heading(&'a str),
    /// An option, command or word, and what it does.
    Entry(&'a str, &'a str),
    /// Goes on with what the entry before does.
    More(&'a str),
    Text(&'a str),
}

/// Indentation from which a line goes on with the description above it.
const DESCRIPTION: usize = 9;

fn line(text: &str) -> Line<'_> {
    let trimmed = text.trim_start();
    let indent = text.len() - trimmed.len();
    if trimmed.is_empty() {
        Line::Empty
    } else if let Some(usage) = trimmed.strip_prefix("Usage: ") {
        Line::Usage(usage)
    } else if trimmed.starts_with("kobune ") && indent > 0 {
        Line::Usage(trimmed)
    } else if indent >= DESCRIPTION {
        Line::More(trimmed)
    } else if indent > 0 {
        let (left, right) = trimmed.split_once("  ").unwrap_or((trimmed, ""));
        Line::Entry(left, right.trim())
    } else if let Some(heading) = trimmed.strip_suffix(':') {
        Line::Heading(heading)
    } else {
        Line::Text(trimmed)
    }
}

fn overview() -> &'static str {
    help::topic(None).text()
}

/// All commands, in the overview's order.
fn commands() -> Vec<Command> {
    let listed = overview()
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    let mut commands: Vec<Command> = Vec::new();
    for text in listed {
        match line(text) {
            Line::Entry(left, summary) => {
                let (name, arguments) = left.split_once(' ').unwrap_or((left, ""));
                let topic = help::topic(Some(name));
                commands.push(Command {
                    name,
                    arguments,
                    summary: summary.to_owned(),
                    text: (topic != help::topic(None)).then(|| topic.text()),
                });
            }
            Line::More(more) => {
                if let Some(last) = commands.last_mut() {
                    last.summary = format!("{} {more}", last.summary);
                }
            }
            _ => {}
        }
    }
    commands
}

impl Command {
    /// Its options, and those of every command.
    fn options(&self) -> Vec<&'static str> {
        let mut options = options(self.arguments);
        options.extend(self.text.map(options_of).unwrap_or_default());
        options.extend(options_of(overview()));
        options.sort_unstable();
        options.dedup();
        options
    }

    /// Words of which one has to follow, such as those of `config`.
    fn choices(&self) -> Vec<&'static str> {
        let first = self.arguments.split(' ').next().unwrap_or_default();
        let words = first.split('|');
        words
            .filter(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()))
            .collect()
    }

    /// Whether it works on modules.
    fn takes_modules(&self) -> bool {
        self.arguments.contains("NAME")
    }
}

/// Options that a help text's usage and entries name.
fn options_of(text: &'static str) -> Vec<&'static str> {
    let lines = text.lines().map(line);
    let named = lines.filter_map(|line| match line {
        Line::Usage(text) => Some(text),
        Line::Entry(left, _) if left.starts_with('-') => Some(left),
        _ => None,
    });
    named.flat_map(options).collect()
}

fn options(text: &'static str) -> Vec<&'static str> {
    text.split([' ', ',', '[', ']', '=', '|'])
        .filter(|word| word.starts_with('-') && word.len() > 1)
        .collect()
}

/// The files, by where they are installed below `/usr/share`.
pub(crate) fn files() -> [(&'static str, String); 4] {
    let commands = commands();
    [
        ("man/man1/kobune.1", page::page(overview(), &commands)),
        (
            "bash-completion/completions/kobune",
            shells::bash(&commands),
        ),
        ("zsh/vendor-completions/_kobune", shells::zsh(&commands)),
        (
            "fish/vendor_completions.d/kobune.fish",
            shells::fish(&commands),
        ),
    ]
}

/// Writes them below `dir`.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let [dir] = args else {
        return Err("usage: cargo xtask manual DIR".to_owned());
    };
    for (path, text) in files() {
        let path = Path::new(dir).join(path);
        let parent = path.parent().unwrap_or(&path);
        fs::create_dir_all(parent)
            .map_err(|error| format!("make {}: {error}", parent.display()))?;
        fs::write(&path, text).map_err(|error| format!("write {}: {error}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}
