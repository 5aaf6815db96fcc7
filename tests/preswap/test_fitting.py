# SPDX-License-Identifier: BSD-3-Clause
"""A lowered limit and what it does to the pages that are there are one thing, in the server."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from preswapd.api.messages import ShrinkResult, ShrinkStatus
from preswapd.errors import RefusedError
from preswapd.preswap.instance import Change
from preswapd.preswap.settings import DeviceSpec
from preswapd.preswap.writeback.goals import ToQuota
from preswapd.preswap.writeback.moves import Writeback
from preswapd.preswap.writeback.shrink import Shrink, Shrinks
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.running import MIB, Running, read
from tests.running import PATIENCE

# As large as a device whose zone is the swap header alone can be.
SIZE = 8 * MIB - 8 * PAGE
PAGES = SIZE // PAGE - 1
LIMIT = "preswap.test.pool_limit"
GOVERNED = "preswap.test.governed_limit"
QUOTA = "preswap.test.g1.quota"
# What does not compress, of each device.
NOISE = [random.Random(tag).randbytes(SIZE - PAGE) for tag in range(2)]


@pytest.fixture
def filled(running: Running) -> Running:
    """Two devices with 2039 pages each in tmem, 16 MiB that do not compress."""
    running.paths.runtime_dir.mkdir()
    running.settings = replace(running.settings, pool_size=32 * MIB)
    instance = running.open(DeviceSpec("g1", SIZE), DeviceSpec("g2", SIZE))
    for noise, device in zip(NOISE, instance.devices.values(), strict=True):
        device.connect().pwrite(noise, PAGE)
    return running


class Gate:
    """Shrinks stop before each move until they are let on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        finish = Writeback.finish

        def finish_when_open(work: Writeback, move: object) -> str | None:
            self.reached.set()
            assert self.open.wait(PATIENCE)
            return finish(work, move)  # type: ignore[arg-type]

        patch.setattr(Writeback, "finish", finish_when_open)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, filled: Running) -> Gate:
    return Gate(monkeypatch)


def ended(change: Change) -> ShrinkResult:
    assert change.shrink is not None
    assert change.shrink.ended.wait(PATIENCE)
    return change.shrink.wait()


def used(running: Running) -> int:
    return running.instance.host.stats()["mem_used_total"]


def status(running: Running) -> ShrinkStatus:
    return running.instance.shrinks.status()


def check_content(running: Running) -> None:
    for noise, device in zip(NOISE, running.instance.devices.values(), strict=True):
        assert read(device.connect(), PAGE) == noise
    check_coherence(running.instance)


# --- what must go, goes ---


@pytest.mark.parametrize("mebibytes", [4, 5, 8, 12, 15])
def test_pool_fits_its_lowered_limit(filled: Running, mebibytes: int) -> None:
    """And not much more goes than has to."""
    result = ended(filled.instance.set(LIMIT, f"{mebibytes}M"))
    assert result.complete
    assert mebibytes * MIB * 0.9 <= used(filled) <= mebibytes * MIB
    assert result.left == filled.instance.pages_in_tmem() == 2 * PAGES - result.moved
    check_content(filled)


def test_pool_fits_the_lower_of_two_limits(filled: Running) -> None:
    """Whichever is lowered, the server sees to the one that holds, and to it alone."""
    change = filled.instance.set(GOVERNED, "12M")
    assert change.shrink is not None
    assert change.shrink.goal.setting == GOVERNED
    assert change.shrink.wait().complete
    assert filled.instance.host.stats()["mem_used_total"] <= 12 * MIB
    assert filled.instance.set(LIMIT, "13M").shrink is None
    change = filled.instance.set(LIMIT, "10M")
    assert change.shrink is not None
    assert change.shrink.goal.setting == LIMIT
    assert change.shrink.wait().complete
    assert filled.instance.host.stats()["mem_used_total"] <= 10 * MIB
    check_content(filled)


