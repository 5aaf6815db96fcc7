# SPDX-License-Identifier: BSD-3-Clause
"""Patterns ask for what they are named after."""

from collections import Counter

import pytest

from benchmarks.aging import patterns
from benchmarks.aging.patterns import MEAN_BYTES, QUICK, Pattern
from benchmarks.aging.recordings import Request, requests
from preswapd.units import PAGE_SIZE


def pattern(name: str) -> Pattern:
    return patterns.patterns(QUICK)[name]


def of_window(found: Pattern, name: str) -> list[Request]:
    (window,) = [window for window in found.windows if window.name == name]
    return list(requests(window.lines()))


def pages(found: list[Request]) -> Counter[int]:
    return Counter(
        page for request in found for page in range(request.page, request.page + request.count)
    )


@pytest.mark.parametrize("name", patterns.patterns(QUICK))
def test_pages_are_written_first_and_lie_on_the_disk(name: str) -> None:
    known: set[int] = set()
    for window in pattern(name).windows:
        for request in requests(window.lines()):
            used = set(range(request.page, request.page + request.count))
            if request.op == "W":
                assert len(request.sizes) == request.count
                known |= used
            else:
                assert used <= known
    assert max(known) < pattern(name).pages


def test_cold_pages_fill_the_pool_three_times_and_the_hot_ones_a_quarter() -> None:
    found = pattern("hot set")
    cold = pages(of_window(found, "cold pages"))
    assert set(cold.values()) == {1}
    assert len(cold) * MEAN_BYTES == pytest.approx(3 * QUICK.pool, rel=0.01)
    hot = pages(of_window(found, "hot set"))
    assert hot.keys().isdisjoint(cold)
    assert len(hot) == pytest.approx(QUICK.pool / 4 / PAGE_SIZE, rel=0.01)
    operations = Counter(request.op for request in of_window(found, "hot set"))
    assert operations["W"] / operations.total() == pytest.approx(0.25, rel=0.1)


def test_phases_use_one_working_set_and_then_another() -> None:
    found = pattern("phases")
    a, b, again = (pages(of_window(found, name)) for name in ("A", "B", "A again"))
    assert a.keys().isdisjoint(b)
    assert b.keys().isdisjoint(again)
    written = pages(of_window(found, "A, written"))
    assert again.keys() <= written.keys()
    assert len(written) * MEAN_BYTES == pytest.approx(0.75 * QUICK.pool, rel=0.01)


def test_scan_reads_each_cold_page_once_and_no_hot_one() -> None:
    found = pattern("scan")
    scanned = of_window(found, "scan 1")
    assert {request.op for request in scanned} == {"R"}
    assert pages(scanned) == pages(of_window(found, "cold pages"))
    assert pages(scanned).keys().isdisjoint(pages(of_window(found, "after scan 1")))
