# SPDX-License-Identifier: BSD-3-Clause
"""Who else uses a disk file: another instance, through a hard link, say, or a tool of QEMU's.

The locks are the kernel's, on the open file, and end with it.  QEMU's tools know each other by
shared locks on single bytes (its block/file-posix.c): byte 100 + N says "I do N", 200 + N "nobody
else may do N".
"""

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from preswapd.errors import RefusedError

# struct flock of 64-bit Linux: type, whence, start, length, process (0 for these locks).
FLOCK = struct.Struct("hhqqi4x")
READS, WRITES, RESIZES = 0, 1, 3
DOES = [100 + what for what in (READS, WRITES, RESIZES)]
KEEPS_TO_ITSELF = [200 + what for what in (WRITES, RESIZES)]
# Who holds one of these does what we keep to ourselves, or keeps to itself what we do.
CONFLICTS = [100 + what for what in (WRITES, RESIZES)] + [200 + what for what in (READS, WRITES)]
# The same for who only reads.
READS_ONLY = [100 + READS]
READERS_CONFLICTS = [100 + what for what in (WRITES, RESIZES)] + [200 + READS]
# udev holds a shared lock on a block device while it looks at it, which it does whenever somebody
# who could write has closed it: a creation does, and so does the server before this one.
PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.05
HAS_NO_LOCKS = {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def lock_disk_file(descriptor: int, path: Path) -> None:
    """To write to it, alone.  RefusedError when somebody else uses it."""
    lock(descriptor, path, fcntl.LOCK_EX, DOES, CONFLICTS)


def lock_to_read(descriptor: int, path: Path) -> None:
    """Others may read it, too.  RefusedError when somebody may write to it."""
    lock(descriptor, path, fcntl.LOCK_SH, READS_ONLY, READERS_CONFLICTS)


def lock(
    descriptor: int, path: Path, whole: int, does: Sequence[int], conflicts: Sequence[int]
) -> None:
    is_block_device = stat.S_ISBLK(os.fstat(descriptor).st_mode)
    end = time.monotonic() + (PATIENCE_SECONDS if is_block_device else 0)
    while not lock_whole(descriptor, whole):
        if time.monotonic() >= end:
            raise in_use(path)
        time.sleep(PAUSE_SECONDS)
    try:
        for byte in [*does, *KEEPS_TO_ITSELF]:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock_of(fcntl.F_RDLCK, byte))
        for byte in conflicts:
            found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, lock_of(fcntl.F_WRLCK, byte))
            if FLOCK.unpack(found)[0] != fcntl.F_UNLCK:
                raise in_use(path)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise in_use(path) from None
        if error.errno not in HAS_NO_LOCKS:
            raise


def lock_whole(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """False: somebody holds it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            return False
        if error.errno not in HAS_NO_LOCKS:
            raise
    return True


def lock_of(kind: int, byte: int) -> bytes:
    return FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)


def in_use(path: Path) -> RefusedError:
    return RefusedError(f"the disk file {path} is in use by another process")
