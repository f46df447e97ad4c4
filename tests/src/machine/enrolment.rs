//! A virtual device at a hub: enrolled as its owner does it, with a connection string.

use std::fs;

use super::{HOST, Machine};
use crate::{Device, Hub};

/// Where the device keeps its configuration; `/etc` cannot be written.
const CONFIG: &str = "/var/lib/kobune/config.toml";
/// The hub's root certificate there.
const CA: &str = "/var/lib/kobune/hub-ca.pem";

/// A hub that the device reaches, after [`Machine::new`].
///
/// # Panics
/// Where it does not answer within 20 seconds.
#[must_use]
pub fn hub(lab: &Device) -> Hub<'_> {
    Hub::start_with(lab, &["--listen", "0.0.0.0", "--hostname", HOST])
}

impl Machine<'_> {
    /// Makes the device an IoT Edge device of the hub under the name `id`, and starts its agent
    /// anew. From then on it boots as one.
    ///
    /// # Panics
    /// Where hub or agent refuse that.
    #[track_caller]
    pub fn enrol(&mut self, hub: &Hub<'_>, id: &str) {
        let connection_string = hub.cli(&["device", "create", id, "--edge"]).ok();
        let ca = fs::read_to_string(hub.ca()).expect("the hub's certificate");
        self.write(CA, &ca);
        let trusted = format!("echo 'trust_bundle_cert = \"file://{CA}\"'");
        for line in [
            format!("({trusted}; cat /etc/kobune/config.toml) > {CONFIG}"),
            format!(
                "kobune --config {CONFIG} config mp -c '{}'",
                connection_string.trim()
            ),
            "kill $(pidof kobune)".to_owned(),
        ] {
            let _ = self.run(&line).ok();
        }
        self.wait_for("pidof kobune || echo none", 60, |pids| pids == "none\n");
        let _ = self.run("agent-up").ok();
        self.wait_for("kobune list > /dev/null && echo up", 60, |said| {
            said.ends_with("up\n")
        });
    }
}
