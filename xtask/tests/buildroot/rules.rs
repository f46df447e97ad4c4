//! Buildroot's rules for the files of a package, as its manual and its `check-package` have them.
//!
//! Buildroot's own checker is part of Buildroot's source, which no registry carries; these are
//! its rules in our words, as far as files like ours can break them.

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Config,
    Defconfig,
    Hash,
    Makefile,
    /// A start script.
    Sysv,
}

impl Kind {
    /// By the name of the file.
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "Config.in" => Some(Self::Config),
            _ if name.ends_with("_defconfig") => Some(Self::Defconfig),
            _ if name.ends_with(".hash") => Some(Self::Hash),
            _ if name.ends_with(".mk") => Some(Self::Makefile),
            _ if name.starts_with('S') => Some(Self::Sysv),
            _ => None,
        }
    }
}

/// Everything that is wrong with a file, a line number first where there is one.
pub(crate) fn complaints(kind: Kind, name: &str, text: &str) -> Vec<String> {
    let mut found = common(text);
    found.extend(match kind {
        Kind::Config => config(text),
        Kind::Defconfig => defconfig(text),
        Kind::Hash => hash(text),
        Kind::Makefile => makefile(name, text),
        Kind::Sysv => sysv(name, text),
    });
    found
}

/// A complaint about the lines for which `wrong` holds.
fn lines(text: &str, what: &str, wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let lines = text.lines().enumerate().filter(|(_, line)| wrong(line));
    lines
        .map(|(at, line)| format!("{}: {what}: {line:?}", at + 1))
        .collect()
}

fn common(text: &str) -> Vec<String> {
    let mut found = lines(text, "trailing space", |line| line.trim_end() != line);
    found.extend(lines(text, "not ASCII", |line| !line.is_ascii()));
    if !text.ends_with('\n') {
        found.push("no newline at the end".to_owned());
    }
    if text.ends_with("\n\n") {
        found.push("empty last line".to_owned());
    }
    if text.contains("\n\n\n") {
        found.push("consecutive empty lines".to_owned());
    }
    found
}

fn defconfig(text: &str) -> Vec<String> {
    let forced = text
        .lines()
        .any(|line| line == "BR2_DOWNLOAD_FORCE_CHECK_HASHES=y");
    let missing = "BR2_DOWNLOAD_FORCE_CHECK_HASHES is not set".to_owned();
    (!forced).then_some(missing).into_iter().collect()
}

fn hash(text: &str) -> Vec<String> {
    let wrong = |line: &str| {
        let [kind, sum, file] = line.split("  ").collect::<Vec<_>>()[..] else {
            return true;
        };
        let length = match kind {
            "md5" => 32,
            "sha1" => 40,
            "sha224" => 56,
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => return true,
        };
        let digits = sum.bytes().all(|byte| byte.is_ascii_hexdigit());
        !digits || sum.len() != length || file.is_empty() || file.contains(' ')
    };
    lines(text, "not: type, 2 spaces, hash, 2 spaces, file", |line| {
        !line.is_empty() && !line.starts_with('#') && wrong(line)
    })
}

fn sysv(name: &str, text: &str) -> Vec<String> {
    let mut found = lines(text, "indented with spaces", |line| {
        line.trim_start_matches('\t').starts_with(' ')
    });
    let value = |variable: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(variable)?.strip_prefix('='));
        value.map(|value| value.trim_matches(['"', '\'']))
    };
    let daemon = value("DAEMON").unwrap_or_default();
    let number = name.get(1..3).unwrap_or_default();
    let numbered = number.len() == 2 && number.bytes().all(|byte| byte.is_ascii_digit());
    if daemon.is_empty() || !numbered || name.get(3..) != Some(daemon) {
        found.push(format!("{name} is not S, two digits and DAEMON={daemon}"));
    }
    let pid_file = value("PIDFILE");
    if pid_file.is_some_and(|file| file != "/var/run/$DAEMON.pid") {
        found.push("PIDFILE is not /var/run/$DAEMON.pid".to_owned());
    }
    found
}

/// Words that begin an entry of a `Config.in`, at the start of a line.
const ENTRIES: [&str; 10] = [
    "choice",
    "comment",
    "config",
    "endchoice",
    "endif",
    "endmenu",
    "if",
    "menu",
    "menuconfig",
    "source",
];

/// Attributes of an entry, one tab from it, in this order.
const ATTRIBUTES: [(&str, u8); 7] = [
    ("bool", 1),
    ("prompt", 1),
    ("string", 1),
    ("default", 2),
    ("depends", 3),
    ("select", 4),
    ("help", 5),
];

