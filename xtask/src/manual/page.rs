//! The manual page, in man(7)'s macros.

use std::fmt::Write as _;

use super::{Command, Line, line};

/// `kobune(1)`: the overview, then each command that has a text of its own.
pub(super) fn page(overview: &str, commands: &[Command]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(
        ".TH KOBUNE 1 \"\" \"kobune {version}\" \"User commands\"\n.SH NAME\nkobune \\- edge \
         container agent\n.SH SYNOPSIS\n.B kobune\n.RI [ OPTIONS ]\n.I COMMAND\n.SH DESCRIPTION\n"
    );
    body(&mut page, overview, ".SH");
    let mut shown: Vec<&str> = Vec::new();
    for command in commands {
        let Some(text) = command.text.filter(|text| !shown.contains(text)) else {
            continue;
        };
        shown.push(text);
        let sharing = commands.iter().filter(|other| other.text == Some(text));
        let names: Vec<&str> = sharing.map(|command| command.name).collect();
        let _ = writeln!(page, ".SH \"KOBUNE {}\"", names.join(", ").to_uppercase());
        body(&mut page, text, ".SS");
    }
    page.push_str(FILES);
    page
}

const FILES: &str = "\
.SH FILES
.TP
.I /etc/kobune/config.toml
the configuration, described in
.I /usr/share/doc/kobune/configuration.md
.TP
.I /var/lib/kobune
layers, images, volumes, logs and the deployment
.TP
.I /run/kobune/kobune.sock
the daemon's socket
";

fn body(page: &mut String, text: &str, heading: &str) {
    let mut after_usage = false;
    for text in text.lines() {
        let line = line(text);
        let usage = matches!(line, Line::Usage(_));
        match line {
            Line::Empty if after_usage => {}
            Line::Empty => page.push_str(".PP\n"),
            Line::Usage(text) => {
                let _ = writeln!(page, ".PP\n\\fB{}\\fR", escape(text));
            }
            Line::Heading(text) => {
                trim_paragraph(page);
                let _ = writeln!(page, "{heading} \"{}\"", escape(text));
            }
            Line::Entry(left, right) => {
                trim_paragraph(page);
                let _ = writeln!(page, ".TP\n\\fB{}\\fR", escape(left));
                if !right.is_empty() {
                    let _ = writeln!(page, "{}", escape(right));
                }
            }
            Line::More(text) | Line::Text(text) => {
                let _ = writeln!(page, "{}", escape(text));
            }
        }
        after_usage = usage;
    }
    trim_paragraph(page);
}

/// A paragraph that is followed by a macro which begins one itself is a mistake.
fn trim_paragraph(page: &mut String) {
    while page.ends_with("\n.PP\n") {
        page.truncate(page.len() - ".PP\n".len());
    }
}

/// Text as roff has it: literal hyphens, and no line that begins with a macro's sign.
fn escape(text: &str) -> String {
    let text = text
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq")
        .replace('`', "\\(ga");
    match text.starts_with('.') {
        true => format!("\\&{text}"),
        false => text,
    }
}
