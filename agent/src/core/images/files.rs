//! Images from files and to files.

use std::collections::HashSet;
use std::path::PathBuf;

use kobune_puller::{LayoutError, Loaded, Platform, Reference, SaveFormat, Saved, parse_reference};

use super::{Core, Done, StoreDone, blocking};
use crate::api::wire::{ErrorCode, StoreReport};
use crate::command::{CommandError, Reply};

impl Core {
    pub(super) fn start_load(&mut self, path: PathBuf, reply: Reply<StoreReport>) {
        let (store, reserve) = (self.parts.store.clone(), self.parts.puller.reserve());
        let load = move || {
            let loaded = kobune_puller::load(&store, &path, &Platform::host(), reserve);
            loaded.map(loaded_report).map_err(Box::new)
        };
        self.start_file_work(load, reply);
    }

    pub(super) fn start_save(
        &mut self,
        images: &[String],
        path: PathBuf,
        directory: bool,
        reply: Reply<StoreReport>,
    ) {
        let references: Result<Vec<Reference>, _> =
            images.iter().map(|image| parse_reference(image)).collect();
        let references = match references {
            Ok(references) => references,
            Err(error) => {
                let error = CommandError::new(ErrorCode::Invalid, error.to_string());
                let _ = reply.send(Err(error));
                return;
            }
        };
        let format = match directory {
            true => SaveFormat::Directory,
            false => SaveFormat::Archive,
        };
        let store = self.parts.store.clone();
        let save = move || {
            let saved = kobune_puller::save(&store, &references, &path, format);
            saved.map(saved_report).map_err(Box::new)
        };
        self.start_file_work(save, reply);
    }

    /// Images from or to a file.
    fn start_file_work(
        &mut self,
        work: impl FnOnce() -> Result<StoreReport, Box<LayoutError>> + Send + 'static,
        reply: Reply<StoreReport>,
    ) {
        self.work.spawn(async move {
            Done::Store(Box::new(StoreDone {
                result: blocking(work).await,
                repaired: HashSet::new(),
                was_collection: false,
                reply: Some(reply),
            }))
        });
    }
}

fn loaded_report(loaded: Loaded) -> StoreReport {
    let images = loaded.images.iter().map(|image| image.reference.whole());
    StoreReport {
        images: images.collect(),
        deployment: loaded.deployment,
        ..StoreReport::default()
    }
}

fn saved_report(saved: Vec<Saved>) -> StoreReport {
    let (images, ids) = saved
        .into_iter()
        .map(|image| (image.name, image.saved_id.to_string()))
        .unzip();
    StoreReport {
        images,
        ids,
        ..StoreReport::default()
    }
}
