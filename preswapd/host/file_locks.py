# SPDX-License-Identifier: BSD-3-Clause
"""Who holds a lock on a file, without taking it: /proc/locks."""

import os
from pathlib import Path

LOCKS = Path("/proc/locks")
WHOLE_FILE = "FLOCK"


def holder(path: Path, locks: Path = LOCKS) -> int | None:
    """The process that holds flock(2)'s lock; None where nobody does, or nobody can tell."""
    try:
        status = path.stat()
        lines = locks.read_text().splitlines()
    except OSError:
        return None
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in lines:
        # NUMBER: KIND ADVISORY WRITE PID MAJOR:MINOR:INODE FIRST LAST; who waits has "->" in it.
        words = line.split()
        if words[1:2] == [WHOLE_FILE] and words[5:6] == [file]:
            return int(words[4])
    return None
