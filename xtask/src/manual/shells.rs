//! Completions for bash, zsh and fish: commands, their options, and names of modules.

use std::fmt::Write as _;

use super::Command;

/// Prints the names of the modules, nothing where no daemon answers.
const MODULES: &str = "kobune list 2>/dev/null | sed -n '2,$s/ .*//p'";

/// What follows the command: fixed words, then a shell's way to insert the modules' names.
fn words(command: &Command, modules: &str) -> String {
    let mut words = command.choices();
    words.extend(command.options());
    let mut words = words.join(" ");
    if command.takes_modules() {
        let _ = write!(words, " {modules}");
    }
    words
}

pub(super) fn bash(commands: &[Command]) -> String {
    let names: Vec<&str> = commands.iter().map(|command| command.name).collect();
    let mut cases = String::new();
    for command in commands {
        let words = words(command, &format!("$({MODULES})"));
        let _ = writeln!(cases, "\t{}) words=\"{words}\" ;;", command.name);
    }
    format!(
        "# bash completion of kobune(1)\n\
         _kobune() {{\n\
         \tlocal current=${{COMP_WORDS[COMP_CWORD]}} words\n\
         \tlocal command=${{COMP_WORDS[1]}}\n\
         \t((COMP_CWORD > 1)) || command=\n\
         \tcase $command in\n\
         \t'') words=\"{}\" ;;\n\
         {cases}\
         \t*) words= ;;\n\
         \tesac\n\
         \tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n\
         }}\n\
         complete -o default -F _kobune kobune\n",
        names.join(" ")
    )
}

pub(super) fn zsh(commands: &[Command]) -> String {
    let mut described = String::new();
    let mut cases = String::new();
    for command in commands {
        let summary = quote(&command.summary.replace(':', "\\:"));
        let _ = writeln!(described, "\t'{}:{summary}'", command.name);
        let words = words(command, &format!("$({MODULES})"));
        let _ = writeln!(cases, "{}) compadd -- {words} ;;", command.name);
    }
    format!(
        "#compdef kobune\n\
         local -a commands=(\n{described})\n\
         if ((CURRENT == 2)); then\n\
         \t_describe command commands\n\
         \treturn\n\
         fi\n\
         case $words[2] in\n{cases}esac\n_files\n"
    )
}

pub(super) fn fish(commands: &[Command]) -> String {
    let mut script = "# fish completion of kobune(1)\n".to_owned();
    for command in commands {
        let name = command.name;
        let _ = writeln!(
            script,
            "complete -c kobune -f -n __fish_use_subcommand -a {name} -d '{}'",
            quote(&command.summary)
        );
        let seen = format!("complete -c kobune -n '__fish_seen_subcommand_from {name}'");
        for option in command.options() {
            let kind = if option.starts_with("--") { "-l" } else { "-s" };
            let _ = writeln!(script, "{seen} {kind} {}", option.trim_start_matches('-'));
        }
        for choice in command.choices() {
            let _ = writeln!(script, "{seen} -f -a {choice}");
        }
        if command.takes_modules() {
            let modules = MODULES.replace('$', "\\$");
            let _ = writeln!(script, "{seen} -f -a \"({modules})\"");
        }
    }
    script
}

/// Text within single quotes, as all three shells take it.
fn quote(text: &str) -> String {
    text.replace('\'', "'\\''")
}
