# Everything lives in .venv/; outside the checkout nothing is installed except missing system packages, which
# tools/system-packages names before it installs them (`make SYSTEM_PACKAGES=true ...` leaves them alone).
# Steps that are done leave a stamp in .venv/, so a second run does only what changed.
# SPDX-License-Identifier: BSD-3-Clause

# nbdkit embeds the distribution's Python, and takes over a virtual environment only if it was made with the same one.
PYTHON := /usr/bin/python3
SYSTEM_PACKAGES := tools/system-packages
VENV := .venv
BIN := $(VENV)/bin
# After an upgrade of the distribution /usr/bin/python3 is another one (python3.13, say), and what is in .venv names the folder
# that it was made in: all is made anew then, and where the checkout was moved or copied.
THIS_PYTHON := $(notdir $(realpath $(PYTHON)))
THIS_PLACE := $(firstword $(shell pwd -P | cksum))
CREATED := $(VENV)/.created-for-$(THIS_PYTHON)-in-$(THIS_PLACE)
# Where system packages are left alone, nothing is known of them.
PACKAGE_STAMPS := $(VENV)/.packages-build $(VENV)/.packages-not-looked-at-build
PACKAGES := $(VENV)/.packages$(if $(filter true :,$(SYSTEM_PACKAGES)),-not-looked-at)
# Of pip's own settings only those count that say where packages come from.
PIP := $(BIN)/python tools/pip -qq

# What the shell tells other Pythons is not for the one here.
unexport PYTHONHOME PYTHONPATH PYTHONUSERBASE PYTHONPLATLIBDIR PYTHONSTARTUP PYTHONINSPECT PYTHONOPTIMIZE PYTHONWARNINGS \
  PYTHONDEVMODE PYTHONVERBOSE PYTHONIOENCODING PYTHONUTF8 PYTHONCOERCECLOCALE PYTHONSAFEPATH PYTHONPROFILEIMPORTTIME
export PYTHONNOUSERSITE := 1

# setuptools announces at every build that it calls two tables of pyproject.toml experimental: its version is pinned for that.
KNOWN_EXPERIMENTAL := -W 'ignore:`[tool.'

# Of `make test`: one more than processors, as tests wait for disks, clocks and guests a good part of their time.  Each of them
# reads all tests first, which takes a quarter of the time where an earlier run has left their bytecode.
WORKERS ?= $(shell echo $$(($$(nproc) + 1)))

