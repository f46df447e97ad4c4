//! `Ulimits`, `Sysctls`, `ShmSize` and `OomScoreAdj`.

use kobune_runtime::{ContainerOptions, Ulimit};

use super::super::fields::{Fault, Fields, Findings, Node};
use super::unread;

pub(super) fn parse(host: &mut Fields<'_>, parsed: &mut ContainerOptions, findings: &mut Findings) {
    for item in findings
        .read(host.take("ulimits"), Node::list)
        .unwrap_or_default()
    {
        parsed.ulimits.extend(ulimit(&item, findings));
    }
    let sysctls = findings.read(host.take("sysctls"), Node::entries);
    for (name, node) in sysctls.into_iter().flatten() {
        if let Some(value) = findings.accept(node.text()) {
            parsed.sysctls.insert(name.to_owned(), value);
        }
    }
    parsed.shm_size = findings
        .read(host.take("shmsize"), |node| {
            u64::try_from(node.integer()?).map_err(|_| node.fault("must be 0 or more bytes"))
        })
        .filter(|bytes| *bytes > 0);
    parsed.oom_score_adj = findings
        .read(host.take("oomscoreadj"), |node| {
            let score = i32::try_from(node.integer()?).ok();
            let score = score.filter(|score| (-1000..=1000).contains(score));
            score.ok_or_else(|| node.fault("must be from -1000 to 1000"))
        })
        .filter(|score| *score != 0);
}

fn ulimit(node: &Node<'_>, findings: &mut Findings) -> Option<Ulimit> {
    let mut fields = findings.accept(node.object())?;
    let name = findings.accept(fields.require("Name"))?;
    let name = findings.accept(name.text())?.to_ascii_lowercase();
    let soft = findings.read(fields.take("soft"), limit);
    let hard = findings.read(fields.take("hard"), limit);
    unread::report(fields, "HostConfig.Ulimits[]", findings);
    // One alone is both, as docker's command line has it.
    let soft_or_hard = soft.or(hard).unwrap_or(Some(0));
    Some(Ulimit {
        name,
        soft: soft_or_hard,
        hard: hard.unwrap_or(soft_or_hard),
    })
}

/// -1 is unlimited.
fn limit(node: &Node<'_>) -> Result<Option<u64>, Fault> {
    match node.integer()? {
        -1 => Ok(None),
        number => u64::try_from(number)
            .map(Some)
            .map_err(|_| node.fault("must be -1 or more")),
    }
}
