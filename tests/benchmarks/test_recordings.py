# SPDX-License-Identifier: BSD-3-Clause
"""Recorded traffic is what its description says, and what was known at its most is found."""

import pytest

from benchmarks.aging import recordings
from benchmarks.aging.recordings import HEADER, SAME_FILLED, UNIT, known_after

TEXT = """\
# a comment
0 W 10 3 640010
5 R 10 2
7 W 11 1 ff
1 T 10 1
0 T 40 8
2 W 12 1 01
""".splitlines(keepends=True)


def test_each_recording_has_what_the_simulation_made_of_it() -> None:
    files = {path.name for path in recordings.FOLDER.glob("*.xz")}
    assert {f"{name}{recordings.SUFFIX}" for name in recordings.SIMULATED} == files


@pytest.mark.parametrize("name", ["jobs", "tmpfs-scan"])
def test_pages_are_read_after_they_were_written(name: str) -> None:
    known: set[int] = set()
    operations = set()
    for request in recordings.requests(recordings.lines(name)):
        operations.add(request.op)
        pages = set(range(request.page, request.page + request.count))
        if request.op == "W":
            assert len(request.sizes) == request.count
            known |= pages
        elif request.op == "T":
            known -= pages
        else:
            assert pages <= known
    assert operations == {"R", "W", "T"}


def test_known_pages_are_those_written_and_not_trimmed() -> None:
    found = known_after(TEXT, None)
    assert found.sizes == {11: 0xFF, 12: 1}
    assert found.disk_pages == 48


def test_known_pages_at_their_most_are_found() -> None:
    """The third request makes them largest; the fourth takes one away."""
    most = known_after(TEXT, known_after(TEXT, None).requests)
    assert most.sizes == {10: 0x64, 11: 0xFF, 12: 0x10}
    assert most.requests == 3


def test_page_of_one_value_takes_little() -> None:
    assert recordings.bytes_of(None) == 0
    assert recordings.bytes_of(0) == SAME_FILLED
    assert recordings.bytes_of(1) == UNIT + HEADER


def test_known_pages_are_written_in_requests_of_neighbours() -> None:
    sizes = {5: 1, 6: 2, 8: 0, **dict.fromkeys(range(100, 133), 255)}
    written = list(recordings.Most(sizes, 200).written())
    assert written[:2] == ["0 W 5 2 0102\n", "0 W 8 1 00\n"]
    again = known_after(written, None)
    assert again.sizes == sizes
    assert max(request.count for request in recordings.requests(written)) == 32
