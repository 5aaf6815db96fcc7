# SPDX-License-Identifier: BSD-3-Clause
"""Writes down what a Debian reads of its root disk while it boots, for the benchmark `images`.

    .venv/bin/python -m tests.scan.record_boot bookworm benchmarks/images/debian-12.trace.xz

Boots the Debian that tests/scan/debian.py makes (once, as root) in QEMU's emulator. Its root is an
overlay over an NBD export of the image, and nbdkit logs each read of that, until systemd has
nothing more to start. Of the image's bytes nothing is kept but how far LZ4 compresses each page
that was read, and those around it. The format: benchmarks/images/recording.py.
"""

import argparse
import lzma
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from benchmarks.images.recording import LARGEST, UNIT
from preswapd.guest.kernel import default_cache
from preswapd.guest.programs import find
from preswapd.host.children import Child
from preswapd.tmem import PERSISTENT, Host
from preswapd.units import PAGE_SIZE
from tests.running import PATIENCE
from tests.scan.booting import booted
from tests.scan.debian import SUITES, Debian, build

# Whoever reads ahead, or keeps more than is asked for, finds real pages there.
AROUND = 256
RUN_PAGES = 64  # of a line
HEADER = """\
# {suite}, Linux {kernel}: what one boot under QEMU's emulator read of its root disk.
# Written by tests/scan/record_boot.py; the format: benchmarks/images/recording.py.
"""
# Of nbdkit's log filter, when a read comes and when it was answered.
BEGUN = re.compile(r"(\S+ \S+) connection=\d+ Read id=(\d+) offset=(0x\w+) count=(0x\w+)")
ENDED = re.compile(r"(\S+ \S+) connection=\d+ \.\.\.Read id=(\d+) return=0")


class Read(NamedTuple):
    """`waited`: microseconds since the request before was sent or one was answered, whichever came
    later; `others`: how many were not answered yet."""

    waited: int
    others: int
    offset: int
    length: int


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.scan.record_boot",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    debian = build(given.suite, default_cache() / "scan")
    with tempfile.TemporaryDirectory(prefix="preswapd-record-") as folder:
        kernel, log = logged_boot(debian, Path(folder))
        found = list(reads(log.splitlines()))
        text = [HEADER.format(suite=debian.suite, kernel=kernel)]
        text += [
            f"S {debian.image.stat().st_size}\n",
            *compressed(debian.image, found, Path(folder)),
        ]
        text += [f"R {' '.join(map(str, read))}\n" for read in found]
    with lzma.open(given.file, "wt", preset=9) as file:
        file.writelines(text)
    size = sum(read.length for read in found)
    print(f"{len(found)} reads, {size >> 20} MiB; {given.file.stat().st_size >> 10} KiB written")
    return 0


def logged_boot(debian: Debian, folder: Path) -> tuple[str, str]:
    """The kernel's release, and nbdkit's log."""
    log, ready, socket = (folder / name for name in ("log", "pid", "nbd.sock"))
    server = Child(
        [
            *(str(find("nbdkit", "nbdkit")), "--foreground", "--readonly", f"--pidfile={ready}"),
            *(f"--unix={socket}", "--filter=log", "file", str(debian.image), f"logfile={log}"),
        ]
    )
    try:
        server.watch(lambda: ready.exists() or None, PATIENCE)
        with booted(debian, [], folder, root=f"nbd+unix:///?socket={socket}") as guest:
            kernel = guest.run("uname -r", PATIENCE).output.strip()
            return kernel, log.read_text()
    finally:
        server.kill()


def reads(log: Iterable[str]) -> Iterator[Read]:
    under_way: set[str] = set()
    last: datetime | None = None
    for line in log:
        if begun := BEGUN.match(line):
            now = datetime.fromisoformat(begun[1])
            waited = (now - last).total_seconds() * 1e6 if last else 0.0
            last = now
            yield Read(round(waited), len(under_way), int(begun[3], 16), int(begun[4], 16))
            under_way.add(begun[2])
        elif (ended := ENDED.match(line)) and ended[2] in under_way:
            under_way.discard(ended[2])
            last = datetime.fromisoformat(ended[1])


def compressed(image: Path, found: Sequence[Read], folder: Path) -> Iterator[str]:
    """Lines of runs of pages, each with the size of every page."""
    wanted: set[int] = set()
    for read in found:
        first, end = read.offset // PAGE_SIZE, -(-(read.offset + read.length) // PAGE_SIZE)
        wanted.update(range(max(first - AROUND, 0), end + AROUND))
    wanted.intersection_update(range(-(-image.stat().st_size // PAGE_SIZE)))
    host = Host(folder / "arena", limit=64 << 20, create=True)
    try:
        with image.open("rb") as file:
            run: list[tuple[int, int]] = []
            for page in sorted(wanted):
                size = size_of(host, read_page(file.fileno(), page))
                if run and (page != run[-1][0] + 1 or len(run) == RUN_PAGES):
                    yield line_of(run)
                    run = []
                run.append((page, size))
            yield line_of(run)
    finally:
        host.close()


def read_page(file: int, page: int) -> bytes:
    """With zeros behind the image's end."""
    return os.pread(file, PAGE_SIZE, page * PAGE_SIZE).ljust(PAGE_SIZE, b"\0")


def size_of(host: Host, page: bytes) -> int:
    """After LZ4, in UNITs; 0: one repeated value, or zeros."""
    pool = host.new_pool(flags=PERSISTENT) if not host.has_pool(0) else 0
    if not host.put_page(pool, 0, 0, page, compress="lz4"):
        raise RuntimeError("a page was rejected by a pool with room")
    stats = host.stats()
    return 0 if stats["same_filled_pages"] else min(-(-stats["compr_data_size"] // UNIT), LARGEST)


def line_of(run: Sequence[tuple[int, int]]) -> str:
    return f"P {run[0][0]} {bytes(size for _, size in run).hex()}\n"


if __name__ == "__main__":
    sys.exit(main())
