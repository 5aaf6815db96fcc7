# SPDX-License-Identifier: BSD-3-Clause
"""Which disk files the pages in shared memory belong to: the lock file there names their directory.

Another HOME, another XDG_STATE_HOME or another line in the configuration leads to a directory
without them.  A start there must not end in the advice to throw the pages away.
"""

import os
from contextlib import suppress
from pathlib import Path

from preswapd.errors import RefusedError
from preswapd.paths import InstancePaths
from preswapd.preswap.files.sidecar import SUFFIX

LONGEST_PATH = 4096


def check(paths: InstancePaths, lock: int) -> None:
    """RefusedError where the disk files lie in another directory, and none in this one."""
    noted = os.pread(lock, LONGEST_PATH, 0)
    before = Path(os.fsdecode(noted))
    if noted and before != paths.state_dir and knows(before) and not knows(paths.state_dir):
        raise RefusedError(
            f"the pages in {paths.shm_dir} belong to the disk files in {before}, and there are none"
            f" in {paths.state_dir}: start it with --state-dir {before}, or move them while it is"
            " stopped"
        )


def note(paths: InstancePaths, lock: int) -> None:
    """For the next start.  Where there is no room for it, that one does without."""
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, os.fsencode(paths.state_dir), 0)


def knows(state_dir: Path) -> bool:
    """Whether any device has its disk file there."""
    try:
        return any(name.endswith(SUFFIX) for name in os.listdir(state_dir))
    except OSError:
        return False
