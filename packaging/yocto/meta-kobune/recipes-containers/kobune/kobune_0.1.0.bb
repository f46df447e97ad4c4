SUMMARY = "Edge container agent"
DESCRIPTION = "Runs containers on small devices as an Azure-IoT-style hub or a file asks for, without a container engine beside it."
HOMEPAGE = "https://kobune.invalid"
BUGTRACKER = "https://kobune.invalid/issues"
SECTION = "admin"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"
CVE_PRODUCT = "kobune"

require kobune-crates.inc

# Address and commit of the repository that this layer is in: see README.md.
KOBUNE_GIT ?= ""
KOBUNE_REV ?= ""
SRC_URI += "\
    ${KOBUNE_GIT} \
    file://libcontainer-0.7.0/0001-build-on-32-bit-arm.patch;patchdir=${CARGO_VENDORING_DIRECTORY}/libcontainer-0.7.0 \
    file://libcontainer-0.7.0/0002-mount-on-kernels-before-5.12.patch;patchdir=${CARGO_VENDORING_DIRECTORY}/libcontainer-0.7.0 \
    file://pathrs-0.2.6/0001-check-existence-before-5.8.patch;patchdir=${CARGO_VENDORING_DIRECTORY}/pathrs-0.2.6 \
"
SRCREV = "${KOBUNE_REV}"

inherit cargo systemd update-rc.d useradd

# Nobody has to have a repository to parse the layer.
# nooelint: oelint.task.noanonpython
python () {
    if not d.getVar("KOBUNE_GIT") or not d.getVar("KOBUNE_REV"):
        raise bb.parse.SkipRecipe("KOBUNE_GIT and KOBUNE_REV name no commit of a repository")
}

CARGO_BUILD_FLAGS += "--package kobune --package kobune-runtime --bins"

SYSTEMD_SERVICE:${PN} = "kobune.service"
INITSCRIPT_NAME = "kobune"
INITSCRIPT_PARAMS = "start 70 2 3 4 5 . stop 30 0 1 6 ."
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system kobune"

do_install() {
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/kobune ${D}${bindir}/kobune
    for program in kobune-shim kobune-monitor; do
        install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/$program ${D}${libexecdir}/kobune/$program
    done
    if ${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'true', 'false', d)}; then
        install -D -m 0644 ${S}/packaging/systemd/kobune.service ${D}${systemd_system_unitdir}/kobune.service
    else
        install -D -m 0755 ${S}/packaging/init/kobune ${D}${sysconfdir}/init.d/kobune
    fi
}

FILES:${PN} += "${libexecdir}/kobune"
RRECOMMENDS:${PN} += "\
    ca-certificates \
    kernel-module-bridge \
    kernel-module-nf-tables \
    kernel-module-nft-chain-nat \
    kernel-module-nft-masq \
    kernel-module-nft-nat \
    kernel-module-overlay \
    kernel-module-veth \
"
