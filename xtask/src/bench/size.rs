//! Sizes of the programs that are installed.

use std::fs;

use kobune_tests::Programs;

use super::Table;

/// Debian's programs of the peers.
const PEERS: &[(&str, &[&str])] = &[
    (
        "docker",
        &[
            "/usr/sbin/dockerd",
            "/usr/bin/containerd",
            "/usr/bin/containerd-shim-runc-v2",
            "/usr/sbin/runc",
            "/usr/sbin/docker-proxy",
        ],
    ),
    (
        "containerd, runc",
        &[
            "/usr/bin/containerd",
            "/usr/bin/containerd-shim-runc-v2",
            "/usr/sbin/runc",
        ],
    ),
    (
        "podman, conmon, runc",
        &["/usr/bin/podman", "/usr/bin/conmon", "/usr/sbin/runc"],
    ),
    ("runc", &["/usr/sbin/runc"]),
    ("crun", &["/usr/bin/crun"]),
];

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
    for (peer, programs) in PEERS {
        let sizes = programs
            .iter()
            .map(|program| fs::metadata(program).map(|meta| meta.len()));
        match sizes.sum::<Result<u64, _>>() {
            Ok(size) => table.row(*peer, &[size as f64 / 1024.0]),
            Err(_) => table.note(format!("{peer} is not installed")),
        }
    }
    table.note("peers: the programs that start containers, without their clients where there are others, and without libraries");
    Ok(table)
}
