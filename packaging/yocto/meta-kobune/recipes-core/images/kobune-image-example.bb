SUMMARY = "A read-only image with Kobune"
DESCRIPTION = "An example: a root file system that is never written, and modules on a partition of their own at /var/lib/kobune."
BUGTRACKER = "https://kobune.invalid/issues"
SECTION = "images"
CVE_PRODUCT = "kobune"
LICENSE = "Apache-2.0"

inherit core-image

IMAGE_FEATURES += "read-only-rootfs"
IMAGE_INSTALL += "packagegroup-kobune"

# The only place that modules, layers and state are written to. A device without it boots,
# and the agent says what it lacks.
KOBUNE_DATA ?= "LABEL=kobune"
kobune_data_partition[doc] = "Has the data partition mounted"
kobune_data_partition() {
    echo "${KOBUNE_DATA} ${localstatedir}/lib/kobune ext4 defaults,noatime,nofail 0 2" >> ${IMAGE_ROOTFS}${sysconfdir}/fstab
}
ROOTFS_POSTPROCESS_COMMAND += "kobune_data_partition"
