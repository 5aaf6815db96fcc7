# SPDX-License-Identifier: BSD-3-Clause
"""/proc/meminfo, and what looks like it: of this host, or as a guest tells it."""

import mmap
import re
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
ZONEINFO = Path("/proc/zoneinfo")
# Found five times a second by a governor: all amounts would take three times as long.
AVAILABLE = re.compile(r"^MemAvailable: +(\d+) kB$", re.MULTILINE)
# Of one processor's list, in pages.
LISTED = re.compile(r"^ +count: +(\d+)$", re.MULTILINE)
SMALLEST_RESERVE = 512 << 20


def amounts(text: str) -> dict[str, int]:
    """The lines that are amounts, in bytes."""
    lines = (line.split() for line in text.splitlines())
    return {
        words[0].rstrip(":"): int(words[1]) * 1024
        for words in lines
        if len(words) == 3 and words[2] == "kB"
    }


def available_memory(path: Path = MEMINFO) -> int | None:
    """Bytes that programs could still get without swapping; None where it cannot be read."""
    try:
        found = AVAILABLE.search(path.read_text())
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024


def listed_memory(path: Path = ZONEINFO) -> int:
    """Bytes of free pages on the lists that each processor has for itself; 0 where it is not told.

    MemAvailable leaves them out.  Since Linux 6.7 these lists grow with what is freed at once, up
    to an eighth of the memory, and then give 8 MiB a second back: of 800 MiB punched out of a file
    in shared memory 714 were on them (6.18, two processors, 24 GiB).  Who is short of memory gets
    them before anything is reclaimed.
    """
    try:
        return listed(path.read_text())
    except OSError:
        return 0


def listed(zoneinfo: str) -> int:
    return sum(map(int, LISTED.findall(zoneinfo))) * mmap.PAGESIZE


def total_memory(path: Path = MEMINFO) -> int:
    return amounts(path.read_text()).get("MemTotal", 0)


def default_reserve(path: Path = MEMINFO) -> int:
    """Of `host-reserve`: 5 % of the host's memory, at least 512 MiB."""
    return max(total_memory(path) // 20, SMALLEST_RESERVE)
