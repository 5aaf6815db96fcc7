# SPDX-License-Identifier: BSD-3-Clause
"""doctor's checks of an instance's images."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shlex import quote

from preswapd.api.figures import ImageFigures, Statistics
from preswapd.cli.doctor.finding import FIX, NOTE, OK, Finding
from preswapd.cli.typed import as_root
from preswapd.paths import DEVICE_NAME
from preswapd.units import format_pages, format_size

# What units with ProtectHome=yes do not see.
HOMES = [Path(name) for name in ("/home", "/root", "/run/user")]
HIDDEN = re.compile(r"(/.+?) (?:is missing|cannot be (?:read|written to))\b.*")
# What units with ProtectSystem=strict do not write to, but for their own directories.
READ_ONLY = re.compile(r"(/.+?) cannot be written to: Read-only file system\b.*")
# NAME.sums in the state directory, and what was not finished of one.
SUMS = re.compile(rf"(?P<image>{DEVICE_NAME.pattern})\.sums(?:\.new)?")
# A boot reads a few hundred MiB of a system of a few GiB: of a pool below that nobody gains much.
LITTLE = 1 / 32
# Reads of the first clients are misses: so many tell nothing.
FEW_READS = 1 << 15
# The share of reads below which a full cache does not serve its clients.
FEW_HITS = 0.5


def check_images(name: str, runtime_dir: Path, stats: Statistics) -> Iterator[Finding]:
    """`name`: of the instance, as findings call it."""
    for image, why in stats.get("refused_images", {}).items():
        yield refused(f"{name}, image {image}", runtime_dir, why)
    images = stats.get("images", {})
    for image, figures in images.items():
        yield from check_image(f"{name}, image {image}", figures)
    if images:
        yield from check_pool(name, stats)


def check_sums(name: str, state_dir: Path, stats: Statistics) -> Iterator[Finding]:
    """Digests of images that the configuration does not have any more: nobody else removes them.

    An image that is only left out for a while would have to be read for them again.
    """
    known = {*stats.get("images", {}), *stats.get("refused_images", {})}
    with suppress(OSError):  # others may not look into the directory
        for path in sorted(state_dir.iterdir()):
            match = SUMS.fullmatch(path.name)
            if match is None or match["image"] in known:
                continue
            size = format_size(path.lstat().st_size)
            text = f"{path}, {size}, is of an image that it does not have"
            mend = "if that does not come back"
            yield Finding(NOTE, name, text, mend, as_root(f"rm {quote(str(path))}"))


def refused(subject: str, runtime_dir: Path, why: str) -> Finding:
    text = f"it is not served: {why}"
    if (closed := READ_ONLY.fullmatch(why)) and is_writable_here(Path(closed[1])):
        mend = "units write to their own directories only (ProtectSystem=): let it"
        command = drop_in(runtime_dir, f"ReadWritePaths={in_a_unit(closed[1])}")
        return Finding(FIX, subject, text, mend, command)
    found = HIDDEN.fullmatch(why)
    path = Path(found[1]) if found else None
    if path is not None and is_hidden(path):
        mend = "units hide home directories (ProtectHome=): move it to /srv, or"
        return Finding(FIX, subject, text, mend, drop_in(runtime_dir, "ProtectHome=read-only"))
    mend = "put that right: it is tried again every few seconds"
    return Finding(FIX, subject, text, mend)


def drop_in(runtime_dir: Path, setting: str) -> str:
    """Adds the setting to the instance's unit, which is restarted with it."""
    unit = f"preswapd@{runtime_dir.name}.service"
    folder = f"/etc/systemd/system/{unit}.d"
    return as_root(
        f"mkdir -p {quote(folder)}"
        f" && printf '%s\\n' '[Service]' {quote(setting)} >>{quote(f'{folder}/images.conf')}"
        f" && systemctl daemon-reload && systemctl restart {quote(unit)}"
    )


