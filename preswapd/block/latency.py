# SPDX-License-Identifier: BSD-3-Clause
"""How long requests took, out of the histogram that latency.h keeps."""

from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from itertools import accumulate

from preswapd.api.figures import Latency

SHORTEST = 10  # the first bucket ends at 2^10 ns


def end_of(bucket: int) -> float:
    """Where the bucket ends, in seconds: four to each doubling."""
    doubling, quarter = divmod(bucket + 3, 4)
    return float((4 + quarter + 1) << (SHORTEST + doubling - 1)) / 4e9


@cache
def ends_of(buckets: int) -> Sequence[float]:
    """Made once: the log looks at all devices every second."""
    return [end_of(bucket) for bucket in range(buckets)]


def summary(counts: Sequence[int], nanoseconds: int) -> Latency:
    """Quantiles, in seconds, are the ends of their buckets: at most a quarter too long; None
    before the first request.  `buckets` holds (seconds, requests up to that) for each doubling."""
    ends, together = ends_of(len(counts)), list(accumulate(counts))
    return {
        "count": together[-1],
        "sum": nanoseconds / 1e9,
        "p50": quantile(ends, together, 0.5),
        "p99": quantile(ends, together, 0.99),
        "p999": quantile(ends, together, 0.999),
        "buckets": list(zip(ends[:-1:4], together[:-1:4], strict=True)),
    }


def quantile(ends: Sequence[float], together: Sequence[int], share: float) -> float | None:
    return ends[bisect_left(together, share * together[-1])] if together[-1] else None
