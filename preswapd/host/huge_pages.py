# SPDX-License-Identifier: BSD-3-Clause
"""Whether Linux gives programs memory unasked: transparent huge pages (Linux' transhuge.rst)."""

from contextlib import suppress
from pathlib import Path

FOLDER = Path("/sys/kernel/mm/transparent_hugepage")
# Below it: a huge page is made of what is there of it, unless more than so many of its pages are
# not.
MOST_MISSING = "khugepaged/max_ptes_none"
# Linux 6.8 and newer: pages of 2M, which khugepaged makes, have a switch of their own.
OF_2M = "hugepages-2048kB/enabled"
OF_ALL = "enabled"


def holes_are_filled(folder: Path = FOLDER) -> bool:
    """khugepaged looks for places that are nearly a huge page, and takes the memory that they lack.

    By default it fills up what has a single page.  QEMU asks for it, so "madvise" is "always".
    False where the kernel does not say.
    """
    with suppress(OSError, ValueError):
        return are_made(folder) and int((folder / MOST_MISSING).read_text()) > 0
    return False


def are_made(folder: Path) -> bool:
    """By the switch of their size, unless that hands it on or is not there."""
    with suppress(FileNotFoundError):
        own = (folder / OF_2M).read_text()
        if "[inherit]" not in own:
            return "[never]" not in own
    return "[never]" not in (folder / OF_ALL).read_text()