def in_a_unit(path: str) -> str:
    """As one word, without specifiers."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def is_writable_here(path: Path) -> bool:
    """Whether it is the unit that keeps it read-only, and not the file system itself."""
    with suppress(OSError):
        return not os.statvfs(path).f_flag & os.ST_RDONLY
    return False


def is_hidden(path: Path) -> bool:
    """Whether it is there for us, and in a home directory."""
    with suppress(OSError):
        return path.exists() and any(home in path.resolve().parents for home in HOMES)
    return False


def check_image(subject: str, figures: ImageFigures) -> Iterator[Finding]:
    path, state = figures["path"], figures.get("state", "cached")
    if figures["disk_errors"] and state != "shrunk":
        errors = figures["disk_errors"]
        text = f"I/O errors of {path}, {errors} since the server's start, which its clients had too"
        yield Finding(FIX, subject, text, "look at its disk", "journalctl -k --grep 'I/O error'")
    if state == "shrunk":
        size = figures["size"]
        text = f"{path} is shorter than the {format_size(size)} that its clients were told"
        mend = "make it from what it was made of, or, where only zeros are missing"
        yield Finding(FIX, subject, text, mend, f"truncate -s {size} {quote(path)}")
    elif state == "changed":
        text = f"{path} is being changed: reads go to the file"
        mend = "guests with an overlay of it see a mixture; see who writes"
        yield Finding(FIX, subject, text, mend, as_root(f"fuser -v {quote(path)}"))
    elif state == "grown":
        text = f"{path} is longer than the {format_size(figures['size'])} that its clients see"
        yield Finding(NOTE, subject, text, "they see the rest after a restart of the server")
    elif state == "no pool":
        text = "it is not cached: the instance has no pool left for it"
        yield Finding(NOTE, subject, text, "give some of the images an instance of their own")
    elif figures["replaced"]:
        now = "another file" if Path(path).exists() else "gone"
        text = f"{path} is {now}, and the one that was opened is served until the server ends"
        mend = "restart the server once no guest has an overlay of the old one"
        if figures.get("writable"):
            mend = (
                "what its guest writes goes there: the server's log has the command that keeps it"
            )
        yield Finding(NOTE, subject, text, mend)
    else:
        cached = format_pages(figures["cached_pages"])
        own = ", writable" if figures.get("writable") else ""
        yield Finding(OK, subject, f"{format_size(figures['size'])}{own}, {cached} cached")
    if wrong := figures.get("remote_wrong"):
        text = f"{wrong} pages from the store were not what {path} has, and were read from that"
        mend = (
            "look at the hosts that have the key of its pages (image-key-file): one has a damaged"
            " copy of it, or has been broken into"
        )
        yield Finding(NOTE, subject, text, mend)
    if not figures.get("direct", True):
        text = f"{path} cannot be read past the host's page cache, which may keep it a second time"
        mend = "move it to a file system that knows O_DIRECT (ext4, XFS, Btrfs)"
        yield Finding(NOTE, subject, text, mend)


def check_pool(name: str, stats: Statistics) -> Iterator[Finding]:
    """At most one: is it large enough to matter?"""
    images, limit = stats["images"].values(), stats["tmem"]["mem_limit"]
    size = sum(figures["size"] for figures in images)
    hits = sum(figures["hits"] for figures in images)
    misses = sum(figures["misses"] for figures in images)
    evicted = sum(figures["evicted"] for figures in images)
    reads = hits + misses
    text = ""
    if limit < LITTLE * size:
        text = f"the pool may take {format_size(limit)}, and its images are {format_size(size)}"
    elif evicted and reads > FEW_READS and hits < FEW_HITS * reads:
        share = 100 * hits / reads
        text = f"{share:.0f} % of what clients read of images was cached, and the pool is full"
    if text:
        mend = "raise pool-size (or the governor's reserve is what holds it down)"
        yield Finding(NOTE, f"{name}, images", text, mend)
