# SPDX-License-Identifier: BSD-3-Clause
"""Section `moving`: how fast what a guest has swapped leaves a host, and comes back to one."""

from benchmarks.moving import arrivals, saves
from benchmarks.sections import Figures, Progress


def measure(progress: Progress, quick: bool) -> Figures:
    return {
        "saves": saves.measure(progress, quick),
        "arrivals": arrivals.measure(progress, quick),
    }


def table(figures: Figures) -> str:
    return "\n\n".join([saves.table(figures["saves"]), arrivals.table(figures["arrivals"])])
