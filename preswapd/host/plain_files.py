# SPDX-License-Identifier: BSD-3-Clause
"""Small files that others put there, read without waiting for whatever is in their place."""

import errno
import os
import stat
from pathlib import Path

# Of certificates that count nowhere any more there may be many.
MOST_BYTES = 16 << 20


def read(path: Path) -> bytes:
    """OSError where it is none: who opens a pipe waits for its other end, and some devices do not
    end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise OSError(errno.EFBIG, "it is too long")
    return data
