# SPDX-License-Identifier: BSD-3-Clause
"""One server for each directory: locks that last until the process has ended.

The locks are the kernel's, on open files, so a killed server never leaves one behind; and they are
given back only when the last of its disk writes has ended, because the process ends after that.
"""

import fcntl
import os
from pathlib import Path

from preswapd.errors import RefusedError
from preswapd.paths import (
    DEFAULT_INSTANCE,
    InstancePaths,
    default_runtime_dir,
    default_shm_dir,
    default_state_dir,
)
from preswapd.server.directories import way_out

# As in InstancePaths.locks: what names the directory, and what it is called where nothing does.
NAMED_BY = (
    ("--shm-dir", default_shm_dir),
    ("--runtime-dir", default_runtime_dir),
    ("--state-dir", default_state_dir),
)


def take(paths: InstancePaths, instance: str = DEFAULT_INSTANCE) -> list[int]:
    """Locks all three directories; the descriptors hold the locks."""
    taken: list[int] = []
    try:
        for path, (option, default) in zip(paths.locks, NAMED_BY, strict=True):
            own = "--instance NAME" if path.parent == default(instance) else f"another {option}"
            taken.append(take_one(path, own))
    except BaseException:
        release(taken)
        raise
    return taken


def take_one(path: Path, own: str) -> int:
    """`own` is what gives a server a directory of its own in place of this one."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise RefusedError(f"{path}: {error.strerror}{way_out(path.parent, error)}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RefusedError(
            f"{path.parent} is in use by another server: to serve beside it, give {own}"
        ) from None
    return descriptor


def release(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
