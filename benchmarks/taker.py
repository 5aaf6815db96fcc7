# SPDX-License-Identifier: BSD-3-Clause
"""A program that takes memory of the host at a given rate, and keeps it until it is ended.

python -m benchmarks.taker BYTES BYTES_PER_SECOND
"""

import contextlib
import mmap
import signal
import sys
import time
from pathlib import Path

STEP_SECONDS = 0.01
PIECE = b"\1" * (1 << 20)


def take(size: int, rate: int) -> mmap.mmap:
    """Written to, so that it is there; of what it lags behind it takes no more than a second's."""
    taken = mmap.mmap(-1, size)
    begun = time.monotonic()
    while (at := taken.tell()) < size:
        due = min(size, int((time.monotonic() - begun) * rate))
        begun = max(begun, time.monotonic() - (at + rate) / rate)
        while (left := due - taken.tell()) > 0:
            taken.write(PIECE[:left])
        time.sleep(STEP_SECONDS)
    return taken


if __name__ == "__main__":
    # Whoever is killed for want of memory, it is this one.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    held = take(*map(int, sys.argv[1:]))
    signal.pause()
