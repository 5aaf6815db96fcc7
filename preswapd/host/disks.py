# SPDX-License-Identifier: BSD-3-Clause
"""What a directory's disk can do, found out by writing to it: for operators, not for a server."""

import errno
import mmap
import os
import tempfile
import time
from pathlib import Path

# What is written to find out how fast a disk is: so much at once, and at most so much.
RATE_CHUNK = 1 << 20
RATE_MOST = 64 << 20


def write_rate(directory: Path, seconds: float = 1.0) -> float:
    """Bytes a second that the directory's disk takes, past the page cache where that can be.

    As writeback writes: a MiB at once, into a file that has no blocks there yet.
    """
    direct = os.O_DIRECT if has_direct_io(directory) else os.O_DSYNC
    buffer = mmap.mmap(-1, RATE_CHUNK)
    written, begun = 0, time.monotonic()
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".rate-") as file:
        descriptor = os.open(file.name, os.O_WRONLY | direct)
        try:
            while written < RATE_MOST and time.monotonic() - begun < seconds:
                written += os.write(descriptor, buffer)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
    return written / (time.monotonic() - begun)


def has_direct_io(directory: Path) -> bool:
    """True where a file can be opened past the page cache (O_DIRECT)."""
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".direct-io-") as file:
        try:
            descriptor = os.open(file.name, os.O_RDWR | os.O_DIRECT)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return False
            raise
        os.close(descriptor)
    return True
