//! The images that the tutorial's modules ship in.

use super::{Image, ImageBuilder, LayerBuilder, Platform};

/// An image with one static program: `/NAME`, its entry point, beside `/etc/passwd`, `/etc/group`
/// and a `/tmp` for everyone. No shell, no libraries.
///
/// `ports` are the image's exposed ports, such as `80/tcp`. Runs as root, as the tutorial's do.
#[must_use]
pub fn module_image(platform: Platform, name: &str, program: &[u8], ports: &[&str]) -> Image {
    let layer = LayerBuilder::new()
        .dir("etc", 0o755)
        .file("etc/group", 0o644, "root:x:0:\nnobody:x:65534:\n")
        .file(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
        )
        .dir("tmp", 0o1777)
        .file(name, 0o755, program)
        .build();
    let entrypoint = format!("/{name}");
    let image = ImageBuilder::new(platform)
        .layer(layer)
        .env("PATH", "/")
        .entrypoint(&[&entrypoint])
        .working_dir("/");
    ports
        .iter()
        .fold(image, |image, port| image.expose(port))
        .build()
}
