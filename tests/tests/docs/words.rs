//! Commands that a page speaks of in its text: they exist, with these options.

use std::collections::BTreeMap;
use std::process::Command;

use kobune_tests::{CliOutput, Programs};

/// Commands in the text of `page`, between backquotes.
fn mentioned(page: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut inside_block = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            inside_block = !inside_block;
        } else if inside_block {
            found.push(line.trim());
        } else {
            found.extend(line.split('`').skip(1).step_by(2));
        }
    }
    let programs = ["kobune ", "kobune-hub "];
    found.retain(|text| programs.iter().any(|program| text.starts_with(program)));
    found
}

/// What `program help` says, with what it says of `command`.
fn help(program: &str, command: &str) -> String {
    let said = |words: &[&str]| {
        let mut run = Command::new(Programs::built().agent(program));
        CliOutput::of(run.args(words)).stdout
    };
    said(&["help"]) + &said(&["help", command])
}

/// Whether `help` has `word` as a word of its own.
fn has(help: &str, word: &str) -> bool {
    help.split(|c: char| !c.is_alphanumeric() && c != '-')
        .any(|found| found == word)
}

/// What is wrong with a command: of its words those that begin like an option, and the first.
fn unknown(text: &str, help: &str) -> Option<String> {
    let mut words = text.split_whitespace().skip(1);
    let command = words.next()?;
    let name = command.trim_end_matches(['.', ',']);
    if name.starts_with(|c: char| c.is_ascii_lowercase()) && !has(help, name) {
        return Some(format!("{text:?}: there is no {name}"));
    }
    // What comes after another program's name is that program's.
    let own = ["run", "exec"].contains(&name);
    let mut options =
        words.take_while(|word| !word.contains(['|', '#', '<', ';', '>']) && *word != "\\");
    let wrong = options.find(|word| {
        let option = word.trim_matches(['[', ']', '.', ',']);
        let option = option.split('=').next().unwrap_or_default();
        let long = option.starts_with("--") && option.len() > 2;
        let short = option.len() == 2 && option.starts_with('-');
        (long || short) && !has(help, option)
    });
    match wrong {
        Some(option) if !own || option.starts_with("--") => {
            Some(format!("{text:?}: there is no {option}"))
        }
        _ => None,
    }
}

#[test]
fn commands_that_pages_speak_of_exist() {
    let mut helps = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (name, text) in crate::pages() {
        for command in mentioned(&text) {
            let mut words = command.split_whitespace();
            let program = words.next().expect("a program").to_owned();
            let verb = words.next().unwrap_or_default().to_owned();
            let key = (program, verb);
            let help = helps
                .entry(key.clone())
                .or_insert_with(|| help(&key.0, &key.1));
            wrong.extend(unknown(command, help).map(|wrong| format!("{name}: {wrong}")));
            checked += 1;
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(checked > 80, "only {checked} commands were found");
}

#[test]
fn a_command_that_does_not_exist_is_noticed() {
    let help = "apply FILE\n  -f, --force  do it";
    assert_eq!(unknown("kobune apply -f --force x", help), None);
    for wrong in ["kobune aply", "kobune apply --forced", "kobune apply -x"] {
        assert!(unknown(wrong, help).is_some(), "{wrong}");
    }
}
