SUMMARY = "Kobune and what its modules are usually in want of"
DESCRIPTION = "The agent, root certificates for registries and time zones."
BUGTRACKER = "https://kobune.invalid/issues"
SECTION = "admin"
LICENSE = "Apache-2.0"

inherit packagegroup

RDEPENDS:${PN} = "\
    ca-certificates \
    kobune \
    tzdata \
"
