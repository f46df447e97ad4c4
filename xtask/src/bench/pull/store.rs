//! What a new version costs a device that has the old one: few files changed, or the lowest layer;
//! packed plainly or so that single files can be fetched; at full speed and behind a slow link.

use std::fs;

use kobune_fixtures::{
    Compression, Content, Fault, ImageBuilder, Layer, Options, Platform, Registry, Target, Times,
};

use super::images::{Blob, Image, Packing};
use super::measure::{self, Cost, Scripts};
use super::peers::Way;
use super::{Bench, SLOW, Table, median, row};

/// What a new version cost us.
struct Update {
    cost: Cost,
    /// Megabytes of the layer that changed, as it is packed.
    changed: f64,
}

impl Bench {
    /// All updates, and the goals with what was reached.
    pub(super) fn store(&self, debian: &[Image; 3]) -> Result<Vec<Table>, String> {
        let columns = [
            "wall s",
            "cpu s",
            "rss MiB",
            "device MB",
            "store MB",
            "cached MB",
            "wire MB",
        ];
        let mut table = Table::new("store", &columns);
        let mut goals = Table::new("store goals", &["reached"]);
        let [old, versions @ ..] = debian;
        for new in versions {
            let mut quick = |packing| self.quick((old, new), packing, &mut table);
            let [gzip, zstd, chunked] = Packing::ALL.map(&mut quick);
            compare(new.name, &[gzip?, zstd?, chunked?], &mut goals);
        }
        let mut slow = Table::new("store at 10 Mbit per s", &["wall s", "cpu s", "wire MB"]);
        for new in versions {
            for packing in Packing::ALL {
                self.slow((old, new), packing, &mut slow)?;
            }
        }
        slow.note("each layer by itself comes at 10 Mbit/s; one layer changed");
        Ok(vec![table, slow, goals])
    }

    /// One update by all who can; gives our own.
    fn quick(
        &self,
        (old, new): (&Image, &Image),
        packing: Packing,
        table: &mut Table,
    ) -> Result<Update, String> {
        let (from, old_blobs) = self.push(old, packing)?;
        let (to, blobs) = self.push(new, packing)?;
        let what = format!("{} changed, {}", new.name, packing.suffix());
        let mut own = None;
        for way in updaters(packing) {
            let scripts = self.scripts(way, (&from, &old_blobs), (&to, &blobs));
            let cost = match way {
                Way::Kobune => median(&scripts)?,
                _ => measure::cost(&scripts)?,
            };
            row(table, format!("{what}, {}", way.name()), &cost);
            if way == Way::Kobune {
                own = Some(cost);
            }
        }
        let known: Vec<&str> = old_blobs.iter().map(|blob| blob.digest.as_str()).collect();
        let changed = blobs
            .iter()
            .filter(|blob| !known.contains(&blob.digest.as_str()));
        let sizes = changed.map(|blob| fs::metadata(&blob.file).map_or(0, |file| file.len()));
        Ok(Update {
            cost: own.ok_or("we do not update")?,
            changed: sizes.sum::<u64>() as f64 / 1e6,
        })
    }

    fn slow(
        &self,
        (old, new): (&Image, &Image),
        packing: Packing,
        table: &mut Table,
    ) -> Result<(), String> {
        let (old_blobs, blobs) = (old.blobs(packing)?, new.blobs(packing)?);
        let mut content = Content::new();
        content.add_image("bench/slow", "1", &image(&old_blobs, packing)?);
        content.add_image("bench/slow", "2", &image(&blobs, packing)?);
        let registry = Registry::start(content, Options::default()).map_err(|e| e.to_string())?;
        let known: Vec<&str> = old_blobs.iter().map(|blob| blob.digest.as_str()).collect();
        for blob in blobs
            .iter()
            .filter(|blob| !known.contains(&blob.digest.as_str()))
        {
            let throttle = Fault::Throttle {
                bytes_per_second: SLOW,
            };
            registry.fault(Target::Blob(blob.digest.clone()), throttle, Times::Always);
        }
        let reference = |tag: u8| format!("{}/bench/slow:{tag}", registry.addr());
        for way in updaters(packing) {
            let (from, to) = (reference(1), reference(2));
            let cost = measure::cost(&self.scripts(way, (&from, &old_blobs), (&to, &blobs)))?;
            let what = format!("{} changed, {}, {}", new.name, packing.suffix(), way.name());
            table.row(what, &[cost.wall, cost.cpu, cost.wire]);
        }
        Ok(())
    }

    fn scripts(&self, way: Way, old: (&str, &[Blob]), new: (&str, &[Blob])) -> Scripts {
        let first = way.pull(&self.programs, old.0, old.1);
        Scripts {
            prepare: format!("({}); ({first})", way.prepare(&self.programs)),
            run: way.pull(&self.programs, new.0, new.1),
        }
    }
}

fn updaters(packing: Packing) -> impl Iterator<Item = Way> {
    let all = Way::ALL.into_iter();
    all.filter(move |way| way.updates() && way.reads(packing))
}

/// What of the changed layer went over the wire, and processor time beside that of whole layers.
fn compare(name: &str, own: &[Update; 3], goals: &mut Table) {
    let [gzip, zstd, chunked] = own;
    let share = chunked.cost.wire / chunked.changed;
    goals.row(format!("{name} changed, wire / changed layer"), &[share]);
    for (other, update) in [("gz", gzip), ("zst", zstd)] {
        let cpu = chunked.cost.cpu / update.cost.cpu;
        goals.row(format!("{name} changed, cpu / {other}'s"), &[cpu]);
    }
    let changed = chunked.changed;
    goals.note(format!(
        "{name}: the changed layer has {changed:.1} MB, chunked"
    ));
}

fn image(blobs: &[Blob], packing: Packing) -> Result<kobune_fixtures::Image, String> {
    let compression = match packing {
        Packing::Gzip => Compression::Gzip,
        Packing::Zstd | Packing::Chunked => Compression::Zstd,
    };
    let mut builder = ImageBuilder::new(Platform::linux("amd64", ""));
    for blob in blobs {
        builder = builder.layer(Layer {
            tar: Vec::new(),
            diff_id: blob.diff_id.clone(),
            digest: blob.digest.clone(),
            blob: fs::read(&blob.file).map_err(|error| error.to_string())?,
            compression,
            annotations: blob.annotations.clone(),
        });
    }
    Ok(builder.build())
}
