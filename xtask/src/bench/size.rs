//! Sizes of the programs that are installed.

use std::fs;

use kobune_tests::Programs;

use super::Table;

pub(super) fn run() -> Result<Table, String> {
    let mut table = Table::new("size", &["KiB"]);
    let mut all = 0.0;
    for name in ["kobune", "kobune-shim", "kobune-monitor"] {
        let path = Programs::built().agent(name);
        let meta = fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let size = meta.len() as f64 / 1024.0;
        table.row(name, &[size]);
        all += size;
    }
    table.row("all", &[all]);
    Ok(table)
}
