SUMMARY = "A read-only image with Kobune"
DESCRIPTION = "An example: a root file system that is never written, and modules on a partition of their own at /var/lib/kobune."
BUGTRACKER = "https://kobune.invalid/issues"
SECTION = "images"
CVE_PRODUCT = "kobune"
LICENSE = "Apache-2.0"

inherit core-image

IMAGE_FEATURES += "read-only-rootfs"
IMAGE_INSTALL += "packagegroup-kobune"
