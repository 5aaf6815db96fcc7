# SPDX-License-Identifier: BSD-3-Clause
"""/proc/meminfo, and what looks like it: of this host, or as a guest tells it."""

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
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
        return amounts(path.read_text()).get("MemAvailable")
    except OSError:
        return None


def total_memory(path: Path = MEMINFO) -> int:
    return amounts(path.read_text()).get("MemTotal", 0)


def default_reserve(path: Path = MEMINFO) -> int:
    """Of `host-reserve`: 5 % of the host's memory, at least 512 MiB."""
    return max(total_memory(path) // 20, SMALLEST_RESERVE)
