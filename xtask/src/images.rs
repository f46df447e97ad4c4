//! The tutorial's images for every processor: `cargo xtask images`.

use std::fs;

use kobune_fixtures::{Content, Format, Image, Index, layout, module_image};

use crate::cross::{self, ARCHES, Built, Profile};

/// The modules, with the ports that their images expose.
const MODULES: [(&str, &[&str]); 2] = [("button", &[]), ("led", &["80/tcp"])];

/// Builds the modules for all of [`ARCHES`] and writes `target/images`, an OCI layout with an
/// index over the platforms for each; `skopeo copy --all` publishes from it.
pub(crate) fn run() -> Result<(), String> {
    let mut built = Vec::new();
    for arch in ARCHES {
        built.push(cross::build_modules(arch, Profile::Dist)?);
    }
    let mut content = Content::new();
    for (module, ports) in MODULES {
        let images = ARCHES.iter().zip(&built);
        let images = images
            .map(|(arch, built)| image(*arch, built, module, ports))
            .collect::<Result<Vec<_>, _>>()?;
        let index = Index::new(Format::Oci, images);
        let repository = format!("{module}-acr");
        println!("{repository}:1.0  {}", index.digest);
        content.add_index(&repository, "1.0", &index);
    }
    let dir = cross::target_dir()?.join("images");
    let _ = fs::remove_dir_all(&dir);
    layout::write(&dir, &content).map_err(|error| error.to_string())?;
    println!("{}", dir.display());
    Ok(())
}

fn image(arch: cross::Arch, built: &Built, module: &str, ports: &[&str]) -> Result<Image, String> {
    let path = built.program(module);
    let program = fs::read(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
    println!("{:>10}  {module} for {}", program.len(), arch.name);
    Ok(module_image(arch.platform(), module, &program, ports))
}
