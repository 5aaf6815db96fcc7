# SPDX-License-Identifier: BSD-3-Clause
"""What the operating system tells about the file systems that an instance lives on."""

import ctypes
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

TMPFS_MAGIC = 0x01021994
BTRFS_MAGIC = 0x9123683E
# linux/fs.h: flags of an inode, and the one by which Btrfs writes over a file's blocks in place.
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_NOCOW_FL = 0x80086601, 0x40086602, 0x00800000
# A page of zeros that was written keeps its blocks there: ext4, XFS, Btrfs, F2FS, tmpfs.  ZFS, for
# one, makes a hole of it.
ZEROS_ARE_NO_HOLES = {0xEF53, 0x58465342, BTRFS_MAGIC, 0xF2F52010, TMPFS_MAGIC}
# struct statfs of every Linux: f_type, a long, comes first; the whole is under 256 bytes.
STATFS_BYTES = 256

libc = ctypes.CDLL(None, use_errno=True)
libc.statfs.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
libc.statfs.restype = ctypes.c_int


def magic(path: Path) -> int:
    """The type of the file system that the path is on (statfs(2)); os.statvfs leaves it out."""
    buffer = ctypes.create_string_buffer(STATFS_BYTES)
    if libc.statfs(os.fsencode(path), buffer):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return ctypes.c_long.from_buffer(buffer).value


def is_tmpfs(path: Path) -> bool:
    return magic(path) == TMPFS_MAGIC


def tells_holes(descriptor: int) -> bool:
    """Whether what reads as a hole in this file was never written."""
    return magic(Path(f"/proc/self/fd/{descriptor}")) & 0xFFFF_FFFF in ZEROS_ARE_NO_HOLES


def avoid_copy_on_write(descriptor: int) -> None:
    """Of an empty file: else Btrfs needs free space even to write over what is there."""
    with suppress(OSError):  # most file systems have no such flag, and need none
        flags = bytearray(8)
        fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, flags)
        wanted = int.from_bytes(flags, "little") | FS_NOCOW_FL
        fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, wanted.to_bytes(8, "little"))


def copies_on_write(path: Path) -> bool:
    """Whether a write over this file's blocks needs free space."""
    if magic(path) & 0xFFFF_FFFF != BTRFS_MAGIC:
        return False
    flags = bytearray(8)
    with open(path, "rb") as file:
        fcntl.ioctl(file, FS_IOC_GETFLAGS, flags)
    return not int.from_bytes(flags, "little") & FS_NOCOW_FL


def total_bytes(path: Path) -> int:
    """The size of the path's file system, 0 for one without a limit."""
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize


def free_bytes(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def mode_of(path: Path) -> int:
    """0 where nothing is there; OSError where that cannot be seen, which is no absence: exists(),
    is_file() and their kin say no then, from Python 3.14 on."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def is_there(path: Path) -> bool:
    return mode_of(path) != 0


def is_file(path: Path) -> bool:
    return stat.S_ISREG(mode_of(path))


def is_directory(path: Path) -> bool:
    return stat.S_ISDIR(mode_of(path))


def existing_parent(path: Path) -> Path:
    """The path, or the closest directory above it that is there."""
    while not is_there(path):
        path = path.parent
    return path
