# SPDX-License-Identifier: BSD-3-Clause
"""doctor's checks of what runs the guests: QEMU, libvirt and AppArmor."""

import shutil
from pathlib import Path

from preswapd.cli.doctor.finding import FIX, NOTE, OK, Finding
from preswapd.cli.typed import as_root
from preswapd.host.kernel import is_on
from preswapd.host.versions import (
    LIBVIRT_RECONNECTS,
    LIBVIRTS,
    Version,
    first_version,
    version_text,
)
from preswapd.paths import runtime_root

# Fedora and RHEL keep theirs outside PATH.
QEMUS = ("qemu-system-x86_64", "qemu-system-aarch64", "qemu-kvm", "/usr/libexec/qemu-kvm")
# What a host adds to libvirt's profile.
LOCAL = Path("etc/apparmor.d/local/abstractions/libvirt-qemu")
# Or in files of this folder, beside that profile, where that names it, as libvirt 10's does.
FOLDER = "libvirt-qemu.d"
# Where libvirt looks for hooks, and where `make install` and the Debian package leave ours.
HOOKS = Path("etc/libvirt/hooks")
OURS = [Path(f"usr/{prefix}share/doc/preswapd/libvirt-hook") for prefix in ("local/", "")]
# What `preswapctl qemu-args` prints needs open-timeout, the newest of its options.
OLDEST_QEMU: Version = (7, 0)


def check_guests() -> list[Finding]:
    libvirt = first_version(LIBVIRTS)
    return [
        *check_qemu(first_version(QEMUS)),
        *check_libvirt(libvirt),
        *(check_apparmor(Path("/"), runtime_root()) if libvirt else []),
        *(check_hook(Path("/")) if libvirt else []),
        *check_managed_save(),
    ]


def check_qemu(version: Version | None) -> list[Finding]:
    if version is None:
        text = "not found here"
        return [Finding(NOTE, "QEMU", text, "install it, if guests are to run on this host")]
    text = f"version {version_text(version)}"
    if version < OLDEST_QEMU:
        return [
            Finding(
                FIX,
                "QEMU",
                f"{text} does not know the options of `preswapctl qemu-args`",
                f"use {version_text(OLDEST_QEMU)} or newer",
            )
        ]
    return [Finding(OK, "QEMU", text)]


def check_libvirt(version: Version | None) -> list[Finding]:
    if version is None:
        return []
    text = f"version {version_text(version)}"
    if version < LIBVIRT_RECONNECTS:
        return [
            Finding(
                NOTE,
                "libvirt",
                f"{text} does not know <reconnect>: guests that get the disk from it see I/O errors"
                " when the server restarts",
                "define the guest with `preswapctl libvirt-xml`, or use libvirt"
                f" {version_text(LIBVIRT_RECONNECTS)} or newer",
            )
        ]
    return [Finding(OK, "libvirt", text)]


def check_apparmor(root: Path, sockets: Path) -> list[Finding]:
    """libvirt gives each guest a profile, and by default it does not allow the servers' sockets."""
    main = root / "etc/apparmor.d/abstractions/libvirt-qemu"
    if not is_on(root / "sys/module/apparmor/parameters/enabled") or not main.exists():
        return []
    profiles = [main, root / LOCAL]
    if any(FOLDER in line for line in lines_of(main)):
        profiles += main.with_name(FOLDER).glob("*")
    if any(allows_sockets(path, sockets) for path in profiles):
        return [Finding(OK, "AppArmor", f"lets libvirt's guests use the sockets in {sockets}")]
    if not confines_sockets(root / "sys/kernel/security/apparmor/features"):
        return [Finding(OK, "AppArmor", "does not confine Unix sockets in this kernel")]
    return [
        Finding(
            FIX,
            "AppArmor",
            f"does not let libvirt's guests use the sockets in {sockets}",
            "add a line to libvirt's abstraction, and restart the guests",
            as_root(
                f"mkdir -p /{LOCAL.parent} && printf '\\n%s\\n'"
                f" '{sockets}/*/nbd.sock rw,' >>/{LOCAL}"
            ),
        )
    ]


def confines_sockets(features: Path) -> bool:
    """Debian 12's kernel does not; where that cannot be read, it may."""
    return not features.is_dir() or any(features.glob("network*/af_unix"))


def allows_sockets(profile: Path, sockets: Path) -> bool:
    return any(line.strip().startswith(f"{sockets}/") for line in lines_of(profile))


def lines_of(profile: Path) -> list[str]:
    """None of one that cannot be read."""
    try:
        return profile.read_text(errors="replace").splitlines()
    except OSError:
        return []


def check_hook(root: Path) -> list[Finding]:
    """It keeps guests from coming here without their swap."""
    hooks = [root / HOOKS / "qemu", *(root / HOOKS / "qemu.d").glob("*")]
    if any(mentions_us(path) for path in hooks):
        return [Finding(OK, "libvirt", "lets no guest come here without its swapped pages")]
    ours = next((path for path in OURS if (root / path).exists()), None)
    return [
        Finding(
            NOTE,
            "libvirt",
            "a guest that is migrated here meets I/O errors, unless its device was made here before"
            " (`preswapctl create --from`)",
            "a hook refuses such a guest; restart libvirtd or virtqemud then"
            " (docs/guides/libvirt.md, Migrate it)",
            as_root(f"install -D -m 755 /{ours} /{HOOKS}/qemu.d/preswapd") if ours else None,
        )
    ]


def mentions_us(path: Path) -> bool:
    try:
        return "preswapd" in path.read_text(errors="replace")
    except OSError:
        return False


def check_managed_save() -> list[Finding]:
    if shutil.which("virsh") is None:
        return []
    return [
        Finding(
            NOTE,
            "libvirt",
            "a guest that is migrated, or saved for another host, leaves its swapped pages behind",
            "take them along: create --from, or preswapctl save (docs/guides/moving.md). Here"
            " preswapd-sync@ keeps them over an orderly reboot, also with ON_SHUTDOWN=suspend",
        )
    ]
