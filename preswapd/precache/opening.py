# SPDX-License-Identifier: BSD-3-Clause
"""From a path to an image that may be served, or why not."""

import errno
import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from preswapd.errors import RefusedError
from preswapd.host.disk_locks import lock_to_read
from preswapd.precache.formats import format_of
from preswapd.units import PAGE_SIZE, exact_size

# The least that a disk can be asked for.
SECTOR = 512


@dataclass(frozen=True)
class Opened:
    """`is_direct`: past the page cache, where the pages would lie a second time."""

    descriptor: int
    size: int
    is_direct: bool

    def close(self) -> None:
        os.close(self.descriptor)


def open_image(path: Path) -> Opened:
    """To read.  RefusedError with what is wrong and what helps."""
    descriptor = opened(path, 0)
    try:
        size = check(path, descriptor)
        lock_to_read(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return past_the_page_cache(path, descriptor, size)


def opened(path: Path, flags: int) -> int:
    try:
        # A named pipe without a writer would be waited for.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    except FileNotFoundError:
        raise RefusedError(f"{path} is missing") from None
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}") from None


def check(path: Path, descriptor: int) -> int:
    """Its size."""
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise RefusedError(f"{path} is neither a file nor a block device")
    try:
        found = format_of(descriptor)
        size = os.lseek(descriptor, 0, os.SEEK_END)
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}") from None
    if found:
        raise RefusedError(
            f"{path} is a {found} image, and only raw ones are served: qemu-img convert -O raw"
            f" {quote(str(path))} {quote(f'{path}.raw')}, and give it that file"
        )
    if size == 0:
        raise RefusedError(f"{path} is empty")
    if size % SECTOR:
        longer = size + -size % SECTOR
        raise RefusedError(
            f"{path} is {size} bytes long, no multiple of {SECTOR} as disks are: truncate -s"
            f" {longer} {quote(str(path))} makes it {exact_size(longer)} long"
        )
    return size


def past_the_page_cache(path: Path, descriptor: int, size: int) -> Opened:
    """The locks are those of the open file, so it is the same one with other flags."""
    flags = os.O_RDONLY | os.O_DIRECT | os.O_NONBLOCK
    try:
        direct = os.open(f"/proc/self/fd/{descriptor}", flags | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            os.close(descriptor)
            raise RefusedError(f"{path} cannot be read: {error.strerror}") from None
        return Opened(descriptor, size, False)
    if not reads_pages(direct):
        os.close(direct)
        return Opened(descriptor, size, False)
    try:
        lock_to_read(direct, path)
    except BaseException:
        os.close(direct)
        os.close(descriptor)
        raise
    os.close(descriptor)
    return Opened(direct, size, True)


def reads_pages(direct: int) -> bool:
    """Not where the disk's own sectors are longer than a page."""
    with mmap.mmap(-1, PAGE_SIZE) as page:
        try:
            return os.preadv(direct, [page], 0) > 0
        except OSError:
            return False
