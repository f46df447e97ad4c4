//! Documents that registries serve, and some that they should not.

use serde_json::{Value, json};

use super::*;

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn manifest(layer_type: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "config": {"mediaType": OCI_CONFIG, "digest": DIGEST, "size": 2},
        "layers": [{"mediaType": layer_type, "digest": DIGEST, "size": 3}],
    })
}

fn image(diff_ids: &[&str]) -> ImageConfiguration {
    let json = json!({
        "architecture": "arm", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    config(json.to_string().as_bytes()).expect("a configuration")
}

fn layers_of(layer_type: &str, diff_ids: &[&str]) -> Result<Vec<Layer>, ManifestError> {
    let body = manifest(layer_type).to_string();
    match read(body.as_bytes(), Some(OCI_MANIFEST)) {
        Ok(Document::Manifest(manifest)) => layers(&manifest, &image(diff_ids)),
        other => panic!("no manifest: {other:?}"),
    }
}

#[test]
fn the_kind_of_a_document_is_its_own_word_then_the_header_then_its_shape() {
    let mut typed = manifest("x");
    typed["mediaType"] = DOCKER_MANIFEST.into();
    let cases = [
        (typed, Some("text/plain"), true),
        (
            manifest("x"),
            Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
            true,
        ),
        (manifest("x"), Some("application/json"), true),
        (manifest("x"), None, true),
        (json!({"schemaVersion": 2, "manifests": []}), None, false),
        (
            json!({"schemaVersion": 2, "manifests": []}),
            Some(DOCKER_LIST),
            false,
        ),
    ];
    for (body, header, is_manifest) in cases {
        let document = read(body.to_string().as_bytes(), header).expect("good");
        assert_eq!(
            matches!(document, Document::Manifest(_)),
            is_manifest,
            "{body}"
        );
    }
}

#[test]
fn documents_of_another_kind_are_refused_by_name() {
    let mut both = manifest("x");
    both["manifests"] = json!([]);
    let schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let cases = [
        (both.to_string(), Some(OCI_MANIFEST), "ambiguous"),
        (
            json!({"schemaVersion": 1}).to_string(),
            Some(schema1),
            schema1,
        ),
        (manifest("x").to_string(), Some("text/html"), "text/html"),
        ("<html>".to_owned(), Some(OCI_MANIFEST), "JSON"),
        ("{}".to_owned(), None, "media type"),
    ];
    for (body, header, word) in cases {
        let error = read(body.as_bytes(), header)
            .expect_err("refused")
            .to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn layers_are_gzip_or_plain() {
    for (media_type, expected) in [
        (
            "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Gzip,
        ),
        (
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            Compression::Gzip,
        ),
        (
            "application/vnd.oci.image.layer.v1.tar+zstd",
            Compression::Zstd,
        ),
        (
            "application/vnd.docker.image.rootfs.diff.tar.zstd",
            Compression::Zstd,
        ),
        ("application/vnd.oci.image.layer.v1.tar", Compression::None),
        (
            "application/vnd.docker.image.rootfs.diff.tar",
            Compression::None,
        ),
    ] {
        let layers = layers_of(media_type, &[DIGEST]).expect("good");
        assert_eq!(layers[0].compression, expected, "{media_type}");
    }
}

#[test]
fn layers_that_cannot_be_pulled_are_refused_by_name() {
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    for (media_type, diff_ids, word) in [
        (
            "application/vnd.oci.image.layer.v1.tar+xz",
            vec![DIGEST],
            "xz",
        ),
        (
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            vec![DIGEST],
            "foreign",
        ),
        (
            "application/vnd.wasm.content.layer.v1+wasm",
            vec![DIGEST],
            "wasm",
        ),
        (gzip, vec![], "1 layers but 0"),
        (gzip, vec!["md5:abc"], "md5:abc"),
        (gzip, vec!["../../etc"], "../../etc"),
    ] {
        let error = layers_of(media_type, &diff_ids)
            .expect_err("refused")
            .to_string();
        assert!(error.contains(word), "{error}");
    }
}
