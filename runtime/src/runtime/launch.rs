//! A start, from the request to the monitor that has taken over.

use super::linux::{DEFAULT_STOP_TIMEOUT, LinuxRuntime};
use super::{PrepareError, RuntimeError, Started, prepare, ring};
use crate::container::{CreateRequest, Paths};
use crate::shim::{LogReceiver, ShimJob};
use crate::{TagWords, cdi, spec};

impl LinuxRuntime {
    pub(super) fn launch(
        &self,
        container: &CreateRequest,
        paths: &Paths,
    ) -> Result<Started, RuntimeError> {
        let id = &container.id;
        let prepare = |source| RuntimeError::Prepare {
            id: id.clone(),
            source,
        };
        let (mut container, joined) = self.joined(container).map_err(prepare)?;
        let provided = cdi::provided_devices(&container.options)
            .map_err(PrepareError::Devices)
            .map_err(prepare)?;
        cdi::add(&provided, &mut container.options);
        let container = &container;
        let users = self.users(container, &joined).map_err(prepare)?;
        let preparation = prepare::Preparation {
            container,
            provided: &provided,
            paths,
            volumes: &self.config.state_dir.join("volumes"),
            cgroup: &self.cgroup(id),
            network: &self.network,
            joined: &joined,
            users: users.as_ref(),
        };
        let mut started = preparation.run().map_err(prepare)?;
        let job = self.job(container, paths).map_err(prepare)?;
        started
            .warnings
            .extend(ring::absent_receiver(&container.options.log_driver));
        let shim = |source| RuntimeError::Shim {
            id: id.clone(),
            source,
        };
        // Memory is empty after a reboot.
        ring::provide(paths, &container.options.log_driver).map_err(|source| {
            RuntimeError::Directory {
                path: paths.log(),
                source,
            }
        })?;
        let client = self.client(paths);
        client.prepare(&job).map_err(shim)?;
        client.launch(&self.launcher).map_err(shim)?;
        Ok(started)
    }

    fn job(&self, container: &CreateRequest, paths: &Paths) -> Result<ShimJob, PrepareError> {
        let stop_signal = spec::stop_signal(&container.image.config, &container.options)
            .map_err(PrepareError::Spec)?;
        Ok(ShimJob {
            contract: crate::shim::CONTRACT,
            id: container.id.to_string(),
            monitor: self.config.monitor.clone(),
            log_dir: paths.log(),
            init: container.options.init,
            console: container.options.console,
            notify: container.options.notify,
            log_driver: container.options.log_driver.clone(),
            log: container.options.log,
            receiver: receiver(container),
            stop_signal,
            stop_timeout: container
                .options
                .stop_timeout
                .unwrap_or(DEFAULT_STOP_TIMEOUT),
        })
    }
}

/// Who gets the container's output as it comes.
fn receiver(container: &CreateRequest) -> Option<LogReceiver> {
    let words = TagWords {
        name: container.id.as_str(),
        image: &container.image.reference,
        image_id: &container.image.id,
    };
    Some(LogReceiver {
        driver: container.options.log_driver.receiver(words)?,
        container: container.id.to_string(),
        image: container.image.reference.clone(),
    })
}
