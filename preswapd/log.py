# SPDX-License-Identifier: BSD-3-Clause
"""One line on stderr for each event that matters, with its priority where the journal reads it."""

import os
import sys
import time
from collections.abc import Callable

# syslog(3)'s priorities.
ERROR = 3
WARNING = 4
NOTICE = 5
INFO = 6

REPEAT_SECONDS = 60.0

Log = Callable[[int, str], None]


def stderr_is_journal() -> bool:
    """systemd names the journal's socket as device:inode (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def prefix(priority: int) -> str:
    """What the journal takes off the line's front again (sd-daemon(3))."""
    return f"<{priority}>" if stderr_is_journal() else ""


def log(priority: int, text: str) -> None:
    line = " ".join(text.split())
    try:
        sys.stderr.write(f"{prefix(priority)}{line}\n")
        sys.stderr.flush()
    except OSError:
        # The reader of the log has gone; serving goes on.
        pass


class Throttle:
    """Lets the first line of a kind pass, and for a minute no other.

    What goes wrong often does so at every turn; one line of it is enough for the reader.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.next_time = clock()

    def passes(self) -> bool:
        """Whether a line may be logged now; if so, the next one may in a minute."""
        now = self.clock()
        if now < self.next_time:
            return False
        self.next_time = now + REPEAT_SECONDS
        return True
