//! Tables of the documentation that say by which test they are backed.

use std::fs;

use kobune_tests::root::repository;

/// `file:function` of every backed row, and how many rows there are.
fn backed(text: &str) -> (Vec<(&str, &str)>, usize) {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let rows: Vec<&str> = rows.filter(|line| !line.contains("| test |")).collect();
    let mut tests = Vec::new();
    for row in &rows {
        let named = row.split('`').skip(1).step_by(2);
        let named: Vec<_> = named.filter_map(|code| code.split_once(".rs:")).collect();
        assert!(!named.is_empty(), "no test is named in: {row}");
        tests.extend(named);
    }
    (tests, rows.len())
}

#[test]
fn every_cell_of_the_kernel_matrix_names_a_test_that_exists() {
    let root = repository();
    let text = fs::read_to_string(root.join("docs/kernels.md")).expect("the page");
    let (tests, rows) = backed(&text);
    assert!(rows > 20, "the tables are found: {rows}");
    for (file, function) in tests {
        let source = fs::read_to_string(root.join(format!("{file}.rs")));
        let source = source.unwrap_or_else(|error| panic!("{file}.rs: {error}"));
        let (before, _) = source
            .split_once(&format!("fn {function}("))
            .unwrap_or_else(|| panic!("{file}.rs has no {function}"));
        let attribute = before.trim_end().ends_with("#[test]");
        assert!(attribute, "{file}.rs: {function} is no test");
    }
}
