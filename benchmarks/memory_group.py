# SPDX-License-Identifier: BSD-3-Clause
"""A memory cgroup of our own: a limit on a process together with its part of the page cache."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from preswapd.host.cgroups import memory_files

# Runs a command line in the group whose folder comes before it.
JOIN = ("/bin/sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"')
REMOVAL_SECONDS = 5.0


@dataclass(frozen=True)
class MemoryGroup:
    """Its files, whose names depend on the version of the hierarchy."""

    folder: Path
    limit_file: Path
    usage_file: Path

    @property
    def wrapper(self) -> tuple[str, ...]:
        return (*JOIN, str(self.folder))

    def usage(self) -> int:
        """Bytes of processes and page cache."""
        return int(self.usage_file.read_text())

    def limit(self, size: int) -> None:
        self.limit_file.write_text(str(size))


@contextmanager
def memory_group() -> Iterator[MemoryGroup | None]:
    """Removed in the end, when its processes have ended; None where no group can be made."""
    group = make()
    try:
        yield group
    finally:
        if group is not None:
            remove(group.folder)


def make() -> MemoryGroup | None:
    """Below our own group, so that whatever limits us still does; else as near to it as can be.

    The unified hierarchy gives limits to no group below one that has processes.
    """
    for files in memory_files():
        limit, usage = files.limit, files.usage
        try:
            folder = Path(mkdtemp(prefix="preswapd-bench-", dir=Path(limit).parent))
        except OSError:
            continue
        found = MemoryGroup(folder, folder / Path(limit).name, folder / Path(usage).name)
        with suppress(OSError):
            found.limit(1 << 40)
            return found
        remove(folder)
    return None


def remove(folder: Path) -> None:
    """A process that has just ended may still count."""
    deadline = time.monotonic() + REMOVAL_SECONDS
    while True:
        try:
            return folder.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