fn config(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut configs = Vec::new();
    let (mut last, mut help) = (0, false);
    for (at, line) in text.lines().enumerate() {
        let mut complain = |what: &str| found.push(format!("{}: {what}: {line:?}", at + 1));
        let word = line.split_whitespace().next().unwrap_or_default();
        if word.is_empty() || word.starts_with('#') {
            continue;
        }
        if line.starts_with("\t  ") {
            if help && line.chars().count() > 65 {
                complain("help of more than 62 characters");
            }
            continue;
        }
        if ENTRIES.contains(&word) {
            (last, help) = (0, false);
            if !line.starts_with(word) {
                complain("an entry that is indented");
            }
            if word == "config" && configs.contains(&line) {
                complain("declared twice");
            }
            configs.push(line);
        } else if help {
            complain("help is not a tab and two spaces from the margin");
        } else if let Some((_, order)) = ATTRIBUTES.iter().find(|(name, _)| *name == word) {
            if !line.starts_with(&format!("\t{word}")) {
                complain("an attribute that is not one tab from the margin");
            }
            if *order < last {
                complain("not in the order type, default, depends, select, help");
            }
            if line.trim() == "default n" {
                complain("n is the default anyway");
            }
            (last, help) = (*order, word == "help");
        }
    }
    found
}

fn makefile(name: &str, text: &str) -> Vec<String> {
    let package = name.trim_end_matches(".mk").replace('-', "_");
    let package = package.to_uppercase();
    let mut found = Vec::new();
    if !text.starts_with("include ") {
        found.extend(header(text));
    }
    found.extend(indentation(text));
    found.extend(variables(&package, text));
    found.extend(lines(text, "${} delimits a variable", |line| {
        let code = line.replace("$$", "");
        !line.starts_with('#') && code.contains("${")
    }));
    found.extend(lines(text, "not one space before the backslash", |line| {
        line.ends_with("  \\") || line.ends_with("\t\\")
    }));
    found.extend(lines(text, "what is the default anyway", |line| {
        let default = format!("{package}_SOURCE = {}-", package.to_lowercase());
        let flags = [
            "_INSTALL_IMAGES = NO",
            "_INSTALL_REDISTRIBUTE = YES",
            "_INSTALL_STAGING = NO",
            "_INSTALL_TARGET = YES",
        ];
        flags.iter().any(|flag| line.contains(flag)) || line.starts_with(&default)
    }));
    found
}

/// The five lines of the package's name, and an empty one.
fn header(text: &str) -> Vec<String> {
    let rule = "#".repeat(80);
    let lines: Vec<&str> = text.lines().take(6).collect();
    let right = match lines[..] {
        [first, "#", name, "#", last, ""] => first == rule && last == rule && name.len() > 2,
        _ => false,
    };
    let wrong = "no header between two lines of 80 #".to_owned();
    (!right).then_some(wrong).into_iter().collect()
}

/// Tabs begin what continues a line or is between `define` and `endef`, and nothing else.
fn indentation(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut define, mut continued) = (false, false);
    for (at, line) in text.lines().enumerate() {
        let mut complain = |what: &str| found.push(format!("{}: {what}: {line:?}", at + 1));
        let word = line.split_whitespace().next().unwrap_or_default();
        if word == "endef" {
            define = false;
        }
        if continued && word.is_empty() {
            complain("a backslash before an empty line");
        }
        let comment = word.starts_with('#');
        if !word.is_empty() && !comment && (define || continued) != line.starts_with('\t') {
            complain("tabs are for definitions and continued lines, and for these alone");
        }
        if word == "define" {
            define = true;
        }
        continued = !comment && line.ends_with('\\');
    }
    found
}

/// Every variable carries the package's name, and is set once.
fn variables(package: &str, text: &str) -> Vec<String> {
    let prefix = format!("{package}_");
    let mut found = Vec::new();
    let mut set: Vec<&str> = Vec::new();
    let mut conditions = 0_u32;
    for (at, line) in text.lines().enumerate() {
        let mut complain = |what: &str| found.push(format!("{}: {what}: {line:?}", at + 1));
        match line.split_whitespace().next() {
            Some("ifdef" | "ifeq" | "ifndef" | "ifneq") => conditions += 1,
            Some("endif") => conditions = conditions.saturating_sub(1),
            _ => {}
        }
        let assigned = line.strip_prefix("define ").unwrap_or(line);
        let end =
            assigned.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_');
        let (name, rest) = assigned.split_at(end.unwrap_or(assigned.len()));
        let defined = line.starts_with("define ");
        let operator = rest.trim_start();
        let replaces = operator.starts_with('=') || operator.starts_with(":=");
        if !name.contains('_') || !(defined || replaces || operator.starts_with("+=")) {
            continue;
        }
        if !name.starts_with(&prefix) && name != "BR_NO_CHECK_HASH_FOR" {
            complain("a variable without the package's name");
        }
        if (defined || replaces) && set.contains(&name) && conditions == 0 {
            complain("a variable that is set already");
        }
        set.push(name);
    }
    found
}
