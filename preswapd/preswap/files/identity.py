# SPDX-License-Identifier: BSD-3-Clause
"""What tells the disk file that was served from another one, or from an older copy of it.

A random token, which is in the sidecar and the arena too and is drawn anew at each mark; the inode;
and, of one that was left clean, the time of its last change.  Name, size and inode alone do not do:
on ext4 `rm a; cp -a b a` gave the same inode, extended attributes and mtime.
"""

import errno
import mmap
import os
import stat
import struct
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from preswapd.block.digest import blake2b
from preswapd.units import PAGE_SIZE

ATTRIBUTE = "user.preswapd"
# A block device has no attributes: a page behind the swap device's end has its token.
MAGIC = b"preswapd"
TOKEN_PAGE = struct.Struct("<8sQQ")
NO_ATTRIBUTES = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}
SYSFS = Path("/sys/dev/block")


class Identity(NamedTuple):
    """`inode`: of a block device a digest of its name for life, 0 where it has none.  `ctime`: ns,
    0 of a block device.  `token`: 0 where it bears none, None where it can bear none."""

    inode: int
    ctime: int
    token: int | None

    @property
    def tells_changes(self) -> bool:
        """Not of a block device without a token: another one would not be noticed."""
        return bool(self.token) or self.ctime != 0


def new_token() -> int:
    return int.from_bytes(os.urandom(8), "little") // 2 + 1


def identity(descriptor: int, size: int) -> Identity:
    """Of an open disk file whose device has `size` bytes."""
    status = os.fstat(descriptor)
    if stat.S_ISBLK(status.st_mode):
        return Identity(name_for_life(status.st_rdev), 0, token_behind(descriptor, size))
    return Identity(status.st_ino, status.st_ctime_ns, attribute(descriptor))


def identity_of(path: Path, size: int) -> Identity:
    """The same, of what lies at `path`; on disk first, as a start builds on it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
        return identity(descriptor, size)
    finally:
        os.close(descriptor)


def write_token(descriptor: int, size: int, token: int) -> None:
    """Where it can bear one; not synced."""
    if stat.S_ISBLK(os.fstat(descriptor).st_mode):
        if has_room_behind(descriptor, size):
            write_token_page(descriptor, size, token)
        return
    try:
        os.setxattr(descriptor, ATTRIBUTE, b"%016x" % token)
    except OSError as error:
        if error.errno not in NO_ATTRIBUTES:
            raise


# --- files ---


def attribute(descriptor: int) -> int | None:
    try:
        return int(os.getxattr(descriptor, ATTRIBUTE), 16)
    except ValueError:
        return 0
    except OSError as error:
        if error.errno in NO_ATTRIBUTES:
            return None
        if error.errno == errno.ENODATA:
            return 0
        raise


# --- block devices ---


def has_room_behind(descriptor: int, size: int) -> bool:
    return os.lseek(descriptor, 0, os.SEEK_END) >= size + PAGE_SIZE


def token_behind(descriptor: int, size: int) -> int | None:
    if not has_room_behind(descriptor, size):
        return None
    with closing(mmap.mmap(-1, PAGE_SIZE)) as page:  # aligned, for O_DIRECT
        os.preadv(descriptor, [page], size)
        magic, token, check = TOKEN_PAGE.unpack_from(page)
    is_whole = magic == MAGIC and check == token ^ 0xFFFF_FFFF_FFFF_FFFF
    return int(token) if is_whole else 0


def write_token_page(descriptor: int, size: int, token: int) -> None:
    with closing(mmap.mmap(-1, PAGE_SIZE)) as page:
        TOKEN_PAGE.pack_into(page, 0, MAGIC, token, token ^ 0xFFFF_FFFF_FFFF_FFFF)
        if os.pwritev(descriptor, [page], size) != PAGE_SIZE:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def name_for_life(device: int) -> int:
    """What the kernel knows it by after a reboot too: the device mapper's uuid, or a wwid or serial
    number, of a partition with its number."""
    folder = SYSFS / f"{os.major(device)}:{os.minor(device)}"
    part = first_line(folder / "partition")
    if part:
        folder = folder.resolve().parent
    for name in ("dm/uuid", "wwid", "device/wwid", "serial", "device/serial"):
        if text := first_line(folder / name):
            digest = blake2b(f"{text} {part}".encode(), digest_size=7).digest()
            return int.from_bytes(digest, "little")
    return 0


def first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    except OSError:
        return ""
