require kobune.inc
require kobune-crates.inc

LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# Address and commit of the repository that this layer is in: see README.md.
KOBUNE_GIT ?= ""
KOBUNE_REV ?= ""
SRC_URI += "\
    ${KOBUNE_GIT} \
    file://libcgroups-0.7.0/0001-read-v1-mounts-once.patch;patchdir=${CARGO_VENDORING_DIRECTORY}/libcgroups-0.7.0 \
    file://libcgroups-0.7.0/0002-leave-device-rules-alone.patch;patchdir=${CARGO_VENDORING_DIRECTORY}/libcgroups-0.7.0 \
    file://libcontainer-0.7.0/0001-build-on-32-bit-arm.patch;patchdir=${CARGO_VENDORING_DIRECTORY}/libcontainer-0.7.0 \
    file://libcontainer-0.7.0/0002-mount-on-kernels-before-5.12.patch;patchdir=${CARGO_VENDORING_DIRECTORY}/libcontainer-0.7.0 \
    file://libcontainer-0.7.0/0003-resolve-mount-targets-once.patch;patchdir=${CARGO_VENDORING_DIRECTORY}/libcontainer-0.7.0 \
    file://nc-0.9.8/0001-build-in-thumb-mode.patch;patchdir=${CARGO_VENDORING_DIRECTORY}/nc-0.9.8 \
    file://pathrs-0.2.6/0001-check-existence-before-5.8.patch;patchdir=${CARGO_VENDORING_DIRECTORY}/pathrs-0.2.6 \
    file://pathrs-0.2.6/0002-find-no-paths-for-expected-errors.patch;patchdir=${CARGO_VENDORING_DIRECTORY}/pathrs-0.2.6 \
    file://pathrs-0.2.6/0003-open-directories-without-proc.patch;patchdir=${CARGO_VENDORING_DIRECTORY}/pathrs-0.2.6 \
"
SRCREV = "${KOBUNE_REV}"

inherit cargo

# Nobody has to have a repository to parse the layer.
# nooelint: oelint.task.noanonpython
python () {
    if not d.getVar("KOBUNE_GIT") or not d.getVar("KOBUNE_REV"):
        raise bb.parse.SkipRecipe("KOBUNE_GIT and KOBUNE_REV name no commit of a repository")
}

CARGO_BUILD_FLAGS += "--package kobune --package kobune-runtime --bins"

KOBUNE_BUILT = "${B}/target/${CARGO_TARGET_SUBDIR}"
KOBUNE_PACKAGING = "${S}/packaging"
