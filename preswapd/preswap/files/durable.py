# SPDX-License-Identifier: BSD-3-Clause
"""Small files that are there in full or not at all, also after a crash of the host."""

import errno
import os
from pathlib import Path

FRESH = ".new"
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


def write_file(path: Path, content: bytes) -> None:
    """Replaces the file's content in one step.

    Where there is no room for a second file, content of the same length is written over the first:
    a disk that is full must not keep a server from starting or stopping.
    """
    try:
        write_and_publish(path, content)
    except OSError as error:
        if error.errno not in NO_ROOM or not has_length(path, len(content)):
            raise
        overwrite_file(path, content)


def has_length(path: Path, length: int) -> bool:
    return path.exists() and path.stat().st_size == length


def overwrite_file(path: Path, content: bytes) -> None:
    """One sector is written in full or not at all."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, content, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_and_publish(path: Path, content: bytes) -> None:
    fresh = fresh_name(path)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        publish(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def remove_file(path: Path) -> None:
    """And what was to replace it.  Gone for good once the directory is synced."""
    fresh_name(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def fresh_name(path: Path) -> Path:
    return path.with_name(path.name + FRESH)


def publish(path: Path) -> None:
    """What was made under the fresh name gets its own."""
    fresh_name(path).rename(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
