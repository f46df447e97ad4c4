require kobune.inc

LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# Instead of the recipe that builds from source.
PROVIDES = "kobune"

# Directory of the static programs for the machine's processor: see README.md.
KOBUNE_PROGRAMS ?= ""
SRC_URI = "\
    file://${KOBUNE_PROGRAMS}/kobune \
    file://${KOBUNE_PROGRAMS}/kobune-shim \
    file://${KOBUNE_PROGRAMS}/kobune-monitor \
    file://LICENSE \
    file://init/kobune \
    file://systemd/kobune.service \
"

# Named so since whinlatter; before, everything was in WORKDIR.
KOBUNE_UNPACKED = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}"
S = "${KOBUNE_UNPACKED}"

# nooelint: oelint.task.noanonpython
python () {
    if not d.getVar("KOBUNE_PROGRAMS"):
        raise bb.parse.SkipRecipe("KOBUNE_PROGRAMS names no directory of programs")
}

COMPATIBLE_HOST = "(arm|aarch64|x86_64).*-linux.*"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

# A file is unpacked to the path that its address has.
KOBUNE_BUILT = "${KOBUNE_UNPACKED}${KOBUNE_PROGRAMS}"
KOBUNE_PACKAGING = "${KOBUNE_UNPACKED}"

INHIBIT_PACKAGE_DEBUG_SPLIT = "1"
INHIBIT_PACKAGE_STRIP = "1"
# They are static, and carry no symbols.
# nooelint: oelint.vars.insaneskip
INSANE_SKIP:${PN} += "already-stripped"

RPROVIDES:${PN} = "kobune"
RCONFLICTS:${PN} = "kobune"
