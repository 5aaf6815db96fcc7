# SPDX-License-Identifier: BSD-3-Clause
"""The memory cgroups that this process is charged to: over their limits it is killed."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/sys/fs/cgroup")


class Files(NamedTuple):
    """What limits a group, what it uses, and of what kind that is; names, or paths."""

    limit: str  # above it, its processes are killed
    high: str | None  # above it, they are held up
    usage: str
    statistics: str


# By the version of the hierarchy.
UNIFIED = Files("memory.max", "memory.high", "memory.current", "memory.stat")
LEGACY = Files("memory.limit_in_bytes", None, "memory.usage_in_bytes", "memory.stat")


def memory_files(membership: Path = Path("/proc/self/cgroup"), root: Path = ROOT) -> list[Files]:
    """The files of each group: this process's and those above it."""
    try:
        # A group may have any name.
        lines = membership.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    return [files for line in lines for files in groups(line, root)]


def groups(line: str, root: Path) -> Iterator[Files]:
    """A line is NUMBER:CONTROLLERS:PATH, without controllers for the unified hierarchy."""
    _, controllers, path = line.split(":", 2)
    if controllers == "":
        top, names = root, UNIFIED
    elif "memory" in controllers.split(","):
        top, names = root / "memory", LEGACY
    else:
        return
    # A path outside our namespace begins with "..": its group cannot be seen.
    parts = [part for part in path.split("/") if part]
    if ".." in parts:
        parts = []
    for depth in range(len(parts), -1, -1):
        folder = top.joinpath(*parts[:depth])
        limit, high, usage, statistics = (readable(folder, name) for name in names)
        # A group that may not be read limits this process all the same, but not known by how much.
        if limit and usage and statistics:
            yield Files(limit, high, usage, statistics)


def readable(folder: Path, name: str | None) -> str | None:
    if name is None or not os.access(folder / name, os.R_OK):
        return None
    return str(folder / name)
