# SPDX-License-Identifier: BSD-3-Clause
"""One user of a disk file: another instance, through a hard link, say, or a tool of QEMU's.

The locks are the kernel's, on the open file, and end with it.  QEMU's tools know each other by
shared locks on single bytes (its block/file-posix.c): byte 100 + N says "I do N", 200 + N "nobody
else may do N".
"""

import errno
import fcntl
import os
import struct
from pathlib import Path

from preswapd.errors import RefusedError

# struct flock of 64-bit Linux: type, whence, start, length, process (0 for these locks).
FLOCK = struct.Struct("hhqqi4x")
READS, WRITES, RESIZES = 0, 1, 3
DOES = [100 + what for what in (READS, WRITES, RESIZES)]
KEEPS_TO_ITSELF = [200 + what for what in (WRITES, RESIZES)]
# Who holds one of these does what we keep to ourselves, or keeps to itself what we do.
CONFLICTS = [100 + what for what in (WRITES, RESIZES)] + [200 + what for what in (READS, WRITES)]
HAS_NO_LOCKS = {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def lock_disk_file(descriptor: int, path: Path) -> None:
    """RefusedError when somebody else uses it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            raise in_use(path) from None
        if error.errno not in HAS_NO_LOCKS:
            raise
    try:
        for byte in DOES + KEEPS_TO_ITSELF:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock_of(fcntl.F_RDLCK, byte))
        for byte in CONFLICTS:
            found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, lock_of(fcntl.F_WRLCK, byte))
            if FLOCK.unpack(found)[0] != fcntl.F_UNLCK:
                raise in_use(path)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise in_use(path) from None
        if error.errno not in HAS_NO_LOCKS:
            raise


def lock_of(kind: int, byte: int) -> bytes:
    return FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)


def in_use(path: Path) -> RefusedError:
    return RefusedError(f"the disk file {path} is in use by another process")
