//! The images that modules ran before the ones they have now: what to go back to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kobune_runtime::{ContainerId, Image};
use serde::{Deserialize, Serialize};

use crate::error_chain::chain;
use crate::store;

const FILE: &str = "previous.json";

/// By module; `previous.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Previous {
    modules: BTreeMap<ContainerId, Used>,
}

/// An image that a module ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Used {
    /// Digest of its configuration.
    pub(super) id: String,
    /// Its layers as directories.
    pub(super) layers: Vec<PathBuf>,
}

impl Previous {
    /// Reads the file. One that cannot be read costs the images that it names their protection.
    pub(super) fn load(dir: &Path) -> Self {
        let read = store::read(&dir.join(FILE));
        read.unwrap_or_else(|error| {
            tracing::warn!(
                error = chain(&error),
                "which images modules had before is unknown"
            );
            None
        })
        .unwrap_or_default()
    }

    /// The module runs another image than `before` from now on, if `id` is another.
    pub(super) fn replaced(&mut self, dir: &Path, module: &ContainerId, before: &Image, id: &str) {
        if before.id == id {
            return;
        }
        let used = Used {
            id: before.id.clone(),
            layers: before.layers.clone(),
        };
        self.modules.insert(module.clone(), used);
        self.save(dir);
    }

    /// The module is gone.
    pub(super) fn forget(&mut self, dir: &Path, module: &ContainerId) {
        if self.modules.remove(module).is_some() {
            self.save(dir);
        }
    }

    pub(super) fn images(&self) -> impl Iterator<Item = &Used> {
        self.modules.values()
    }

    fn save(&self, dir: &Path) {
        if let Err(error) = store::write(&dir.join(FILE), self) {
            tracing::error!(
                error = chain(&error),
                "cannot keep which images modules had before"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str) -> Image {
        Image {
            reference: "a.io/led:1".to_owned(),
            id: id.to_owned(),
            config: serde_json::from_str(
                r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#,
            )
            .expect("a configuration"),
            layers: vec![format!("/layers/{id}").into()],
        }
    }

    #[test]
    fn the_last_other_image_is_kept_until_the_module_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let module = ContainerId::try_from("led").expect("a name");
        let mut previous = Previous::load(dir.path());
        previous.replaced(dir.path(), &module, &image("1"), "1");
        assert_eq!(previous.images().count(), 0, "it is the same one");
        previous.replaced(dir.path(), &module, &image("1"), "2");
        previous.replaced(dir.path(), &module, &image("2"), "2");
        let mut kept = Previous::load(dir.path());
        let ids: Vec<_> = kept.images().map(|used| used.id.clone()).collect();
        assert_eq!(ids, ["1"]);
        kept.forget(dir.path(), &module);
        assert_eq!(Previous::load(dir.path()).images().count(), 0);
        std::fs::write(dir.path().join(FILE), "{").expect("written");
        assert_eq!(Previous::load(dir.path()).images().count(), 0);
    }
}
