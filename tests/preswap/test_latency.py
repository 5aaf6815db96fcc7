# SPDX-License-Identifier: BSD-3-Clause
"""How long requests took: the buckets cover all times without a gap, and each request is in one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preswapd.block.latency import end_of, summary
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.disk_model import pages_of
from tests.preswap.running import Running

BUCKETS = 117


def bucket_of(ns: int) -> int:
    """As latency.h has it."""
    if ns < 1 << 10:
        return 0
    doubling = ns.bit_length() - 1
    return min(1 + (doubling - 10) * 4 + (ns >> (doubling - 2) & 3), BUCKETS - 1)


@given(st.integers(0, (1 << 39) - 1))
def test_a_bucket_ends_behind_its_times_and_not_far(ns: int) -> None:
    end = end_of(bucket_of(ns)) * 1e9
    assert ns < end
    assert end <= max(1024, ns * 1.25 + 1)


def test_summary() -> None:
    counts = [0] * BUCKETS
    counts[bucket_of(10_000)] = 989
    counts[bucket_of(1_000_000)] = 10
    counts[bucket_of(3_000_000_000)] = 1
    found = summary(counts, 3_000_000_000)
    assert (found["count"], found["sum"]) == (1000, 3.0)
    assert found["p50"] == pytest.approx(10e-6, rel=0.25)
    assert found["p99"] == pytest.approx(1e-3, rel=0.25)
    assert found["p999"] == pytest.approx(1e-3, rel=0.25)
    ends, together = zip(*found["buckets"], strict=True)
    assert [round(end * 1e9) for end in ends] == [1 << power for power in range(10, 39)]
    assert list(together) == sorted(together)
    assert together[-1] == 1000


def test_no_requests() -> None:
    found = summary([0] * BUCKETS, 0)
    assert (found["count"], found["p50"], found["buckets"][-1][1]) == (0, None, 0)


def test_requests_are_counted(running: Running) -> None:
    running.open()
    connection = running.connect()
    connection.pwrite(pages_of(1, 4 * PAGE), PAGE)
    connection.pwrite(b"12", 5)
    for _ in range(3):
        connection.pread(bytearray(PAGE), PAGE)
    latency = running.device.stats()["latency"]
    assert (latency["write"]["count"], latency["read"]["count"]) == (2, 3)
    assert 0 < latency["read"]["sum"] < 60
