# SPDX-License-Identifier: BSD-3-Clause
"""Small files that are there in full or not at all, also after a crash of the host."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from preswapd.host.filesystems import is_there

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
    return is_there(path) and path.stat().st_size == length


def overwrite_file(path: Path, content: bytes) -> None:
    """One sector is written in full or not at all."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, content, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_and_publish(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


class Fresh:
    """A file under a fresh name, which gets its own in steps: many are written before the first of
    them is synced, and the file system then writes its journal once for all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self.descriptor = os.open(fresh_name(path), flags, 0o600)
        self.is_open = True

    def write(self, content: bytes) -> None:
        if os.write(self.descriptor, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        os.fsync(self.descriptor)

    def publish(self) -> None:
        """On disk once the directory is synced."""
        fresh_name(self.path).rename(self.path)

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            os.close(self.descriptor)

    def give_up(self) -> None:
        self.close()
        fresh_name(self.path).unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Fresh]:
    """One file, whole: written inside, on disk afterwards, or the one of before."""
    file = Fresh(path)
    try:
        yield file
        file.sync()
        file.publish()
        sync_directory(path.parent)
    except BaseException:
        file.give_up()
        raise
    finally:
        file.close()


def remove_file(path: Path) -> None:
    """And what was to replace it.  Gone for good once the directory is synced."""
    fresh_name(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def fresh_name(path: Path) -> Path:
    return path.with_name(path.name + FRESH)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
