# SPDX-License-Identifier: BSD-3-Clause
"""doctor's checks of the host, whether or not a server runs."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from preswapd.cli.doctor.finding import FIX, NOTE, OK, Finding
from preswapd.cli.typed import as_root
from preswapd.errors import RefusedError, UsageError
from preswapd.host.container import SHARED_MEMORY
from preswapd.host.disks import has_direct_io
from preswapd.host.filesystems import (
    copies_on_write,
    existing_parent,
    free_bytes,
    is_tmpfs,
    total_bytes,
)
from preswapd.host.kernel import is_on
from preswapd.host.logind import deletes_shared_memory_of, is_ordinary
from preswapd.host.nbdkit import choose_structured_replies, choose_threads, probe
from preswapd.host.pressure import memory_pressure
from preswapd.paths import state_root
from preswapd.units import format_size

# What installs packages, and how they are called there.
PACKAGES = {"apt-get": "nbdkit nbdkit-plugin-python", "dnf": "nbdkit nbdkit-python-plugin"}
# The drop-in with the last name counts.
KEEP_IPC = (
    "mkdir -p /etc/systemd/logind.conf.d"
    r" && printf '[Login]\nRemoveIPC=no\n' >/etc/systemd/logind.conf.d/zz-preswapd.conf"
    " && systemctl restart systemd-logind"
)
# With less free, even what a small pool rejects soon fills the disk.
LITTLE_DISK = 1 << 30


def check_host() -> list[Finding]:
    return [
        *check_nbdkit(),
        check_shared_memory(SHARED_MEMORY, "shared memory"),
        *check_huge_pages(),
        *check_default_state_directory(),
        *check_remove_ipc(os.geteuid()),
        *check_swap(Path("/")),
        check_pressure(Path("/")),
    ]


def check_default_state_directory() -> list[Finding]:
    try:
        return check_state_directory(state_root(), "disk files")
    except UsageError as error:
        return [Finding(NOTE, "disk files", str(error))]


def check_nbdkit() -> list[Finding]:
    try:
        found = probe()
    except RefusedError as error:
        return [Finding(FIX, "nbdkit", str(error), *installing(str(error)))]
    version = found.version_text
    text = f"version {version}, its plugin embeds Python {found.python}, the same as here"
    findings = [Finding(OK, "nbdkit", text)]
    threads, why = choose_threads(found.version, None)
    if threads == 1:
        findings.append(
            Finding(
                NOTE,
                "nbdkit",
                f"one worker thread: {why}",
                "nbdkit 1.34 or newer gets 16",
            )
        )
    structured, why = choose_structured_replies(found.version)
    if not structured:
        findings.append(Finding(NOTE, "nbdkit", f"no structured replies: {why}"))
    return findings


def installing(complaint: str) -> tuple[str, str] | tuple[()]:
    """How the distribution's own nbdkit comes onto this host, where that is what is missing."""
    for manager, packages in PACKAGES.items():
        if "not installed" in complaint and shutil.which(manager):
            return "install it", as_root(f"{manager} install -y {packages}")
    return ()


def check_shared_memory(directory: Path, subject: str) -> Finding:
    place = quote(str(directory))
    mount = as_root(f"mkdir -p {place} && mount -t tmpfs tmpfs {place}")
    if not directory.is_dir():
        return Finding(FIX, subject, f"{directory} is not there", "mount a tmpfs there", mount)
    if not is_tmpfs(directory):
        return Finding(FIX, subject, f"{directory} is not on a tmpfs", "mount a tmpfs there", mount)
    total, free = total_bytes(directory), free_bytes(directory)
    if total == 0:
        return Finding(OK, subject, f"{directory} has no limit of its own")
    return Finding(
        OK, subject, f"{directory} holds {format_size(total)}, {format_size(free)} of it free"
    )


