################################################################################
#
# kobune
#
################################################################################

KOBUNE_CHECKED_OUT := $(shell git -C $(BR2_EXTERNAL_KOBUNE_PATH) rev-parse HEAD)
KOBUNE_VERSION = $(or $(call qstrip,$(BR2_PACKAGE_KOBUNE_REVISION)),$(KOBUNE_CHECKED_OUT))
KOBUNE_SITE = $(call qstrip,$(BR2_PACKAGE_KOBUNE_REPOSITORY))
KOBUNE_SITE_METHOD = git
KOBUNE_LICENSE = Apache-2.0
KOBUNE_LICENSE_FILES = LICENSE

# No file can have the hash of the commit that it is in: git names what is fetched
# by its hash already, and Cargo.lock has those of the crates.
BR_NO_CHECK_HASH_FOR += $(KOBUNE_SOURCE)

# The root of the workspace is no package.
KOBUNE_SUBDIR = agent
KOBUNE_CARGO_BUILD_OPTS = \
	--package kobune \
	--package kobune-runtime \
	--bins

# Vendored crates carry the hashes of their files, which patches change.
define KOBUNE_PATCH_CRATES
	for patches in $(@D)/packaging/patches/*; do \
		name=$${patches##*/}; \
		vendored=$(@D)/VENDOR/$$name; \
		[ -d "$$vendored" ] || vendored=$(@D)/VENDOR/$${name%-*}; \
		for file in "$$patches"/*.patch; do \
			patch -d "$$vendored" -p1 -F0 -N -i "$$file" || exit 1; \
		done; \
		$(SED) 's/"files":{[^}]*}/"files":{}/' "$$vendored/.cargo-checksum.json" || exit 1; \
	done
endef
KOBUNE_POST_PATCH_HOOKS += KOBUNE_PATCH_CRATES

KOBUNE_BUILT = $(@D)/target/$(RUSTC_TARGET_NAME)/$(if $(BR2_ENABLE_DEBUG),debug,release)

define KOBUNE_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(KOBUNE_BUILT)/kobune $(TARGET_DIR)/usr/bin/kobune
	$(INSTALL) -D -m 0755 $(KOBUNE_BUILT)/kobune-shim \
		$(TARGET_DIR)/usr/libexec/kobune/kobune-shim
	$(INSTALL) -D -m 0755 $(KOBUNE_BUILT)/kobune-monitor \
		$(TARGET_DIR)/usr/libexec/kobune/kobune-monitor
endef

define KOBUNE_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(@D)/packaging/systemd/kobune.service \
		$(TARGET_DIR)/usr/lib/systemd/system/kobune.service
endef

define KOBUNE_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(@D)/packaging/init/kobune $(TARGET_DIR)/etc/init.d/S70kobune
endef

define KOBUNE_INSTALL_INIT_OPENRC
	$(INSTALL) -D -m 0755 $(@D)/packaging/openrc/kobune $(TARGET_DIR)/etc/init.d/kobune
endef

# Members may use the socket, where socket_group in config.toml says so.
define KOBUNE_USERS
	- - kobune -1 * - - - Kobune's command line
endef

# Where a data partition is mounted on a root that is never written.
define KOBUNE_PERMISSIONS
	/var/lib/kobune d 711 0 0 - - - - -
endef

ifeq ($(BR2_PACKAGE_KOBUNE_NETWORK_MODULES),y)
define KOBUNE_LINUX_NETWORK
	$(call KCONFIG_ENABLE_OPT,CONFIG_NETFILTER)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NF_CONNTRACK)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NF_TABLES)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NF_TABLES_INET)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NF_TABLES_IPV4)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NFT_CT)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NFT_MASQ)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NFT_NAT)
	$(call KCONFIG_ENABLE_OPT,CONFIG_BRIDGE)
	$(call KCONFIG_ENABLE_OPT,CONFIG_VETH)
endef
endif

define KOBUNE_LINUX_CONFIG_FIXUPS
	$(call KCONFIG_ENABLE_OPT,CONFIG_NAMESPACES)
	$(call KCONFIG_ENABLE_OPT,CONFIG_UTS_NS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_IPC_NS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_PID_NS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_NET_NS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_CGROUPS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_BPF_SYSCALL)
	$(call KCONFIG_ENABLE_OPT,CONFIG_CGROUP_BPF)
	$(call KCONFIG_ENABLE_OPT,CONFIG_MEMCG)
	$(call KCONFIG_ENABLE_OPT,CONFIG_CGROUP_PIDS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_CGROUP_SCHED)
	$(call KCONFIG_ENABLE_OPT,CONFIG_FAIR_GROUP_SCHED)
	$(call KCONFIG_ENABLE_OPT,CONFIG_CFS_BANDWIDTH)
	$(call KCONFIG_ENABLE_OPT,CONFIG_CPUSETS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_CGROUP_FREEZER)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SECCOMP)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SECCOMP_FILTER)
	$(call KCONFIG_ENABLE_OPT,CONFIG_POSIX_MQUEUE)
	$(call KCONFIG_ENABLE_OPT,CONFIG_UNIX98_PTYS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_TMPFS_XATTR)
	$(call KCONFIG_ENABLE_OPT,CONFIG_OVERLAY_FS)
	$(KOBUNE_LINUX_NETWORK)
endef

$(eval $(cargo-package))
