//! Mounts: the defaults, the container's own files, bind mounts, volumes and tmpfs.

mod defaults;
mod tmpfs;
mod volume;

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Mount;

use super::{SpecError, SpecRequest, SpecWarning};
use crate::facts::BindSource;
use crate::options::{self, MountSource, Propagation};

pub use volume::{VolumeMount, VolumePart};

pub(crate) use volume::anonymous_volume;

/// All mounts of a container and what comes with them.
#[derive(Debug)]
pub(super) struct MountPlan {
    /// In the order they are made: parents before children.
    pub(super) mounts: Vec<Mount>,
    pub(super) volumes: Vec<VolumeMount>,
    pub(super) create_directories: Vec<PathBuf>,
    /// Targets that show files of the host.
    pub(super) bound: Vec<PathBuf>,
    /// Propagation of the whole mount namespace.
    pub(super) propagation: &'static str,
    pub(super) warnings: Vec<SpecWarning>,
}

/// Plans all mounts. A requested mount replaces a default one on the same target.
///
/// Bind mounts are private unless one asks for more. libcontainer 0.7 ignores the
/// propagation of single mounts but applies that of the root to all, so one slave makes all
/// of them slaves, and shared becomes slave with a warning. Left unset, it would be slave.
pub(super) fn plan(request: &SpecRequest<'_>) -> Result<MountPlan, SpecError> {
    let mut plan = MountPlan {
        mounts: Vec::new(),
        volumes: Vec::new(),
        create_directories: Vec::new(),
        bound: Vec::new(),
        propagation: "private",
        warnings: Vec::new(),
    };
    for mount in &request.options.mounts {
        let target = checked_target(&mount.target)?;
        if plan.has(&target) {
            return Err(SpecError::DuplicateTarget { target });
        }
        plan.add(request, mount, target)?;
    }
    plan.add_provided(request)?;
    plan.add_image_volumes(request)?;
    for mount in defaults::file_systems(request)
        .into_iter()
        .chain(defaults::files(request))
    {
        if !plan.has(mount.destination()) {
            plan.mounts.push(mount);
        }
    }
    plan.mounts.sort_by_cached_key(|mount| {
        (
            mount.destination().iter().count(),
            mount.destination().clone(),
        )
    });
    Ok(plan)
}

impl MountPlan {
    fn has(&self, target: &Path) -> bool {
        self.mounts
            .iter()
            .any(|mount| mount.destination() == target)
    }

    fn add(
        &mut self,
        request: &SpecRequest<'_>,
        mount: &options::Mount,
        target: PathBuf,
    ) -> Result<(), SpecError> {
        match &mount.source {
            MountSource::Bind {
                path,
                create_missing,
                propagation,
                non_recursive,
                force_read_only,
            } => {
                self.check_source(request, path, *create_missing, &target)?;
                let propagation = self.propagation(*propagation, &target);
                let bind = if *non_recursive { "bind" } else { "rbind" };
                let access = match (mount.read_only, force_read_only) {
                    (true, true) => "rro",
                    (true, false) => "ro",
                    (false, _) => "rw",
                };
                self.bind(path, target, &[bind, propagation, access]);
            }
            MountSource::Volume {
                name,
                no_copy,
                subpath,
            } => {
                let part = subpath.as_deref();
                let part = part.map(|below| volume::part(request, below, &target));
                let part = part.transpose()?;
                let volume = volume::volume(request, name.as_deref(), target.clone())?;
                self.add_volume(VolumeMount {
                    read_only: mount.read_only,
                    copy: !no_copy,
                    part: part.or(volume.part.clone()),
                    ..volume
                });
            }
            MountSource::Tmpfs {
                size,
                mode,
                options,
            } => {
                let limits = (*size, *mode);
                let mount = tmpfs::mount(target, limits, options, mount.read_only)?;
                self.mounts.push(mount);
            }
        }
        Ok(())
    }