def check_huge_pages() -> list[Finding]:
    """With huge pages everywhere, each small slab would take two megabytes."""
    for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines():
        _, place, kind, options = line.split()[:4]
        if kind == "tmpfs" and place == str(SHARED_MEMORY):
            bad = {"huge=always", "huge=within_size"} & set(options.split(","))
            if bad:
                return [
                    Finding(
                        FIX,
                        "shared memory",
                        f"{place} is mounted with {bad.pop()}: a slab of 64K takes 2M there",
                        "mount it without",
                        as_root(f"mount -o remount,huge=never {place}"),
                    )
                ]
    return []


def check_state_directory(directory: Path, subject: str) -> list[Finding]:
    try:
        place = existing_parent(directory)
        free = free_bytes(place)
    except OSError as error:
        # For example another user's home directory, which su or setpriv left in the environment.
        return [Finding(NOTE, subject, f"{directory}: {error.strerror}")]
    text = f"{directory}: {format_size(free)} free"
    if free < LITTLE_DISK:
        space = Finding(
            FIX, subject, text, "free some space: what the pool does not take is written there"
        )
    else:
        space = Finding(OK, subject, text)
    return [space, *check_direct_io(place, subject), *check_copy_on_write(directory, subject)]


def check_copy_on_write(directory: Path, subject: str) -> Iterator[Finding]:
    """Disk files that an older release made, or that were copied there."""
    for path in sorted(directory.glob("*.img")):
        try:
            is_copied = path.is_file() and copies_on_write(path)
        except OSError:
            continue  # it was removed meanwhile, or is another user's
        if is_copied:
            yield Finding(
                NOTE,
                subject,
                f"Btrfs writes {path} anew at each change: on a full file system also writes over"
                " pages that are there fail",
                "swapoff in its guest, then remove and create the device again, which mends it",
            )


def check_direct_io(place: Path, subject: str) -> list[Finding]:
    try:
        if has_direct_io(place):
            return [Finding(OK, subject, f"{place} has O_DIRECT")]
    except OSError as error:
        return [Finding(NOTE, subject, f"O_DIRECT could not be tried in {place}: {error.strerror}")]
    return [
        Finding(
            NOTE,
            subject,
            f"{place} has no O_DIRECT: disk files there also fill the host's page cache",
            "keep the disk files on ext4, XFS or btrfs",
        )
    ]


def check_remove_ipc(user: int) -> list[Finding]:
    if not is_ordinary(user):
        return []
    if deletes_shared_memory_of(user):
        return [
            Finding(
                FIX,
                "logind",
                f"deletes the shared memory of user {user}, and so the guests' pages, at logout",
                "run the server as a system user, or let logind keep it",
                as_root(KEEP_IPC),
            )
        ]
    return [Finding(OK, "logind", "keeps shared memory at logout")]


def check_swap(root: Path) -> list[Finding]:
    """What the host swaps out of a pool is compressed already, and a guest waits for it."""
    findings = []
    try:
        text = (root / "proc/swaps").read_text(errors="replace")
        areas = [line.split()[0] for line in text.splitlines()[1:]]
    except OSError:
        areas = []
    if areas:
        findings.append(
            Finding(
                NOTE,
                "swap",
                f"the host itself swaps, to {', '.join(areas)}: pages in a pool may go there too",
                "set MemorySwapMax=0 for the server, as preswapd@.service does; in a container,"
                " --memory-swap to what --memory is",
            )
        )
    if areas and is_on(root / "sys/module/zswap/parameters/enabled"):
        text = "zswap is on: pages of guests would be compressed a second time"
        findings.append(Finding(NOTE, "swap", text, "MemorySwapMax=0, or zswap.enabled=0"))
    return findings or [Finding(OK, "swap", "the host itself does not swap")]


def check_pressure(root: Path) -> Finding:
    """A host that is short of memory has pressure; one that merely uses all of it has none."""
    pressure = memory_pressure(root / "proc/pressure/memory", seconds=60)
    if pressure is None:
        return Finding(
            NOTE, "pressure", "the kernel does not measure memory pressure (PSI)", "boot with psi=1"
        )
    return Finding(
        OK, "pressure", f"tasks waited for memory {pressure.some:.2f} % of the last minute"
    )
