//! Kernel parameters of the container's namespaces.

use std::collections::HashMap;

use super::{SpecError, SpecNetwork, SpecRequest};
use crate::options::IpcMode;

/// Parameters of an IPC namespace; the others under `kernel.` are the whole host's.
const IPC: [&str; 10] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.msg_next_id",
    "kernel.sem",
    "kernel.sem_next_id",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Which groups may ping, as the ids of two: those of whoever writes them.
pub const PING_GROUPS: &str = "net.ipv4.ping_group_range";

/// Docker's two, and the options', which win. In a network namespace of its own a container
/// needs no capability to listen on low ports or to ping.
pub(super) fn sysctls(request: &SpecRequest<'_>) -> Result<HashMap<String, String>, SpecError> {
    let mut sysctls = HashMap::new();
    if owns_network(request) {
        let mut set = |key: &str, value: &str| sysctls.insert(key.to_owned(), value.to_owned());
        // As many as there are: ids of a user namespace end earlier.
        let last = request
            .users
            .map_or(i32::MAX.unsigned_abs(), |users| users.range.size - 1);
        set(PING_GROUPS, &format!("0 {last}"));
        if request.facts.unprivileged_port_sysctl {
            set("net.ipv4.ip_unprivileged_port_start", "0");
        }
    }
    for (name, value) in &request.options.sysctls {
        if let Some(reason) = refusal(request, name) {
            let name = name.clone();
            return Err(SpecError::Sysctl { name, reason });
        }
        sysctls.insert(name.replace('/', "."), value.clone());
    }
    Ok(sysctls)
}

/// Neither the host's nor another container's, which has set its own.
fn owns_network(request: &SpecRequest<'_>) -> bool {
    let other = matches!(
        request.options.network,
        crate::NetworkMode::Host | crate::NetworkMode::Container(_)
    );
    request.network != SpecNetwork::Host && !other
}

fn refusal(request: &SpecRequest<'_>, name: &str) -> Option<&'static str> {
    let name = name.replace('/', ".");
    let ipc = IPC.contains(&name.as_str()) || name.starts_with("fs.mqueue.");
    let own_ipc = matches!(
        request.options.namespaces.ipc,
        IpcMode::None | IpcMode::Private | IpcMode::Shareable
    );
    let climbs = name.contains("..") || name.contains('\0');
    match name.strip_prefix("net.") {
        _ if climbs => Some("it is no name of a parameter"),
        Some(_) if owns_network(request) => None,
        Some(_) => Some("it shares its network namespace"),
        None if ipc && own_ipc => None,
        None if ipc => Some("it shares its IPC namespace"),
        None => Some("it is the whole host's"),
    }
}
