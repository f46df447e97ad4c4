//! The table against Docker's API, against the parser, and against the documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use super::super::tests::{Read, read};
use super::*;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/create-options.md");
const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/tests");
const BEGIN: &str =
    "<!-- The table is written by `UPDATE_DOCS=1 cargo test -p kobune create_options`. -->\n";
const END: &str = "<!-- End of the table. -->\n";

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with('#'))
}

#[test]
fn every_field_of_the_api_has_one_row() {
    let mut seen = BTreeSet::new();
    for row in rows() {
        assert!(seen.insert(row.field), "{} twice", row.field);
    }
    let api: BTreeSet<&str> = lines(include_str!("api.txt")).collect();
    let missing: Vec<_> = api.difference(&seen).collect();
    let unknown: Vec<_> = seen.difference(&api).collect();
    assert_eq!((missing, unknown), (vec![], vec![]));
}

#[test]
fn a_row_that_is_not_honoured_says_why() {
    for row in rows().filter(|row| row.effect != Effect::Honoured) {
        assert!(!row.note.is_empty(), "{}", row.field);
    }
}

/// A row says what a module gets, so a test asks one: it is there, and it is about the field.
#[test]
fn every_honoured_field_has_a_test_that_sees_its_effect() {
    let effect = |line: &'static str| line.split_once(" => ").expect(line);
    let effects: BTreeMap<&str, &str> = lines(include_str!("effects.txt")).map(effect).collect();
    let honoured = rows().filter(|row| row.effect == Effect::Honoured);
    let honoured: BTreeSet<&str> = honoured.map(|row| row.field).collect();
    let named: BTreeSet<&str> = effects.keys().copied().collect();
    let without: Vec<_> = honoured.difference(&named).collect();
    let needless: Vec<_> = named.difference(&honoured).collect();
    assert_eq!((without, needless), (vec![], vec![]));
    for (field, test) in effects {
        let (file, name) = test.split_once("::").expect(test);
        let text = fs::read_to_string(format!("{TESTS}/{file}.rs"));
        let text = text.unwrap_or_else(|error| panic!("{field}: {file}: {error}"));
        let head = text.split_once(&format!("fn {name}() {{\n"));
        let (before, _) = head.unwrap_or_else(|| panic!("{field}: there is no {test}"));
        assert!(before.trim_end().ends_with("#[test]"), "{test} is no test");
        let word = field.rsplit('.').next().unwrap_or(field);
        let word = format!("\"{}\"", word.trim_end_matches("[]"));
        assert!(text.contains(&word), "{file} does not say {word}");
    }
}

/// Fields with createOptions that have them.
fn examples() -> Vec<(&'static Row, Value)> {
    let text = include_str!("examples.txt");
    let example = |line: &str| {
        let (field, options) = line.split_once(" => ").expect(line);
        let row = find(field).expect(line);
        assert_eq!(row.field, field);
        (row, serde_json::from_str(options).expect(line))
    };
    lines(text).map(example).collect()
}

/// `options` without the field.
fn without(options: &Value, field: &str) -> Value {
    let mut options = options.clone();
    let (parents, name) = field.rsplit_once('.').unwrap_or(("", field));
    let mut at = &mut options;
    for part in parents.split('.').filter(|part| !part.is_empty()) {
        let (name, is_list) = part
            .strip_suffix("[]")
            .map_or((part, false), |name| (name, true));
        at = match name {
            "*" => at.as_object_mut().unwrap().values_mut().next().unwrap(),
            name => &mut at[name],
        };
        if is_list {
            at = &mut at[0];
        }
    }
    let members = at.as_object_mut().unwrap_or_else(|| panic!("no {field}"));
    assert!(members.remove(name).is_some(), "the example lacks {field}");
    options
}

#[test]
fn every_row_is_what_the_parser_does() {
    let examples = examples();
    for row in rows() {
        let own = examples.iter().find(|(other, _)| other.field == row.field);
        let (_, options) = own.unwrap_or_else(|| panic!("no example of {}", row.field));
        let with = read(options);
        let less = read(&without(options, row.field));
        assert_eq!(with.faults, [""; 0], "{}", row.field);
        match row.effect {
            Effect::Honoured => {
                assert_eq!(
                    (&with.warnings, &with.refusals),
                    (&vec![], &vec![]),
                    "{}",
                    row.field
                );
                let differs = with.options != less.options || !less.faults.is_empty();
                let is_default = row.field.ends_with("ReadOnlyNonRecursive")
                    || row.field.ends_with("DriverConfig.Name");
                assert!(differs != is_default, "{} changes nothing", row.field);
            }
            Effect::None => {
                assert_eq!(with.options, less.options, "{}", row.field);
                assert!(with.refusals.is_empty(), "{}", row.field);
                told(row, &with.warnings);
            }
            Effect::Refused => told(row, &with.refusals),
        }
    }
}

/// One sentence about the field, or what it is in, that ends with the row's note.
fn told(row: &Row, lines: &[String]) {
    let [line] = lines else {
        panic!("{}: {lines:?}", row.field);
    };
    let (place, message) = line.split_once(' ').unwrap();
    let place = place.replace("[0]", "[]").replace(".azure-iot-edge", ".*");
    assert!(row.field.starts_with(&place), "{}: {place}", row.field);
    assert!(message.ends_with(row.note), "{}: {message}", row.field);
}

#[test]
fn case_does_not_matter_and_nothing_says_nothing() {
    for (row, options) in examples() {
        let lower = lowered(&options);
        assert_eq!(
            read(&lower).options,
            read(&options).options,
            "{}",
            row.field
        );
    }
    for row in rows().filter(|row| !row.field.contains(['[', '*'])) {
        let mut options = json!(null);
        for name in row.field.rsplit('.') {
            options = json!({ name: options });
        }
        assert_eq!(read(&options), Read::default(), "{}", row.field);
    }
}

/// Field names in lower case; names that are data stay.
fn lowered(value: &Value) -> Value {
    const DATA: [&str; 12] = [
        "labels",
        "annotations",
        "sysctls",
        "tmpfs",
        "portbindings",
        "endpointsconfig",
        "exposedports",
        "volumes",
        "config",
        "options",
        "storageopt",
        "driveropts",
    ];
    match value {
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| {
                let lower = name.to_ascii_lowercase();
                let value = match (DATA.contains(&lower.as_str()), value) {
                    (true, Value::Object(data)) => {
                        let data = data.iter();
                        data.map(|(name, value)| (name.clone(), lowered(value)))
                            .collect()
                    }
                    _ => lowered(value),
                };
                (lower, value)
            };
            Value::Object(members.iter().map(member).collect())
        }
        Value::Array(items) => items.iter().map(lowered).collect(),
        other => other.clone(),
    }
}

#[test]
fn the_documentation_is_the_table() {
    let text = fs::read_to_string(DOCUMENT).unwrap();
    let (head, rest) = text.split_once(BEGIN).expect("the table begins");
    let (_, tail) = rest.split_once(END).expect("the table ends");
    let expected = format!("{head}{BEGIN}\n{}\n{END}{tail}", markdown());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(DOCUMENT, &expected).unwrap();
    }
    let written = fs::read_to_string(DOCUMENT).unwrap();
    assert!(
        written == expected,
        "docs/create-options.md is not of this table"
    );
}
