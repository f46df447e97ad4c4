use std::collections::BTreeMap;
use std::io::Read as _;

use super::*;

/// One of everything.
fn odd_layer() -> LayerBuilder {
    let long = format!("{}/file", "directory-with-a-long-name".repeat(6));
    LayerBuilder::new()
        .pax_global("comment", "made by a test")
        .dir("dir", 0o1777)
        .owner(1000, 3_000_000)
        .file("dir/file", 0o4755, "content")
        .xattr("user.colour", "blue")
        .xattr("security.capability", [1, 0, 0, 2, 0, 4, 0, 0])
        .mtime(12)
        .symlink("dir/link", "../../etc/passwd")
        .hardlink("dir/hard", "dir/file")
        .device("dir/null", 0o666, 1, 3)
        .block_device("dir/loop", 0o660, 7, 200)
        .fifo("dir/pipe", 0o600)
        .file(&long, 0o644, "by PAX")
        .long_names(LongNames::Gnu)
        .file(format!("gnu-{long}"), 0o644, "by GNU")
        .sparse(
            "dir/sparse",
            1 << 20,
            &[(0, b"start"), (4096, b"middle"), (8192, b"more")],
        )
        .sparse(
            "dir/holes",
            4096,
            &[
                (0, b"a"),
                (512, b"b"),
                (1024, b"c"),
                (1536, b"d"),
                (2048, b"e"),
            ],
        )
        .whiteout("dir/gone")
        .whiteout("gone")
        .opaque("dir")
        .file("../escape", 0o644, "x")
        .file("/absolute", 0o644, "x")
        .entry("contiguous", b'7', "y")
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    assert_eq!(odd_layer().build(), odd_layer().build());
    let image = || {
        ImageBuilder::new(Platform::host())
            .layer(odd_layer().build())
            .env("A", "b")
    };
    assert_eq!(image().build(), image().build());
    assert_eq!(
        Index::new(Format::Oci, vec![image().build()]),
        Index::new(Format::Oci, vec![image().build()])
    );
}

/// Fails when the bytes change between versions of this crate: then every digest that anybody
/// noted down changes, and that should be known.
#[test]
fn a_known_layer_keeps_its_digest() {
    let layer = LayerBuilder::new()
        .dir("etc", 0o755)
        .file("etc/motd", 0o644, "hello\n")
        .build();
    assert_eq!(
        layer.diff_id.as_str(),
        "sha256:88fc0c6471d4322a23a89bd67298f5c79564ba0cda522939bf3c307e60f057e1"
    );
}

#[test]
fn a_foreign_reader_finds_what_was_written() {
    let layer = odd_layer().build();
    let mut archive = ::tar::Archive::new(layer.tar.as_slice());
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).unwrap();
        let extensions = entry.pax_extensions().unwrap().map_or(0, Iterator::count);
        let header = entry.header();
        let link = entry
            .link_name_bytes()
            .map(|link| String::from_utf8_lossy(&link).into_owned());
        let device = header
            .device_major()
            .unwrap_or(None)
            .zip(header.device_minor().unwrap_or(None));
        found.insert(path, (header.entry_type(), data, link, device, extensions));
    }

    let long = format!("{}/file", "directory-with-a-long-name".repeat(6));
    let file = |path: &str| String::from_utf8(found[path].1.clone()).unwrap();
    assert_eq!(file("dir/file"), "content");
    assert_eq!(found["dir/file"].4, 2, "two extended attributes");
    assert_eq!(file(&long), "by PAX");
    assert_eq!(file(&format!("gnu-{long}")), "by GNU");
    assert_eq!(file("../escape"), "x");
    assert_eq!(file("/absolute"), "x");
    assert_eq!(found["dir/link"].2.as_deref(), Some("../../etc/passwd"));
    assert_eq!(found["dir/hard"].2.as_deref(), Some("dir/file"));
    assert_eq!(found["dir/null"].3, Some((1, 3)));
    assert_eq!(found["dir/loop"].3, Some((7, 200)));
    assert!(found["dir/pipe"].0.is_fifo());
    assert_eq!(found["dir/sparse"].1.len(), 1 << 20);
    assert_eq!(&found["dir/sparse"].1[4096..4102], b"middle");
    let holes = &found["dir/holes"].1;
    assert_eq!(
        (holes.len(), holes[1536], holes[2048], holes[2049]),
        (4096, b'd', b'e', 0)
    );
    for marker in ["dir/.wh.gone", ".wh.gone", "dir/.wh..wh..opq"] {
        assert!(found.contains_key(marker), "{marker}");
    }
}

