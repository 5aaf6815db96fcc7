# SPDX-License-Identifier: BSD-3-Clause
"""The memory cgroups that this process is charged to: over their limits it is killed."""

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
# Limit, usage and statistics, by the version of the hierarchy.
UNIFIED = ("memory.max", "memory.current", "memory.stat")
LEGACY = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")


def memory_files(
    membership: Path = Path("/proc/self/cgroup"), root: Path = ROOT
) -> list[tuple[str, str, str]]:
    """Limit, usage and statistics file of each group: this process's and those above it."""
    try:
        # A group may have any name.
        lines = membership.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    return [files for line in lines for files in groups(line, root)]


def groups(line: str, root: Path) -> Iterator[tuple[str, str, str]]:
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
        limit, usage, statistics = (folder / name for name in names)
        # A group that may not be read limits this process all the same, but not known by how much.
        if all(os.access(file, os.R_OK) for file in (limit, usage, statistics)):
            yield str(limit), str(usage), str(statistics)
