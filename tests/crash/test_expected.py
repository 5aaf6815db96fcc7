# SPDX-License-Identifier: BSD-3-Clause
"""The model of what a page may hold: a harness that cannot see a fault proves nothing."""

import random

import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.crash.contents import ZEROS, Kind, origin, page_content
from tests.crash.expected import ExpectedDevice, WrongPageError

A, B, C = (page_content(kind, "g1", 1, seq, random.Random(seq)) for seq, kind in enumerate(Kind, 1))


@pytest.fixture
def device() -> ExpectedDevice:
    """Two pages of zeros."""
    return ExpectedDevice("g1", ZEROS * 2)


def write(device: ExpectedDevice, content: bytes, offset: int = PAGE) -> None:
    device.end_change(device.begin_change(offset, content))


@pytest.mark.parametrize("kind", Kind)
def test_content_says_where_it_is_from(kind: Kind) -> None:
    page = page_content(kind, "g2", 77, 1234, random.Random(0))
    assert len(page) == PAGE
    assert origin(page).startswith("g2, page 77, write 1234")


def test_answered_write_must_be_there(device: ExpectedDevice) -> None:
    write(device, A)
    device.check(1, A)
    with pytest.raises(WrongPageError, match=r"page 1: \d+ bytes wrong.* found zeros"):
        device.check(1, ZEROS)


def test_older_write_is_named(device: ExpectedDevice) -> None:
    write(device, A)
    write(device, B)
    with pytest.raises(WrongPageError, match=r"found g1, page 1, write 1 .* expected g1.*write 2"):
        device.check(1, A)


@pytest.mark.parametrize("found", [ZEROS, A])
def test_write_in_flight_at_a_kill_happened_or_not(device: ExpectedDevice, found: bytes) -> None:
    device.begin_change(PAGE, A)
    device.server_gone()
    device.check(1, found)


def test_half_a_write_is_wrong(device: ExpectedDevice) -> None:
    device.begin_change(PAGE, A)
    device.server_gone()
    with pytest.raises(WrongPageError):
        device.check(1, A[:2048] + ZEROS[2048:])


def test_page_stays_what_it_was_read_as(device: ExpectedDevice) -> None:
    device.begin_change(PAGE, A)
    device.server_gone()
    device.check(1, A)
    with pytest.raises(WrongPageError):
        device.check(1, ZEROS)


def test_write_in_flight_at_a_kill_may_be_merged(device: ExpectedDevice) -> None:
    write(device, A)
    device.begin_change(PAGE + 100, b"xyz")
    device.server_gone()
    device.check(1, A[:100] + b"xyz" + A[103:])


@pytest.mark.parametrize("found", [A, B])
def test_writes_at_once_come_in_any_order(device: ExpectedDevice, found: bytes) -> None:
    first, second = device.begin_change(PAGE, A), device.begin_change(PAGE, B)
    device.end_change(first)
    device.end_change(second)
    device.check(1, found)


def test_earlier_write_never_comes_last(device: ExpectedDevice) -> None:
    """C is in flight all the time, B begins when A has been answered."""
    during = device.begin_change(PAGE, C)
    write(device, A)
    write(device, B)
    device.end_change(during)
    assert set(device.settled[1]) == {B, C}


def test_read_meets_a_page_old_or_new(device: ExpectedDevice) -> None:
    device.begin_read(PAGE, PAGE)
    write(device, A)
    device.end_read(PAGE, PAGE, A)
    device.begin_change(PAGE, B)
    device.begin_read(PAGE, PAGE)
    with pytest.raises(WrongPageError):
        device.end_read(PAGE, PAGE, C)


def test_part_of_a_page_is_compared(device: ExpectedDevice) -> None:
    write(device, A)
    device.begin_read(PAGE + 50, 10)
    with pytest.raises(WrongPageError):
        device.end_read(PAGE + 50, 10, bytes(10))


def test_request_over_two_pages_may_stop_between(device: ExpectedDevice) -> None:
    device.begin_change(0, A + B)
    device.server_gone()
    device.check(0, A)
    device.check(1, ZEROS)
