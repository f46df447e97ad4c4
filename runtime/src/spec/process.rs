//! The main process: arguments, environment, directory, user, capabilities.

use std::path::{Component, Path, PathBuf};

use oci_spec::image::Config;
use oci_spec::runtime::{BoxBuilder, Capabilities, LinuxCapabilities, Process, User};

use super::{SpecError, SpecRequest, env, ulimit};
use crate::options::ContainerOptions;
use crate::shim::notify;

pub(super) fn process(request: &SpecRequest<'_>, hostname: &str) -> Result<Process, SpecError> {
    let config = request.image_config();
    let image_env = config.and_then(|c| c.env().as_deref()).unwrap_or(&[]);
    let home = request.facts.user.home.to_string_lossy();
    let console = request.options.console;
    let own_env = &request.options.env;
    let mut env = env::merge(hostname, &home, image_env, own_env, console.terminal)?;
    let provided = request.provided.iter();
    env::add_library_dirs(&mut env, provided.flat_map(|own| &own.library_dirs));
    if request.options.notify {
        env::apply(&mut env, &notify::variable());
    }

    let mut process = Process::default();
    process.set_terminal(Some(console.terminal));
    process.set_console_size(console.size.filter(|_| console.terminal).and_then(|size| {
        let size = BoxBuilder::default().height(size.rows).width(size.columns);
        size.build().ok()
    }));
    process.set_user(user(request));
    process.set_args(Some(args(request.options, config)?));
    process.set_env(Some(env));
    process.set_cwd(working_dir(request.options, config)?);
    process.set_capabilities(Some(capabilities(request.capabilities)));
    process.set_rlimits(ulimit::rlimits(&request.options.ulimits)?);
    // Absent, not false: libcontainer takes any value for a request.
    let confined = request.options.security.no_new_privileges;
    process.set_no_new_privileges(confined.then_some(true));
    process.set_apparmor_profile(request.options.security.apparmor.clone());
    process.set_oom_score_adj(oom_score_adj(request)?);
    Ok(process)
}

fn user(request: &SpecRequest<'_>) -> User {
    let resolved = &request.facts.user;
    let mut user = User::default();
    user.set_uid(resolved.uid);
    user.set_gid(resolved.gid);
    user.set_additional_gids(Some(resolved.additional_gids.clone()));
    user
}

fn oom_score_adj(request: &SpecRequest<'_>) -> Result<Option<i32>, SpecError> {
    match request.options.oom_score_adj {
        Some(score) if !(-1000..=1000).contains(&score) => Err(SpecError::OomScoreAdj { score }),
        score => Ok(score),
    }
}

/// Docker's rule: any entry point in the options drops the image's command, and one empty
/// string resets the entry point.
fn args(options: &ContainerOptions, image: Option<&Config>) -> Result<Vec<String>, SpecError> {
    let list = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
    let wanted = options.entrypoint.as_ref();
    let mut args = match wanted {
        Some(entrypoint) => entrypoint.clone(),
        None => list(image.and_then(|c| c.entrypoint().as_ref())),
    };
    let mut command = list(options.command.as_ref());
    if command.is_empty() && wanted.is_none_or(Vec::is_empty) {
        command = list(image.and_then(|c| c.cmd().as_ref()));
    }
    if args == [""] {
        args.clear();
    }
    args.append(&mut command);
    if args.is_empty() {
        return Err(SpecError::NoCommand);
    }
    match args.iter().find(|arg| arg.contains('\0')) {
        Some(arg) => Err(SpecError::NulCharacter {
            field: "argument",
            text: arg.clone(),
        }),
        None => Ok(args),
    }
}

fn working_dir(options: &ContainerOptions, image: Option<&Config>) -> Result<PathBuf, SpecError> {
    let image_dir = image.and_then(|c| c.working_dir().as_deref());
    let wanted = [options.working_dir.as_deref(), image_dir];
    let path = wanted
        .into_iter()
        .flatten()
        .find(|dir| !dir.is_empty())
        .unwrap_or("/");
    if !path.starts_with('/') || path.contains('\0') {
        return Err(SpecError::WorkingDir {
            path: path.to_owned(),
        });
    }
    Ok(without_dots(Path::new(path)))
}

/// Resolves `.` and `..` by text alone, so that the directory can be created safely.
fn without_dots(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Inheritable and ambient sets stay empty, as Docker has it: a process of another user
/// than root has no capability after exec, whatever is listed.
fn capabilities(all: &Capabilities) -> LinuxCapabilities {
    let mut capabilities = LinuxCapabilities::default();
    capabilities.set_bounding(Some(all.clone()));
    capabilities.set_effective(Some(all.clone()));
    capabilities.set_permitted(Some(all.clone()));
    capabilities.set_inheritable(Some(Capabilities::new()));
    capabilities.set_ambient(Some(Capabilities::new()));
    capabilities
}
