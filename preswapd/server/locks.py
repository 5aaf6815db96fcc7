# SPDX-License-Identifier: BSD-3-Clause
"""One server for each directory: locks that last until the process has ended.

The locks are the kernel's, on open files, so a killed server never leaves one behind; and they are
given back only when the last of its disk writes has ended, because the process ends after that.
"""

import fcntl
import os
from pathlib import Path

from preswapd.errors import RefusedError
from preswapd.paths import InstancePaths
from preswapd.server.directories import way_out


def take(paths: InstancePaths) -> list[int]:
    """Locks all three directories; the descriptors hold the locks."""
    taken: list[int] = []
    try:
        for path in paths.locks:
            taken.append(take_one(path))
    except BaseException:
        release(taken)
        raise
    return taken


def take_one(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise RefusedError(f"{path}: {error.strerror}{way_out(path.parent, error)}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RefusedError(f"{path.parent} is in use by another server") from None
    return descriptor


def release(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
