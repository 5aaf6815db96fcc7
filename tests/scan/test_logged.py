# SPDX-License-Identifier: BSD-3-Clause
"""What is said of reads: put together, and how far they are outside the scan zone."""

from preswapd.units import PAGE_SIZE as PAGE
from tests.scan.harness import text
from tests.scan.logged import REQUEST, Span, merged, outside_zone

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def test_requests_are_read_from_a_log() -> None:
    log = (
        "2026-01-01 00:00:00.000000 connection=1 Connect export='' tls=0 size=0x1000 ...\n"
        "2026-01-01 00:00:00.000000 connection=1 Read id=2 offset=0x1000 count=0x200 ...\n"
        "2026-01-01 00:00:00.000000 connection=1 ...Read id=2 return=0 (Success)\n"
        "2026-01-01 00:00:00.000000 connection=1 Trim id=3 offset=0x0 count=0x2000 fua=0 ...\n"
    )
    assert REQUEST.findall(log) == [("Read", "0x1000", "0x200"), ("Trim", "0x0", "0x2000")]


def test_spans_that_meet_are_one() -> None:
    assert merged([Span(8, 9), Span(0, 4), Span(4, 6), Span(1, 2)]) == [Span(0, 6), Span(8, 9)]


def test_outside_the_zone_are_whole_pages() -> None:
    inside, beyond = Span(0, 768 * KIB), Span(768 * KIB - 1, 768 * KIB + 1)
    assert outside_zone([inside], GIB) == []
    assert outside_zone([inside, beyond], GIB) == [Span(768 * KIB, 768 * KIB + PAGE)]
    assert outside_zone([Span(GIB - 512, GIB)], GIB) == []


def test_places_in_the_second_half_are_told_from_the_end() -> None:
    assert text(Span(MIB, MIB + 512), GIB) == "1M+512"
    assert text(Span(GIB - 4 * KIB, GIB), GIB) == "-4K+4K"
