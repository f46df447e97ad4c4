# Adds a directory to look in, which is no change by itself.
# nooelint: oelint.vars.noncoreoverride
FILESEXTRAPATHS:prepend := "${THISDIR}/files:"

# Only where an image of this layer is wanted: DISTRO_FEATURES:append = " kobune".
# nooelint: oelint.vars.noncoreoverride
SRC_URI += "${@bb.utils.contains('DISTRO_FEATURES', 'kobune', 'file://kobune.cfg', '', d)}"