def test_governed_limit_is_lowered_while_the_pool_fits_the_other(
    filled: Running, gate: Gate
) -> None:
    first = filled.instance.set(LIMIT, "14M").shrink
    assert gate.reached.wait(PATIENCE)
    second = filled.instance.set(GOVERNED, "8M").shrink
    assert first is not None
    assert second is not None
    gate.open.set()
    assert first.wait().complete
    assert second.wait().complete
    assert filled.instance.host.stats()["mem_used_total"] <= 8 * MIB


def test_pool_of_cold_pages_that_take_most_of_it(running: Running) -> None:
    """The average page says that nearly all must go: it ends when the memory is there."""
    running.paths.runtime_dir.mkdir()
    running.settings = replace(running.settings, pool_size=32 * MIB)
    instance = running.open(DeviceSpec("g1", 2 * SIZE))
    connection = running.connect()
    connection.pwrite(NOISE[0], PAGE)
    connection.pwrite(b"compresses well ".ljust(64, b".") * (7 * MIB // 64), PAGE + SIZE)
    assert ended(instance.set(LIMIT, "4M")).complete
    assert used(running) <= 4 * MIB
    assert instance.pages_in_tmem() >= 7 * MIB // PAGE


def test_device_fits_its_lowered_quota(filled: Running) -> None:
    """Coldest first, and to the page."""
    filled.device.connect().pwrite(NOISE[0][:MIB], PAGE)
    result = ended(filled.instance.set(QUOTA, "300"))
    assert (result.complete, result.left, result.moved) == (True, 300, PAGES - 300)
    assert filled.device.preswap_map.find(1) == 1
    assert filled.instance.devices["g2"].preswap_pages == PAGES
    check_content(filled)


@pytest.mark.parametrize(
    ("key", "value"), [(LIMIT, "31M"), (LIMIT, "default"), (QUOTA, str(PAGES))]
)
def test_limit_that_holds_already_moves_nothing(filled: Running, key: str, value: str) -> None:
    assert filled.instance.set(key, value).shrink is None
    assert filled.instance.pages_in_tmem() == 2 * PAGES
    assert status(filled) == ShrinkStatus(running=False)


def test_fit_is_told_from_its_beginning_to_its_end(filled: Running) -> None:
    ended(filled.instance.set(QUOTA, "2000"))
    begun, end = filled.log[-2:]
    assert begun == f"shrink to fit {QUOTA} from 2039 to 2000 pages begins"
    assert end.startswith(f"shrink to fit {QUOTA} ended after ")
    assert end.endswith(" s: 39 pages moved to disk, 2000 left in memory")
    shown = status(filled)
    assert (shown.running, shown.setting, shown.device, shown.left) == (False, QUOTA, "g1", 2000)
    assert shown.result == {
        "moved": 39,
        "left": 2000,
        "lost": 0,
        "complete": True,
        "reason": None,
    }


def test_shrink_that_runs_has_no_result_yet(
    filled: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when its thread knows it already."""
    told: list[ShrinkStatus] = []
    monkeypatch.setattr(Shrinks, "tell_ended", lambda shrinks, *found: told.append(status(filled)))
    assert ended(filled.instance.set(QUOTA, "2000")).complete
    (shown,) = told
    assert (shown.running, shown.result, shown.left) == (True, None, 2000)
    assert status(filled).result is not None


# --- set again while pages leave ---


def test_fit_is_aimed_anew_when_its_limit_is_lowered(filled: Running, gate: Gate) -> None:
    first = filled.instance.set(LIMIT, "12M")
    assert gate.reached.wait(PATIENCE)
    second = filled.instance.set(LIMIT, "6M")
    assert second.shrink is first.shrink
    gate.open.set()
    assert ended(first).complete
    assert used(filled) <= 6 * MIB
    check_content(filled)


def test_raised_limit_ends_the_fit(filled: Running, gate: Gate) -> None:
    first = filled.instance.set(QUOTA, "0")
    assert gate.reached.wait(PATIENCE)
    assert filled.instance.set(QUOTA, "unlimited").shrink is None
    gate.open.set()
    result = ended(first)
    assert result.complete
    assert result.moved <= 1024
    assert filled.device.preswap_pages == PAGES - result.moved


def test_limit_that_is_lowered_at_the_very_end_of_its_fit(
    filled: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fit has found that all is done, and nobody knows it yet."""
    instance, run = filled.instance, Writeback.run
    changes: list[Change] = []

    def run_and_lower(work: Writeback) -> ShrinkResult:
        result = run(work)
        if not changes:
            changes.append(instance.set(QUOTA, "100"))
        return result

    monkeypatch.setattr(Writeback, "run", run_and_lower)
    result = ended(instance.set(QUOTA, "1000"))
    assert (result.complete, result.left, result.moved) == (True, 100, PAGES - 100)


# --- one at a time ---


def test_limit_is_not_refused_while_a_shrink_runs(filled: Running, gate: Gate) -> None:
    """It is set at once, and its pages follow."""
    shrink = filled.instance.begin_shrink(2000, "g2")
    assert gate.reached.wait(PATIENCE)
    changes = [filled.instance.set(LIMIT, "12M"), filled.instance.set(QUOTA, "1000")]
    assert filled.instance.host.limit == 12 * MIB
    assert status(filled).waiting == [LIMIT, QUOTA]
    with pytest.raises(RefusedError, match="a shrink is under way already"):
        filled.instance.begin_shrink(0)
    gate.open.set()
    assert all(ended(change).complete for change in changes)
    assert shrink.wait().complete
    assert filled.device.preswap_pages <= 1000
    assert used(filled) <= 12 * MIB


def test_shrink_follows_the_fits_that_were_there_before(filled: Running, gate: Gate) -> None:
    """Which an older client begins by setting a limit, and then shrinks as it always did."""
    lowered = filled.instance.set(QUOTA, "2000")
    assert gate.reached.wait(PATIENCE)
    shrink = filled.instance.begin_shrink(10, "g1")
    assert (status(filled).setting, status(filled).waiting) == (QUOTA, ["vm.preswap.g1"])
    with pytest.raises(RefusedError, match="a shrink is under way already"):
        filled.instance.begin_shrink(0)
    gate.open.set()
    assert ended(lowered).complete
    result = shrink.wait()
    assert (result.complete, result.left) == (True, 10)


def test_shrink_that_is_stopped_before_its_turn_ends_at_once(filled: Running, gate: Gate) -> None:
    lowered = filled.instance.set(QUOTA, "2000")
    assert gate.reached.wait(PATIENCE)
    shrink = filled.instance.begin_shrink(10, "g1")
    shrink.stop()
    result = shrink.wait()
    assert (result.complete, result.moved, result.reason) == (False, 0, "interrupted")
    assert status(filled).waiting == []
    gate.open.set()
    assert ended(lowered).complete
    assert filled.device.preswap_pages == 2000


def test_limit_that_is_raised_before_its_turn(filled: Running, gate: Gate) -> None:
    filled.instance.begin_shrink(2000)
    assert gate.reached.wait(PATIENCE)
    lowered = filled.instance.set(QUOTA, "0")
    filled.instance.set(QUOTA, "unlimited")
    gate.open.set()
    result = ended(lowered)
    assert (result.complete, result.moved) == (True, 0)


def test_device_that_goes_before_its_fit(filled: Running, gate: Gate) -> None:
    filled.instance.begin_shrink(2000, "g2")
    assert gate.reached.wait(PATIENCE)
    lowered = filled.instance.set(QUOTA, "0")
    remover = threading.Thread(target=filled.instance.remove, args=("g1",), kwargs={"force": True})
    remover.start()
    gate.open.set()
    remover.join(PATIENCE)
    assert ended(lowered).complete
    filled.instance.maintain()
    filled.fitted()
    assert filled.instance.devices.keys() == {"g2"}


def test_device_made_anew_has_a_fit_of_its_own(filled: Running, gate: Gate) -> None:
    instance = filled.instance
    first = instance.set(QUOTA, "0")
    assert gate.reached.wait(PATIENCE)
    remover = threading.Thread(target=instance.remove, args=("g1",), kwargs={"force": True})
    remover.start()
    gate.open.set()
    remover.join(PATIENCE)
    gate.reached.clear()
    gate.open.clear()
    instance.create("g1", SIZE)
    filled.device.connect().pwrite(NOISE[0], PAGE)
    second = instance.set(QUOTA, "10")
    assert second.shrink is not first.shrink
    gate.open.set()
    assert ended(first).complete
    assert ended(second).complete
    assert filled.device.preswap_pages == 10


def test_device_made_anew_is_not_held_down_by_the_shrink_of_the_one_before(
    filled: Running, gate: Gate
) -> None:
    """Its quota holds, and nothing lower, also once that shrink has ended."""
    instance = filled.instance
    shrink = instance.begin_shrink(0, "g1")
    assert gate.reached.wait(PATIENCE)
    instance.remove("g1", force=True)
    instance.create("g1", SIZE)
    instance.set(QUOTA, "100")
    gate.open.set()
    assert shrink.ended.wait(PATIENCE)
    assert filled.device.max_pages == 100


class LookedInto(list[Shrink]):
    """Lets `between` happen to whoever looks for what waits."""

    def __init__(self, shrinks: list[Shrink], between: Callable[[], object]) -> None:
        super().__init__(shrinks)
        self.between = between

    def __iter__(self) -> Iterator[Shrink]:
        self.between()
        return super().__iter__()


def test_between_a_shrink_and_the_fit_that_follows_it_something_is_told(
    filled: Running, gate: Gate
) -> None:
    """Nobody who waits for the end is told that all has ended."""
    shrinks = filled.instance.shrinks
    first = filled.instance.begin_shrink(2000, "g2")
    assert gate.reached.wait(PATIENCE)
    filled.instance.set(QUOTA, "1000")

    def let_the_fit_begin() -> None:
        gate.open.set()
        deadline = time.monotonic() + 1
        while shrinks.last is first and time.monotonic() < deadline:
            time.sleep(0.01)

    shrinks.waiting = LookedInto(shrinks.waiting, let_the_fit_begin)
    shown = status(filled)
    assert shown.running or shown.waiting


# --- stopped, and failed ---


def test_stopped_fit_is_not_tried_again_until_the_limit_is_set(
    filled: Running, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preswapd.preswap.writeback.fitting.RETRY_SECONDS", 0.0)
    change = filled.instance.set(QUOTA, "0")
    assert gate.reached.wait(PATIENCE)
    filled.instance.shrinks.stop()
    gate.open.set()
    result = ended(change)
    assert (result.complete, result.reason) == (False, "interrupted")
    filled.instance.maintain()
    assert filled.instance.shrinks.under_way() is None
    assert ended(filled.instance.set(QUOTA, "0")).complete
    assert filled.device.preswap_pages == 0


def test_limit_that_is_set_again_while_its_fit_stops(filled: Running, gate: Gate) -> None:
    first = filled.instance.set(QUOTA, "0")
    assert gate.reached.wait(PATIENCE)
    filled.instance.shrinks.stop()
    second = filled.instance.set(QUOTA, "10")
    gate.open.set()
    assert not ended(first).complete
    assert (ended(second).complete, filled.device.preswap_pages) == (True, 10)


def failing(work: Writeback) -> ShrinkResult:
    return ShrinkResult(0, work.goal.left(), 0, complete=False, reason="g1: No space left")


def test_failed_fit_is_tried_again_later(filled: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = filled.instance
    with monkeypatch.context() as patch:
        patch.setattr(Writeback, "run", failing)
        assert ended(instance.set(QUOTA, "10")).reason == "g1: No space left"
    assert "(g1: No space left): 0 pages moved" in filled.log[-1]
    instance.maintain()
    assert instance.shrinks.under_way() is None
    monkeypatch.setattr("preswapd.preswap.writeback.fitting.RETRY_SECONDS", 0.0)
    instance.maintain()
    filled.fitted()
    assert filled.device.preswap_pages == 10


def test_unforeseen_error_is_told_and_does_not_hold_the_next_one_up(
    filled: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(work: Writeback) -> ShrinkResult:
        raise ZeroDivisionError("nobody thought of it")

    with monkeypatch.context() as patch:
        patch.setattr(Writeback, "run", fail)
        change = filled.instance.set(QUOTA, "10")
        assert change.shrink is not None
        with pytest.raises(ZeroDivisionError):
            change.shrink.wait()
    assert "nobody thought of it" in filled.log[-1]
    assert status(filled).error == "nobody thought of it"
    assert ended(filled.instance.set(QUOTA, "10")).complete


def test_look_at_all_limits_makes_each_goal_once(
    filled: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one after a start begins a fit of each: of 511 devices that took half a second."""
    made: list[object] = []

    def make(*given: object) -> ToQuota:
        made.append(given)
        return ToQuota(*given)  # type: ignore[arg-type]

    for number in range(8):
        filled.instance.create(f"more{number}", MIB)
    monkeypatch.setattr("preswapd.preswap.instance.ToQuota", make)
    filled.instance.fitting.turn()
    assert len(made) <= 2 * len(filled.instance.devices)


def test_fit_of_a_removed_device_is_forgotten(filled: Running) -> None:
    ended(filled.instance.set(QUOTA, "10"))
    filled.instance.remove("g1", force=True)
    filled.instance.maintain()
    assert QUOTA not in filled.instance.fitting.fits


def test_error_of_a_fit_that_was_aimed_anew_is_forgotten(
    filled: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance, run = filled.instance, Writeback.run
    changes: list[Change] = []

    def lower_and_fail_once(work: Writeback) -> ShrinkResult:
        if changes:
            return run(work)
        changes.append(instance.set(QUOTA, "100"))
        raise ZeroDivisionError

    monkeypatch.setattr(Writeback, "run", lower_and_fail_once)
    assert ended(instance.set(QUOTA, "1000")).left == 100
    assert status(filled).error is None


# --- starts ---


def kept(filled: Running) -> None:
    """What the maintenance thread does."""
    filled.instance.maintain()
    filled.fitted()


def test_kill_within_a_fit_and_the_next_start_goes_on(filled: Running, gate: Gate) -> None:
    filled.instance.set(QUOTA, "100")
    assert gate.reached.wait(PATIENCE)
    gate.open.set()
    filled.kill()
    filled.open()
    kept(filled)
    assert filled.device.preswap_pages == 100
    check_content(filled)


def test_start_with_a_smaller_pool_than_it_holds(filled: Running) -> None:
    filled.kill()
    filled.settings = replace(filled.settings, pool_size=8 * MIB)
    filled.open()
    kept(filled)
    assert used(filled) <= 8 * MIB
    check_content(filled)


def test_pool_within_its_limit_is_left_alone(filled: Running) -> None:
    filled.kill()
    filled.open()
    kept(filled)
    assert filled.instance.shrinks.last is None


# --- the memory is really there ---


def test_fitted_memory_goes_back_to_the_host(filled: Running) -> None:
    ended(filled.instance.set(LIMIT, "6M"))
    assert os.stat(filled.paths.arena).st_blocks * 512 <= 6 * MIB


def test_guests_write_on_while_the_pool_is_fitted(
    filled: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they write is taken or goes to disk; the limit holds all the same."""
    connection = filled.device.connect()
    on_move: Callable[..., object] = Writeback.finish

    def write_and_finish(work: Writeback, move: object) -> object:
        connection.pwrite(NOISE[1][: 64 * PAGE], PAGE)
        return on_move(work, move)

    monkeypatch.setattr(Writeback, "finish", write_and_finish)
    change = filled.instance.set(LIMIT, "8M")
    assert ended(change).complete
    assert isinstance(change.shrink, Shrink)
    assert used(filled) <= 8 * MIB
    assert read(connection, PAGE, 64 * PAGE) == NOISE[1][: 64 * PAGE]
