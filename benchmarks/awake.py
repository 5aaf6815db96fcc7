# SPDX-License-Identifier: BSD-3-Clause
"""Processors that do not halt while something is measured.

A virtual machine's processor that has nothing to do halts, and to wake it takes the host 20 to
50 us: of two programs that wait for each other, that may be all that is measured.  One process of
the idle class on each processor keeps them awake and makes way for everything else at once.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from preswapd.host.children import Child

SPIN = ("sh", "-c", "while :; do :; done")


@contextmanager
def kept_awake() -> Iterator[None]:
    spinning = [spin(processor) for processor in sorted(os.sched_getaffinity(0))]
    try:
        yield
        if any(process.status is not None for process in spinning):
            raise RuntimeError("what keeps the processors awake has ended")
    finally:
        for process in spinning:
            process.kill()


def spin(processor: int) -> Child:
    where = ("taskset", "--cpu-list", str(processor), "chrt", "--idle", "0")
    return Child([*where, *SPIN])
