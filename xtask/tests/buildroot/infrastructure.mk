# What a package's .mk finds in Buildroot, as far as ours uses it: make reads it before the
# external tree. A package's steps are targets in its directory, as there, so that $(@D) is that;
# options of the kernel are printed.

pkgname = kobune
qstrip = $(strip $(subst ",,$(1)))
INSTALL = install
SED = sed -i -e
KCONFIG_ENABLE_OPT = @echo $(1)=y
RUSTC_TARGET_NAME = $(TARGET)
Q = @

# The steps of pkg-cargo and pkg-generic, in their order.
define cargo-package

$$(SOURCE_DIR)/all: $$(addprefix $$(SOURCE_DIR)/,vendor patch build install)

$$(SOURCE_DIR)/vendor:
	mkdir -p $$(@D)/.cargo
	cd $$(@D) && cargo vendor --quiet --locked \
		--manifest-path $$(KOBUNE_SUBDIR)/Cargo.toml VENDOR > .cargo/config.toml

$$(SOURCE_DIR)/patch:
	$$(KOBUNE_PATCH_CRATES)

$$(SOURCE_DIR)/build:
	cd $$(@D)/$$(KOBUNE_SUBDIR) && cargo build --offline --release --locked \
		--target $$(RUSTC_TARGET_NAME) --manifest-path Cargo.toml \
		$$(KOBUNE_CARGO_BUILD_OPTS)

$$(SOURCE_DIR)/install:
	$$(KOBUNE_INSTALL_TARGET_CMDS)
	$$(KOBUNE_INSTALL_INIT_SYSTEMD)
	$$(KOBUNE_INSTALL_INIT_SYSV)

$$(SOURCE_DIR)/openrc:
	$$(KOBUNE_INSTALL_INIT_OPENRC)

$$(SOURCE_DIR)/kernel:
	$$(KOBUNE_LINUX_CONFIG_FIXUPS)

$$(SOURCE_DIR)/show:
	@echo 'version $$(KOBUNE_VERSION)'
	@echo 'site $$(KOBUNE_SITE)'
	@echo "users $$(strip $$(KOBUNE_USERS))"
	@echo 'permissions $$(strip $$(KOBUNE_PERMISSIONS))'
	@echo 'hooks $$(KOBUNE_POST_PATCH_HOOKS)'

endef