#[test]
fn large_owners_and_odd_times_survive() {
    let layer = LayerBuilder::new()
        .file("f", 0o644, "")
        .owner(4_000_000_000, 7)
        .mtime(1 << 40)
        .build();
    let mut archive = ::tar::Archive::new(layer.tar.as_slice());
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    let header = entry.header();
    assert_eq!(
        (
            header.uid().unwrap(),
            header.gid().unwrap(),
            header.mtime().unwrap()
        ),
        (4_000_000_000, 7, 1 << 40)
    );
}

#[test]
fn a_header_can_lie_about_its_size() {
    let layer = LayerBuilder::new()
        .file("f", 0o644, "four")
        .claimed_size(1 << 40)
        .build();
    let mut archive = ::tar::Archive::new(layer.tar.as_slice());
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.size(), 1 << 40);
    let read = std::io::copy(&mut entry, &mut std::io::sink());
    assert!(read.is_err() || read.unwrap() < 1 << 40);
}

#[test]
fn every_compression_unpacks_to_the_same_tar() {
    let layers = [Compression::None, Compression::Gzip, Compression::Zstd]
        .map(|compression| odd_layer().compression(compression).build());
    assert_eq!(layers[0].blob, layers[0].tar);
    let mut unzipped = Vec::new();
    flate2::read::GzDecoder::new(layers[1].blob.as_slice())
        .read_to_end(&mut unzipped)
        .unwrap();
    assert_eq!(unzipped, layers[1].tar);
    for layer in &layers {
        assert_eq!(layer.diff_id, layers[0].diff_id);
        assert_eq!(layer.diff_id, Digest::of(&layer.tar));
        assert_eq!(layer.digest, Digest::of(&layer.blob));
    }
}

#[test]
fn config_and_manifest_say_what_was_set() {
    let layer = LayerBuilder::new().dir("a", 0o755).build();
    let image = ImageBuilder::new(Platform::linux("arm", "v7"))
        .format(Format::Docker)
        .layer(layer.clone())
        .env("A", "1")
        .env("B", "2")
        .entrypoint(&["/led"])
        .cmd(&["--port", "80"])
        .working_dir("/srv")
        .user("65534:65534")
        .expose("80/tcp")
        .volume("/data")
        .label("maintainer", "nobody")
        .stop_signal("SIGINT")
        .build();
    let config: Value = serde_json::from_slice(&image.config).unwrap();
    assert_eq!(
        (&config["architecture"], &config["variant"]),
        (&json!("arm"), &json!("v7"))
    );
    assert_eq!(
        config["config"],
        json!({
            "Env": ["A=1", "B=2"], "Entrypoint": ["/led"], "Cmd": ["--port", "80"],
            "WorkingDir": "/srv", "User": "65534:65534", "ExposedPorts": { "80/tcp": {} },
            "Volumes": { "/data": {} }, "Labels": { "maintainer": "nobody" }, "StopSignal": "SIGINT",
        })
    );
    assert_eq!(
        config["rootfs"]["diff_ids"],
        json!([layer.diff_id.as_str()])
    );
    let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    assert_eq!(manifest["mediaType"], Format::Docker.manifest());
    assert_eq!(
        manifest["config"]["digest"],
        Digest::of(&image.config).as_str()
    );
    assert_eq!(manifest["layers"][0]["digest"], layer.digest.as_str());
    assert_eq!(manifest["layers"][0]["size"], layer.blob.len());
}

#[test]
fn an_edited_config_keeps_a_matching_manifest() {
    let image = ImageBuilder::new(Platform::host()).build();
    let edited = image
        .clone()
        .edit_config(|config| config["os"] = json!("plan9"));
    let manifest: Value = serde_json::from_slice(&edited.manifest).unwrap();
    assert_eq!(
        manifest["config"]["digest"],
        Digest::of(&edited.config).as_str()
    );
    assert_ne!(edited.digest, image.digest);
}
