# SPDX-License-Identifier: BSD-3-Clause
"""A device's disk file: what tmem did not take lies there, each page in its own place."""

import errno
import mmap
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from preswapd.errors import RefusedError
from preswapd.host.filesystems import avoid_copy_on_write, is_there, tells_holes
from preswapd.preswap.files.durable import Fresh, fresh_name, remove_file
from preswapd.preswap.files.identity import Identity, identity, write_token
from preswapd.units import PAGE_SIZE, exact_size

# Pages that are cleared at once.
PIECE_PAGES = 256


def check_disk_file(path: Path, size: int) -> None:
    """RefusedError when the disk file is missing or of another size."""
    try:
        if not (path.is_file() or path.is_block_device() or not is_there(path)):
            raise RefusedError(f"{path} is neither a file nor a block device")
        found = size_of(path)
    except FileNotFoundError:
        raise RefusedError(f"the disk file {path} is missing") from None
    except OSError as error:
        raise RefusedError(f"the disk file {path} cannot be read: {error.strerror}") from None
    if found != size and not (is_block_device(path) and found > size):
        raise RefusedError(
            f"the disk file {path} is {exact_size(found)} long, its device {exact_size(size)}"
        )


def check_unclaimed(path: Path, size: int) -> None:
    """A new device may take a block device, or what a killed creation has left, not a file."""
    if not os.path.lexists(path):
        return
    check_disk_file(path, size)
    if is_block_device(path):
        check_unused(path)
        return
    with open(path, "rb") as file:
        if any(end > PAGE_SIZE for _, end in data_ranges(file.fileno(), size)):
            raise RefusedError(f"{path} exists and belongs to no device: remove or rename it")


def check_unused(path: Path) -> None:
    """RefusedError for a block device that another device, a mount or the host's own swap uses."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_EXCL))
    except OSError as error:
        why = "is in use" if error.errno == errno.EBUSY else f"does not open: {error.strerror}"
        raise RefusedError(f"{path} leads to a block device that {why}") from None


def is_block_device(path: Path) -> bool:
    return path.is_block_device()


def alone(path: Path) -> int:
    """The flag of open(2) by which a block device has one user; on files it has no meaning."""
    return os.O_EXCL if is_block_device(path) else 0


def size_of(path: Path) -> int:
    with open(path, "rb") as file:
        return file.seek(0, os.SEEK_END)


def make_disk_file(
    path: Path, size: int, header: bytes, zone: Iterable[range], token: int
) -> tuple[Fresh | None, Identity]:
    """The header, zeros in the rest of the zone, and the token.

    A sparse file that is not synced and has not got its name; or None: the block device that the
    path leads to, synced.
    """
    if is_block_device(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | alone(path))
        try:
            clear(descriptor, zone)
            write_at(descriptor, header, 0)
            write_token(descriptor, size, token)
            os.fsync(descriptor)
            return None, identity(descriptor, size)
        finally:
            os.close(descriptor)
    file = Fresh(path)
    try:
        avoid_copy_on_write(file.descriptor)
        os.ftruncate(file.descriptor, size)
        write_at(file.descriptor, header, 0)
        write_token(file.descriptor, size, token)
        return file, identity(file.descriptor, size)
    except BaseException:
        file.give_up()
        raise


def clear(descriptor: int, parts: Iterable[range]) -> None:
    """Zeros in these pages; not synced."""
    # Aligned, for O_DIRECT.
    with mmap.mmap(-1, PIECE_PAGES * PAGE_SIZE) as zeros, memoryview(zeros) as view:
        for part in parts:
            for at in range(part.start, part.stop, PIECE_PAGES):
                count = min(PIECE_PAGES, part.stop - at)
                with view[: count * PAGE_SIZE] as piece:
                    write_at(descriptor, piece, at * PAGE_SIZE)


def make_zone(descriptor: int, header: bytes, zone: Iterable[range]) -> None:
    """As a new device's: the header, and zeros; not synced."""
    clear(descriptor, zone)
    with mmap.mmap(-1, PAGE_SIZE) as page:
        page[:] = header
        with memoryview(page) as view:
            write_at(descriptor, view, 0)


def write_at(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    if os.pwrite(descriptor, content, offset) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def open_disk_file(path: Path) -> int:
    """Past the page cache where the file system can: a page that lands there saves nothing."""
    flags = os.O_RDWR | os.O_CLOEXEC | alone(path)
    try:
        return os.open(path, flags | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags)


def holes(descriptor: int, size: int) -> Iterator[range]:
    """Ranges of whole pages without a block; none where holes can't be told from zeros."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not tells_holes(descriptor):
        return
    at = 0
    for start, end in data_ranges(descriptor, size):
        if at < start // PAGE_SIZE:
            yield range(at, start // PAGE_SIZE)
        at = -(-end // PAGE_SIZE)
    if at < size // PAGE_SIZE:
        yield range(at, size // PAGE_SIZE)


def remove_disk_file(path: Path) -> None:
    """A block device stays, and so does the link that leads to it."""
    if is_block_device(path):
        fresh_name(path).unlink(missing_ok=True)
    else:
        remove_file(path)


def data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of what was written, in bytes; all of it where there are no holes."""
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno == errno.EINVAL:  # a block device, or a file system without holes
                start = at
            else:
                raise
        if start >= size:
            return
        try:
            at = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            at = size
        yield start, at
