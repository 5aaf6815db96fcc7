# SPDX-License-Identifier: BSD-3-Clause
"""How long requests took, out of the histogram that latency.h keeps."""

from collections.abc import Sequence

from preswapd.api.figures import Latency

SHORTEST = 10  # the first bucket ends at 2^10 ns


def end_of(bucket: int) -> float:
    """Where the bucket ends, in seconds: four to each doubling."""
    doubling, quarter = divmod(bucket + 3, 4)
    return float((4 + quarter + 1) << (SHORTEST + doubling - 1)) / 4e9


def summary(counts: Sequence[int], nanoseconds: int) -> Latency:
    """Quantiles, in seconds, are the ends of their buckets: at most a quarter too long; None
    before the first request.  `buckets` holds (seconds, requests up to that) for each doubling."""
    ends, together, running = [], [], 0
    for bucket, count in enumerate(counts):
        running += count
        ends.append(end_of(bucket))
        together.append(running)
    return {
        "count": running,
        "sum": nanoseconds / 1e9,
        "p50": quantile(ends, together, 0.5),
        "p99": quantile(ends, together, 0.99),
        "p999": quantile(ends, together, 0.999),
        "buckets": [(ends[i], together[i]) for i in range(0, len(ends) - 1, 4)],
    }


def quantile(ends: Sequence[float], together: Sequence[int], share: float) -> float | None:
    if not together[-1]:
        return None
    wanted = share * together[-1]
    return next(end for end, count in zip(ends, together, strict=True) if count >= wanted)