    /// What devices need of the host, where the options mount nothing else.
    fn add_provided(&mut self, request: &SpecRequest<'_>) -> Result<(), SpecError> {
        for mount in request.provided.iter().flat_map(|own| &own.mounts) {
            let target = checked_target(&mount.target)?;
            if !self.has(&target) {
                let options: Vec<&str> = mount.options.iter().map(String::as_str).collect();
                self.bind(&mount.source, target, &options);
            }
        }
        Ok(())
    }

    /// The image's volumes are anonymous ones where the options mount nothing else.
    fn add_image_volumes(&mut self, request: &SpecRequest<'_>) -> Result<(), SpecError> {
        let volumes = request.image_config().and_then(|c| c.volumes().as_ref());
        for path in volumes.into_iter().flatten() {
            let target = checked_target(&Path::new("/").join(path))?;
            if !self.has(&target) {
                let volume = volume::volume(request, None, target)?;
                self.add_volume(volume);
            }
        }
        self.volumes.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(())
    }

    fn add_volume(&mut self, volume: VolumeMount) {
        let access = if volume.read_only { "ro" } else { "rw" };
        let source = match &volume.part {
            Some(part) => &part.mounted_on,
            None => &volume.path,
        };
        self.bind(
            source,
            volume.target.clone(),
            &["rbind", "rprivate", access],
        );
        self.volumes.push(volume);
    }

    fn check_source(
        &mut self,
        request: &SpecRequest<'_>,
        path: &Path,
        create_missing: bool,
        target: &Path,
    ) -> Result<(), SpecError> {
        let (path, target) = (path.to_owned(), target.to_owned());
        if !path.is_absolute() {
            return Err(SpecError::RelativeSource { path, target });
        }
        let state = request.facts.bind_sources.get(&path);
        if matches!(state, Some(BindSource::Directory | BindSource::File)) {
            return Ok(());
        }
        if !create_missing {
            return Err(SpecError::MissingSource { path, target });
        }
        if !self.create_directories.contains(&path) {
            self.create_directories.push(path);
        }
        Ok(())
    }

    fn propagation(&mut self, wanted: Option<Propagation>, target: &Path) -> &'static str {
        match wanted {
            None | Some(Propagation::Private | Propagation::Rprivate) => return "rprivate",
            Some(Propagation::Slave | Propagation::Rslave) => {}
            Some(Propagation::Shared | Propagation::Rshared) => {
                let target = target.to_owned();
                self.warnings
                    .push(SpecWarning::SharedPropagation { target });
            }
        }
        self.propagation = "slave";
        "rslave"
    }

    fn bind(&mut self, source: &Path, target: PathBuf, options: &[&str]) {
        self.bound.push(target.clone());
        let mut mount = mount(target, "bind", options);
        mount.set_source(Some(source.to_owned()));
        self.mounts.push(mount);
    }
}

/// A mount whose source is the name of its type.
fn mount(target: PathBuf, kind: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(target);
    mount.set_typ(Some(kind.to_owned()));
    mount.set_source(Some(kind.into()));
    mount.set_options(Some(options.iter().map(|o| (*o).to_owned()).collect()));
    mount
}

/// `target` without `.` and needless slashes, if something may be mounted there.
///
/// `/dev` is refused because libcontainer makes its nodes there and fails where they exist
/// already; `/proc` for the kernel interfaces that confinement depends on.
fn checked_target(target: &Path) -> Result<PathBuf, SpecError> {
    let climbs = target.components().any(|part| part == Component::ParentDir);
    let nul = target.as_os_str().as_encoded_bytes().contains(&0);
    if !target.is_absolute() || climbs || nul {
        return Err(SpecError::Target {
            target: target.to_owned(),
        });
    }
    let target: PathBuf = target.components().collect();
    let reserved = ["/", "/dev"].iter().any(|own| target == Path::new(own));
    if reserved || target.starts_with("/proc") {
        return Err(SpecError::ReservedTarget { target });
    }
    Ok(target)
}
