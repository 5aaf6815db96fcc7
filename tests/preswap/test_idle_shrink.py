# SPDX-License-Identifier: BSD-3-Clause
"""What was idle when it was asked for goes to disk; guests go on meanwhile."""

from collections.abc import Sequence
from typing import cast

import pytest

from preswapd.api.messages import ShrinkProgress
from preswapd.errors import RefusedError
from preswapd.preswap.device._device import EXTENT_PAGES, Device
from preswapd.preswap.settings import DeviceSpec
from preswapd.preswap.writeback.goals import ToIdle
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.disk_model import page_of, pages_of
from tests.preswap.running import MIB, Running, read
from tests.running import wait_for

SIZE = 4 * MIB
PAGES = SIZE // PAGE - 1
# What a test asks for, and how long it has waited then: clocks are read at different moments.
MOMENT, WAITED = 0.05, 0.2


@pytest.fixture
def filled(running: Running) -> Running:
    """Two devices with 1023 pages each in tmem, all untouched for WAITED seconds."""
    instance = running.open(DeviceSpec("g1", SIZE), DeviceSpec("g2", SIZE))
    for name, tag in (("g1", 1), ("g2", 2)):
        instance.devices[name].connect().pwrite(pages_of(tag, SIZE - PAGE), PAGE)
    wait_for(
        lambda: instance.pages_by_age(None, [WAITED])[0].pages, lambda pages: pages == 2 * PAGES
    )
    return running


def test_idle_pages_go_and_every_byte_is_right(filled: Running) -> None:
    result = filled.instance.begin_idle_shrink(MOMENT).wait()
    assert (result.moved, result.left, result.complete) == (2 * PAGES, 0, True)
    for name, tag in (("g1", 1), ("g2", 2)):
        connection = filled.instance.devices[name].connect()
        assert read(connection, PAGE) == pages_of(tag, SIZE - PAGE)
    check_coherence(filled.instance)


def test_idle_pages_of_one_device(filled: Running) -> None:
    filled.instance.begin_idle_shrink(MOMENT, "g2").wait()
    left = {name: device.preswap_pages for name, device in filled.instance.devices.items()}
    assert left == {"g1": PAGES, "g2": 0}


def test_ages_of_one_device_and_of_all(filled: Running) -> None:
    ages = filled.instance.pages_by_age
    assert [ages(name, [0])[0].pages for name in ("g1", "g2", None)] == [PAGES, PAGES, 2 * PAGES]
    assert ages(None, [3600])[0].pages == 0


def test_puts_go_on_meanwhile(filled: Running) -> None:
    """A shrink to a number of pages would send them to disk."""
    connection = filled.device.connect()

    def put(step: ShrinkProgress) -> None:
        connection.pwrite(page_of(4), PAGE)

    filled.instance.begin_idle_shrink(MOMENT, "g1", progress=put).wait()
    assert int(filled.device.stats()["failed_stores"]) == 0
    assert read(connection, PAGE, PAGE) == page_of(4)


def test_one_at_a_time_with_other_shrinks(filled: Running) -> None:
    def again(step: ShrinkProgress) -> None:
        with pytest.raises(RefusedError, match="a shrink is under way already"):
            filled.instance.begin_idle_shrink(MOMENT)
        with pytest.raises(RefusedError, match="a shrink is under way already"):
            filled.instance.begin_shrink(0)

    filled.instance.begin_idle_shrink(MOMENT, progress=again).wait()


def test_it_can_be_stopped(filled: Running) -> None:
    def stop(step: ShrinkProgress) -> None:
        filled.instance.shrinks.stop()

    result = filled.instance.begin_idle_shrink(MOMENT, progress=stop).wait()
    assert (result.complete, result.reason) == (False, "interrupted")
    assert result.moved + result.left == 2 * PAGES


def test_no_such_device(filled: Running) -> None:
    with pytest.raises(RefusedError, match="there is no device g9"):
        filled.instance.begin_idle_shrink(MOMENT, "g9")
    with pytest.raises(RefusedError, match="there is no device g9"):
        filled.instance.pages_by_age("g9")


# --- when pages get older meanwhile ---


class Aging:
    """A device whose pages were touched when this says; what is asked of it is noted."""

    name, pages, is_stopped = "g1", EXTENT_PAGES, False

    def __init__(self, touched: Sequence[float], clock: list[float]) -> None:
        self.touched = list(touched)
        self.clock = clock

    @property
    def preswap_pages(self) -> int:
        return len(self.touched)

    def idle(self, seconds: float) -> list[float]:
        return [touched for touched in self.touched if self.clock[0] - touched >= seconds]

    def ages(self, bounds: Sequence[float]) -> list[tuple[int, int]]:
        return [(len(self.idle(bound)), 0) for bound in bounds]

    def writeback_idle(self, extent: int, seconds: float, most: int) -> tuple[int, int, int]:
        gone = self.idle(seconds)[:most]
        for page in gone:
            self.touched.remove(page)
        return len(gone), 0, 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("preswapd.preswap.writeback.goals.time.monotonic", lambda: now[0])
    return now


def test_page_that_gets_as_old_meanwhile_stays(clock: list[float]) -> None:
    """Else a shrink of an idle guest's pages would follow them as they grow old."""
    device = Aging([900.0, 939.0, 941.0, 999.0], clock)
    goal = ToIdle([cast(Device, device)], 60, None)
    goal.aim()
    assert (goal.left(), goal.target(), goal.is_met()) == (4, 2, False)
    clock[0] += 30
    assert goal.move(cast(Device, device), 0, 256) == (2, 0, 0)
    assert device.touched == [941.0, 999.0]
    assert goal.is_met()


def test_target_follows_what_the_guest_does(clock: list[float]) -> None:
    device = Aging([900.0, 901.0, 999.0], clock)
    goal = ToIdle([cast(Device, device)], 60, None)
    goal.aim()
    assert goal.target() == 1
    device.touched[0] = 1000.0
    goal.aim()
    assert goal.target() == 2
    del device.touched[1:]
    assert goal.target() == 1  # never more than there are


def test_device_that_is_being_removed_has_no_idle_pages(clock: list[float]) -> None:
    class Removed(Aging):
        def ages(self, bounds: Sequence[float]) -> list[tuple[int, int]]:
            raise OSError(108, "the device g1 is being removed")

    goal = ToIdle([cast(Device, Removed([0.0], clock))], 60, None)
    assert goal.is_met()