NATIVE_SOURCES := $(foreach folder,nbd_plugin preswapd/* preswapd/*/*,$(wildcard $(addprefix $(folder)/*.,c h pyx pxd)))
CYTHON_SOURCES := $(filter %.pyx %.pxd,$(NATIVE_SOURCES))

# The steps share .venv, pip and apt.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: build dev test demo bench check install built uninstall deb clean help looked-at

build: $(VENV)/.built  ## make .venv with preswapd and preswapctl in .venv/bin (the default)

dev: $(PACKAGES)-test build $(VENV)/.dev  ## set up what tests and checks need, and run none

test: $(PACKAGES)-test build check  ## run every check and every test
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

demo: $(PACKAGES)-demo build  ## boot a Linux guest that swaps through preswapd
	$(BIN)/preswapd demo

bench: $(PACKAGES)-bench build $(VENV)/.bench  ## measure it beside others (BENCH_ARGS=--help)
	$(BIN)/python -m benchmarks --plots build/bench/plots $(BENCH_ARGS)

check: build $(VENV)/.dev  ## lint and type-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	tools/check-c
	PATH="$(abspath $(BIN)):$$PATH" cython-lint $(CYTHON_SOURCES)  # it looks for pycodestyle in PATH

# All that runs is the virtual environment APP, filled with what `make` has built: root compiles and fetches nothing, and
# leaves nothing in the checkout.  The rest is what other programs look for.
# DESTDIR is for packagers and goes before every path.
APP := /opt/preswapd
PREFIX := /usr/local
TO = $(DESTDIR)$(PREFIX)
UNITS = $(TO)/lib/systemd/system
SHARE = $(TO)/share

# Root in somebody else's checkout: what root made there, its owner could neither change nor remove.
BUILT := $(if $(filter $(shell stat -c %u .),$(shell id -u)),build,built)

install: export PYTHONDONTWRITEBYTECODE := 1
install: $(BUILT)  ## APP, links to its commands, units, manual pages and completions (DESTDIR, PREFIX, APP)
	$(BIN)/python tools/install-app "$(DESTDIR)$(APP)" "$(APP)"
	install -d $(UNITS) $(TO)/bin
	for unit in preswapd@.service preswapd@.socket preswapd-sync@.service preswapd-governor.service preswapd-metrics.service preswapd-metrics.timer; do \
	  sed 's,/opt/preswapd/,$(APP)/,g' "systemd/$$unit" > "$(UNITS)/$$unit.new" && \
	  chmod 644 "$(UNITS)/$$unit.new" && mv -f "$(UNITS)/$$unit.new" "$(UNITS)/$$unit" || exit 1; done  # never half a unit
	for command in preswapd preswapctl; do \
	  ln -sf $(APP)/bin/$$command $(TO)/bin/$$command || exit 1; done
	install -D -m 644 -t $(TO)/lib/sysusers.d systemd/sysusers.d/preswapd.conf
	install -D -m 644 -t $(TO)/lib/tmpfiles.d systemd/tmpfiles.d/preswapd.conf
	install -D -m 644 -t $(SHARE)/doc/preswapd README.md systemd/example.toml systemd/governor.toml \
	  systemd/images.toml systemd/listen.conf systemd/remote.conf
	install -D -m 644 systemd/apparmor/libvirt-qemu $(SHARE)/doc/preswapd/apparmor-libvirt-qemu
	install -D -m 644 contrib/libvirt/hook.py $(SHARE)/doc/preswapd/libvirt-hook
	made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT && $(BIN)/python tools/man-pages "$$made" && \
	for shell in bash zsh fish; do for command in preswapd preswapctl; do \
	  variable=_$$(echo $$command | tr a-z A-Z)_COMPLETE; \
	  env $$variable=$${shell}_source $(BIN)/$$command > "$$made/$$command.$$shell" || exit 1; done; done && \
	install -D -m 644 -t $(SHARE)/man/man8 "$$made"/*.8 && \
	install -D -m 644 -t $(SHARE)/man/man5 "$$made"/*.5 && \
	for command in preswapd preswapctl; do \
	  install -D -m 644 "$$made/$$command.bash" $(SHARE)/bash-completion/completions/$$command && \
	  install -D -m 644 "$$made/$$command.zsh" $(SHARE)/zsh/site-functions/_$$command && \
	  install -D -m 644 "$$made/$$command.fish" $(SHARE)/fish/vendor_completions.d/$$command.fish || exit 1; done
	@[ -n "$(DESTDIR)" ] || echo "Installed. For the units, once: sudo systemd-sysusers && sudo systemd-tmpfiles --create preswapd.conf"
	@[ -n "$(DESTDIR)" ] || [ ! -d "$(BOOTED)" ] || systemctl --no-ask-password daemon-reload || \
	  echo "The units may be other ones: sudo systemctl daemon-reload" >&2

built:
	@$(MAKE) --no-print-directory --question $(VENV)/.built || { \
	  echo "Nothing is built here yet, or sources have changed, and the checkout is not root's: first run make without sudo" >&2; exit 1; }

# There where systemd runs.
BOOTED := /run/systemd/system

# What runs may have guests that swap, and could not be started again.
ACTIVE = systemctl list-units --plain --no-legend --state=active,activating,reloading,deactivating 'preswapd@*' 'preswapd-sync@*' \
  preswapd-governor.service 'preswapd-metrics.*'

# What is enabled would be started again at the next boot, and is not there then.
ENABLED = $(sort $(notdir $(wildcard $(DESTDIR)/etc/systemd/system/*.wants/preswapd*)))

uninstall:  ## take away what install has brought; configuration, guests' pages and disk files stay
	@[ -z "$(ENABLED)" ] || { echo "Still enabled; swapoff in the guests, then: sudo systemctl disable --now $(ENABLED)" >&2; exit 1; }
	@[ -n "$(DESTDIR)" ] || [ ! -d "$(BOOTED)" ] || { \
	  active=$$($(ACTIVE)) || { echo "systemctl does not say what runs here, and guests may still swap to it" >&2; exit 1; }; \
	  active=$$(printf %s "$$active" | cut -d' ' -f1 | tr '\n' ' '); [ -z "$$active" ] || { \
	  echo "Still running; swapoff in the guests of servers, then: sudo systemctl stop $$active" >&2; exit 1; }; }
	for app in "$(DESTDIR)$(APP)" "$(DESTDIR)$(APP).new" "$(DESTDIR)$(APP).old"; do [ ! -e "$$app/pyvenv.cfg" ] || rm -rf "$$app"; done
	rm -f $(foreach command,preswapd preswapctl,$(addprefix $(TO)/,bin/$(command) share/man/man8/$(command).8 \
	  share/bash-completion/completions/$(command) share/zsh/site-functions/_$(command) \
	  share/fish/vendor_completions.d/$(command).fish)) $(SHARE)/man/man5/preswapd.toml.5 $(SHARE)/man/man5/preswapd-governor.toml.5 \
	  $(addprefix $(UNITS)/,preswapd@.service preswapd@.socket preswapd-sync@.service preswapd-governor.service preswapd-metrics.service preswapd-metrics.timer) \
	  $(TO)/lib/sysusers.d/preswapd.conf $(TO)/lib/tmpfiles.d/preswapd.conf
	rm -rf $(SHARE)/doc/preswapd
	@[ -n "$(DESTDIR)" ] || [ ! -d "$(BOOTED)" ] || systemctl --no-ask-password daemon-reload || true

deb: export PYTHONDONTWRITEBYTECODE := 1
deb: $(BUILT)  ## the Debian package for RELEASE=bookworm, trixie ... into dist/, built in a bare system
	tools/build-deb $(RELEASE)

clean:  ## remove everything that was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find preswapd nbd_plugin -name '*.so' -delete
	find preswapd nbd_plugin tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

help:  ## say what the targets do
	@sed -n 's/^\([a-z]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

$(PACKAGES)-%: tools/system-packages
	$(SYSTEM_PACKAGES) $*
	@mkdir -p $(VENV)
	@touch $@

# pip from 25.1 on knows dependency groups, which is how the tools come in without building the package again.
$(CREATED): | $(PACKAGES)-build
	$(PYTHON) -m venv --system-site-packages $(if $(filter-out $(CREATED),$(wildcard $(VENV)/.created-for-*)),--clear) $(VENV)
	$(PIP) install 'pip >= 25.1'
	@touch $(PACKAGES)-build $(VENV)/.created-for-$$(basename "$$(readlink -f $(PYTHON))")-in-$(THIS_PLACE)  # in a bare system make did not know it before

# The build's own requirements are installed too, so that a changed C file is compiled here and not in a fresh sandbox.
$(VENV)/.installed: $(CREATED) pyproject.toml
	$(PIP) install $$($(BIN)/python -c 'import tomllib; \
	  [print(r.replace(" ", "")) for r in tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"]]')
	$(PIP) install --no-build-isolation --editable ".[remote]"
	@touch $@

$(VENV)/.built: $(VENV)/.installed $(NATIVE_SOURCES)
	@rm -rf build/temp.*  # Cython copies headers there: one that has moved since would be found first
	$(BIN)/python $(KNOWN_EXPERIMENTAL) -c 'import setuptools; setuptools.setup()' --quiet build_ext --inplace --force
	@$(BIN)/python -m compileall -q -f preswapd nbd_plugin  # those who may not write here would do it at each start
	@$(MAKE) --no-print-directory looked-at
	@touch $(PACKAGE_STAMPS) $@  # all that it needs was there, whoever has brought it

# Whether what was installed is here, whatever pip has said.
looked-at:
	@for command in preswapd preswapctl; do $(BIN)/$$command --version >/dev/null || \
	  { echo "$(BIN)/$$command does not run: remove $(VENV) and run make again" >&2; exit 1; }; done

# Draws the plots.
$(VENV)/.bench: $(CREATED) pyproject.toml
	$(PIP) install --group bench
	@touch $@

$(VENV)/.dev: $(CREATED) pyproject.toml
	$(PIP) install --group dev
	@touch $@
