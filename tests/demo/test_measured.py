# SPDX-License-Identifier: BSD-3-Clause
"""The figures that the demonstration shows, from what the server says."""

from typing import cast

import pytest

from preswapd.api.figures import Statistics
from preswapd.demo.measured import Counters, figures, live_line
from preswapd.guest.readings import SwapArea

MIB = 1 << 20


@pytest.fixture
def stats() -> Statistics:
    device = {
        "preswap_pages": 2560,
        "disk_pages": 100,
        "loads": 30,
        "succ_stores": 5000,
        "failed_stores": 200,
        "disk_reads": 12,
        "disk_errors": 0,
        "trims": 512,
        "written_back_pages": 7,
        "read_requests": 9,
        "write_requests": 300,
    }
    tmem = {"compr_data_size": 4 * MIB, "mem_used_total": 5 * MIB, "checksum_errors": 1}
    return cast(Statistics, {"tmem": tmem, "devices": {"swap0": device}})


def test_figures_of_a_device(stats: Statistics) -> None:
    now = figures(stats, "swap0")
    assert (now.counters.written, now.counters.read) == (5200, 42)
    assert now.counters.checksum_errors == 1
    assert now.requests == 309
    assert now.original == 10 * MIB
    assert now.ratio == 2.5


def test_figures_of_an_empty_pool_have_no_ratio(stats: Statistics) -> None:
    stats["tmem"]["compr_data_size"] = 0
    assert figures(stats, "swap0").ratio == 0


def test_counters_of_two_lives_add_up() -> None:
    both = Counters(stored=1, rejected=2) + Counters(stored=10, disk_errors=5)
    assert both == Counters(stored=11, rejected=2, disk_errors=5)


def test_live_line_names_both_sides(stats: Statistics) -> None:
    areas = [SwapArea("/dev/sda", 512 * MIB, 12 * MIB, -2)]
    line = live_line(7.4, figures(stats, "swap0"), areas, 24 * MIB)
    for part in ("7 s", "12M", "in tmem   2560 pages", "on disk    100", "2.50", "5M of 24M"):
        assert part in line
