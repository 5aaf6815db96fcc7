# SPDX-License-Identifier: BSD-3-Clause
"""Ages of pages, against a model in plain Python; weights, against logarithms."""

import ctypes
import math
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from preswapd.preswap.ages import Ages
from preswapd.preswap.device._device import FLAG_FUA, Device, Epochs, least_weight, step_seconds
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE as PAGE
from tests.compiling import INCLUDES
from tests.preswap.disk_model import page_of
from tests.preswap.running import MIB, Running, read

HERE = Path(__file__).parent
SECOND = 10**9
# As in epochs.h and epochs.c.
A_TURN, TURNS, LEAST_TOUCHES, HALF, PLENTY = 64, 2, 64, 32768, 24576
OLDEST = TURNS * A_TURN
FIRST_TOUCH, RESTORED = 1 << 48, 768


@pytest.fixture(scope="module", name="c")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("aging") / "aging.so"
    flags = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command = ["cc", *flags, *INCLUDES, "-o", str(path), str(HERE / "aging.c"), "-lpthread"]
    subprocess.run(command, check=True)
    c = ctypes.CDLL(str(path))
    pointer, u64, u16 = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint16
    for name, result, *arguments in (
        ("test_new", pointer),
        ("test_end", None, pointer),
        ("test_set_ns", None, u64),
        ("test_touch", None, pointer, pointer, pointer, u64, ctypes.c_bool),
        ("test_renumber", None, pointer, pointer, u64),
        ("test_now", u16, pointer),
        ("test_reused", u64, pointer, ctypes.c_uint),
        ("test_log16", ctypes.c_uint, u64),
        ("test_log16_least", u64, ctypes.c_uint),
        ("test_hammer", None, pointer, pointer, u64, u64),
        ("epochs_set_turn", None, pointer, u64),
        ("epochs_begin", u16, pointer),
        ("epochs_age", u64, pointer, u16),
        ("epochs_seconds", ctypes.c_double, pointer, u16, u64),
        ("epochs_is_since", ctypes.c_bool, pointer, u16, u16),
        ("epochs_restored", u16, u64),
        ("epochs_are_scarce", ctypes.c_bool, pointer),
        ("epochs_change_over", None, pointer),
        ("weight_step", ctypes.c_uint8, u64),
        ("weight_least", u64, ctypes.c_uint8),
    ):
        function = getattr(c, name)
        function.restype, function.argtypes = result, arguments
    return c


class Aging:
    """The C under test, with pages of its own and a clock that stands still."""

    def __init__(self, c: ctypes.CDLL, pages: int) -> None:
        self.c = c
        self.ns = 1000 * SECOND
        c.test_set_ns(self.ns)
        self.epochs = c.test_new()
        self.touched = (ctypes.c_uint16 * pages)()

    def close(self) -> None:
        self.c.test_end(self.epochs)

    def pass_time(self, ns: int) -> None:
        self.ns += ns
        self.c.test_set_ns(self.ns)

    def touch(self, *pages: int, is_read: bool = False) -> None:
        numbers = (ctypes.c_uint64 * len(pages))(*pages)
        self.c.test_touch(self.epochs, self.touched, numbers, len(pages), is_read)

    def renumber(self) -> None:
        self.c.epochs_change_over(self.epochs)
        self.c.test_renumber(self.epochs, self.touched, len(self.touched))

    def age(self, page: int) -> int:
        return int(self.c.epochs_age(self.epochs, self.touched[page]))

    def seconds(self, page: int) -> float:
        return float(self.c.epochs_seconds(self.epochs, self.touched[page], self.ns))


@pytest.fixture
def aging(c: ctypes.CDLL) -> Iterator[Aging]:
    found = Aging(c, 300)
    yield found
    found.close()


# --- epochs against a model ---

PAGES = 40
Began = tuple[int, int, int]  # touches, ns; and which it is, as two may begin at once


class EpochsAgainstModel(RuleBasedStateMachine):
    """The model keeps for each page when its epoch began, and knows nothing of numbers."""

    c: ctypes.CDLL

    @initialize(turn=st.sampled_from([0, 1, 5000, 1 << 30]))
    def begin(self, turn: int) -> None:
        self.aging = Aging(self.c, PAGES)
        self.touches, self.turn = FIRST_TOUCH, 1
        # Those that stand for what earlier processes put are merged with the others.
        steps = [self.c.test_log16_least(steps) for steps in range(RESTORED - 1, -1, -1)]
        self.given: list[Began] = [
            (self.touches - before, self.aging.ns, number) for number, before in enumerate(steps)
        ]
        self.now: Began = (self.touches, self.aging.ns, RESTORED)
        self.given.append(self.now)
        self.ends = self.touches + LEAST_TOUCHES, self.aging.ns + SECOND
        # None: never touched in this process.
        self.pages: list[Began | None] = [None] * PAGES
        self.last: list[int | None] = [None] * PAGES  # the moment of the touch itself
        self.errors = [1.0] * PAGES
        self.set_turn(turn)

    def teardown(self) -> None:
        if hasattr(self, "aging"):
            self.aging.close()

    def begin_epoch(self) -> None:
        self.now = self.touches, self.aging.ns, self.now[2] + 1
        share = max(LEAST_TOUCHES, self.turn // A_TURN)
        self.ends = self.touches + share, self.aging.ns + SECOND
        self.given.append(self.now)

    @rule(turn=st.sampled_from([0, 1, 5000, 100_000, 1 << 30]))
    def set_turn(self, turn: int) -> None:
        self.turn = max(1, turn)
        self.aging.c.epochs_set_turn(self.aging.epochs, turn)

    @rule(ns=st.sampled_from([1, SECOND // 3, SECOND, 100 * SECOND, 10**6 * SECOND]))
    def pass_time(self, ns: int) -> None:
        self.aging.pass_time(ns)

    @rule(first=st.integers(0, PAGES - 1), count=st.integers(1, PAGES), times=st.integers(1, 50))
    def touch(self, first: int, count: int, times: int) -> None:
        pages = range(first, min(PAGES, first + count))
        for _ in range(times):
            self.touches += len(pages)
            if self.touches >= self.ends[0] or self.aging.ns >= self.ends[1]:
                self.begin_epoch()
            self.aging.touch(*pages)
        for page in pages:
            self.pages[page], self.errors[page] = self.now, 1.0
            self.last[page] = self.aging.ns

    @rule()
    def begin_one(self) -> None:
        self.aging.c.epochs_begin(self.aging.epochs)
        self.begin_epoch()

    @rule(times=st.integers(1, 3))
    def change_over(self, times: int) -> None:
        for _ in range(times):
            self.aging.renumber()
            merged: dict[Began, Began] = {}
            kept: Began | None = None
            for began in self.given:
                if kept is None or self.is_apart(kept, began):
                    kept = began
                merged[began] = kept
            self.pages = [page and merged[page] for page in self.pages]
            self.errors = [error * 33 / 32 for error in self.errors]
            self.given = list(dict.fromkeys(merged.values()))
            self.begin_epoch()

    def is_apart(self, before: Began, later: Began) -> bool:
        """A number of its own is worth it where one of its ages is 3 % less."""
        return any(
            (now - later[i]) * 33 < (now - before[i]) * 32
            for i, now in enumerate((self.touches, self.aging.ns))
        )

    @invariant()
    def ages_are_the_models(self) -> None:
        for page in range(PAGES if hasattr(self, "aging") else 0):
            began = self.pages[page]
            if began is None:
                assert self.aging.age(page) == OLDEST
                continue
            since = self.touches - began[0]
            expected = since * A_TURN // self.turn + 1 if since < TURNS * self.turn else OLDEST
            assert self.aging.age(page) == expected
            assert self.aging.seconds(page) == pytest.approx((self.aging.ns - began[1]) / SECOND)

    @invariant()
    def ages_are_nearly_true(self) -> None:
        """Never younger than it is, and at most an epoch and what merging costs older."""
        for page in range(PAGES if hasattr(self, "aging") else 0):
            last = self.last[page]
            if last is None:
                continue
            seconds, true = self.aging.seconds(page), (self.aging.ns - last) / SECOND
            assert true - 1e-6 <= seconds <= (true + 1) * self.errors[page] + 1e-6

    @invariant()
    def later_ones_are_since(self) -> None:
        """What was touched in the epoch under way, or after it began, is since it."""
        if not hasattr(self, "aging"):
            return
        now = self.aging.c.test_now(self.aging.epochs)
        for page in range(PAGES):
            is_since = self.aging.c.epochs_is_since(
                self.aging.epochs, self.aging.touched[page], now
            )
            assert is_since == (self.pages[page] == self.now)


def test_epochs_against_model(c: ctypes.CDLL) -> None:
    EpochsAgainstModel.c = c
    case = EpochsAgainstModel.TestCase
    phases = [phase for phase in Phase if phase is not Phase.shrink]
    case.settings = settings(settings.default or settings(), max_examples=60, phases=phases)
    case().runTest()


# --- numbers ---


def test_an_epoch_ends_after_a_second_or_a_64th_of_the_pool(aging: Aging) -> None:
    aging.c.epochs_set_turn(aging.epochs, 64 * 100)
    aging.c.epochs_begin(aging.epochs)
    first = aging.c.test_now(aging.epochs)
    for page in range(99):
        aging.touch(page)
    assert {aging.touched[page] for page in range(99)} == {first}
    aging.touch(99)
    assert aging.touched[99] == first + 1
    aging.pass_time(SECOND - 1)
    aging.touch(100)
    assert aging.touched[100] == first + 1
    aging.pass_time(1)
    aging.touch(101)
    assert aging.touched[101] == first + 2


def test_where_nobody_touches_a_page_no_epoch_ends(aging: Aging) -> None:
    aging.touch(1)
    aging.pass_time(10**9 * SECOND)
    assert aging.touched[1] == aging.c.test_now(aging.epochs)
    assert aging.seconds(1) == pytest.approx(10**9)


def test_order_is_kept_while_both_halves_wrap_many_times(aging: Aging) -> None:
    """Each page an epoch later than the one before it, but the last, which is always in use."""
    aging.c.epochs_set_turn(aging.epochs, 10**6)
    for page in range(300):
        aging.c.epochs_begin(aging.epochs)
        aging.touch(page, *([299] * 10_000))
        aging.pass_time(10 * SECOND)
    for _ in range(20):
        aging.renumber()
        ages = [aging.seconds(page) for page in range(299)]
        assert ages == sorted(ages, reverse=True)
        for page, seconds in enumerate(ages):
            true = (300 - page) * 10 + (aging.ns - 1000 * SECOND) / SECOND - 3000
            assert true - 1e-6 <= seconds <= true * 1.07 + 1
        assert all(aging.touched)
        aging.pass_time(SECOND)
        aging.touch(299)
        assert aging.touched[299] == aging.c.test_now(aging.epochs)
    assert len(set(aging.touched)) < 200, "old ones are merged"


def test_numbers_are_scarce_and_then_plenty(aging: Aging) -> None:
    """A full half is merged into few, however regularly its epochs ended."""
    for half in range(4):
        while not aging.c.epochs_are_scarce(aging.epochs):
            aging.pass_time(SECOND)
            aging.touch(0)
        assert aging.c.test_now(aging.epochs) % HALF == PLENTY
        aging.renumber()
        assert aging.c.test_now(aging.epochs) // HALF == (half + 1) % 2
        assert aging.c.test_now(aging.epochs) % HALF < 4000
        assert aging.seconds(0) < 2


def test_numbers_that_have_run_out_go_on(aging: Aging) -> None:
    """Nobody renumbers: ages are too small then, and no number is of the other half."""
    aging.touch(1)
    for _ in range(HALF + 100):
        aging.c.epochs_begin(aging.epochs)
    assert aging.c.test_now(aging.epochs) == HALF - 1
    aging.touch(2)
    assert aging.age(1) >= aging.age(2)
    aging.renumber()
    assert aging.c.test_now(aging.epochs) // HALF == 1


def test_a_page_that_was_not_renumbered_has_some_age(aging: Aging) -> None:
    """A store of a moment ago may come after its page was renumbered."""
    aging.c.epochs_set_turn(aging.epochs, 1000)
    aging.touch(5)
    late = aging.touched[5]
    aging.renumber()
    aging.touched[5] = late
    for _ in range(3):
        assert 1 <= aging.age(5) <= OLDEST
        assert aging.seconds(5) >= 0
        aging.renumber()
    aging.touch(5)
    assert aging.age(5) == 1


def test_threads_touch_while_numbers_change_over(aging: Aging) -> None:
    """An age is an age whatever happens, and after one more touch it is the least again."""
    pages = len(aging.touched)
    threads = [
        threading.Thread(target=aging.c.test_hammer, args=(aging.epochs, aging.touched, pages, 300))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        aging.renumber()
        ages = [aging.age(page) for page in range(pages)]
        assert min(ages) >= 1
        assert max(ages) <= OLDEST
        aging.pass_time(SECOND // 10)
    for thread in threads:
        thread.join()
    aging.renumber()
    aging.touch(*range(pages))
    now = aging.c.test_now(aging.epochs)
    assert set(aging.touched) == {now}
    assert {aging.age(page) for page in range(pages)} == {1}


def test_an_age_ends_at_two_turns_of_the_pool(aging: Aging) -> None:
    aging.c.epochs_set_turn(aging.epochs, 6400)
    aging.touch(1)
    ages = []
    for _ in range(300):
        ages.append(aging.age(1))
        aging.touch(*([2] * 100))
    assert ages[:OLDEST] == list(range(1, OLDEST + 1))
    assert set(ages[OLDEST:]) == {OLDEST}


def test_a_page_touched_after_numbers_changed_over_keeps_its_number(aging: Aging) -> None:
    aging.touch(1)
    aging.c.epochs_change_over(aging.epochs)
    for _ in range(5):
        aging.c.epochs_begin(aging.epochs)
    aging.touch(2)
    number = aging.touched[2]
    aging.c.test_renumber(aging.epochs, aging.touched, len(aging.touched))
    assert aging.touched[2] == number
    assert aging.touched[1] // HALF == number // HALF
    assert aging.touched[3] == 0


# --- before this process ---


def test_restored_order_is_that_of_sequence_numbers(aging: Aging) -> None:
    puts = sorted({*range(2000), *(1 << n for n in range(60)), *(3 << n for n in range(60))})
    numbers = [aging.c.epochs_restored(n) for n in puts]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[-1] >= 1, "0 is what nobody knows"
    aging.c.epochs_set_turn(aging.epochs, 1 << 40)
    for n, number in zip(puts, numbers, strict=True):
        if 1 << 34 <= n < 1 << 41:
            turns = (aging.c.epochs_age(aging.epochs, number) - 1) / A_TURN
            assert turns == pytest.approx(n / (1 << 40), rel=1 / 16, abs=1 / A_TURN)


def test_what_is_touched_now_is_younger_than_all_that_is_restored(aging: Aging) -> None:
    aging.touched[0] = aging.c.epochs_restored(0)
    aging.touched[1] = aging.c.epochs_restored(10**6)
    aging.c.epochs_set_turn(aging.epochs, 10**6)
    aging.touch(2)
    for _ in range(3):
        ages = [aging.age(page) for page in (2, 0, 1, 3)]
        assert ages == sorted(ages)
        assert ages[2] == pytest.approx(A_TURN, rel=1 / 15)
        aging.renumber()


def test_after_a_restart_the_order_of_puts_is_there(running: Running) -> None:
    """Of pages of one size those go that were put long ago, and none that was put again."""
    running.open()
    pages = list(range(1, 101))
    for page in pages:
        running.connect().pwrite(page_of(3 * page + 1), page * PAGE)
    running.instance.host.compact()
    running.kill()
    instance = running.open()
    instance.ages.keep()
    for page in pages[:10]:
        running.connect().pwrite(page_of(3 * page + 601), page * PAGE)
    device, least = running.device, 255
    device.weigh(instance.epochs.begin())
    gone: list[int] = []
    while least and not gone:
        device.weigh(instance.epochs.begin())
        device.writeback_next_heavy(0, least, least)
        gone = [page for page in pages if device.is_on_disk(page)]
        least -= 1
    assert 11 in gone
    assert not {*pages[:10], *pages[60:]} & set(gone)


# --- reads again ---


def test_reads_again_are_counted_by_the_time_between(aging: Aging) -> None:
    for seconds in (2, 3, 10, 100, 1000):
        aging.touch(1)
        aging.pass_time(seconds * SECOND)
        aging.touch(1, is_read=True)
    aging.touch(2)
    aging.pass_time(5 * SECOND)
    aging.touch(2)  # a write
    aging.touch(3, is_read=True)  # never touched before
    aging.pass_time(SECOND // 2)
    aging.touch(3, is_read=True)  # in the same epoch
    counted = [step for step in range(80) if aging.c.test_reused(aging.epochs, step)]
    found = [step_seconds(step) for step in counted]
    assert len(found) == 5
    for seconds, step in zip((2, 3, 10, 100, 1000), found, strict=True):
        assert step <= seconds + 1e-6 < step * 1.26


def refaults(running: Running) -> int:
    return int(cast(Mapping[str, int], running.device.stats())["refaults"])


@pytest.fixture
def written_back(running: Running) -> Running:
    """Pages 1 to 8, put and written back; nothing comes back."""
    running.open()
    for page in range(1, 9):
        running.connect().pwrite(page_of(page), page * PAGE)
    running.instance.shrink(0)
    return running


def test_a_refault_is_counted_once(written_back: Running) -> None:
    connection = written_back.connect()
    for _ in range(2):
        read(connection, PAGE, 4 * PAGE)
    assert refaults(written_back) == 4


def test_what_was_written_since_is_no_refault(written_back: Running) -> None:
    connection = written_back.connect()
    connection.trim(PAGE, PAGE)
    connection.pwrite(page_of(12), 2 * PAGE)
    connection.pwrite(page_of(13), PAGE, FLAG_FUA)
    written_back.device.max_pages = 0
    read(connection, PAGE, 2 * PAGE)
    assert refaults(written_back) == 0


def test_what_left_long_ago_is_no_refault(written_back: Running) -> None:
    connection = written_back.connect()
    written_back.device.forget_left()
    read(connection, PAGE, PAGE)
    written_back.device.forget_left()
    read(connection, 2 * PAGE, PAGE)
    assert refaults(written_back) == 1


def test_a_device_that_is_gone_stops_nobody_who_keeps_ages(running: Running) -> None:
    """Found before it is removed, and kept after."""
    running.open()
    gone, epochs = running.device, running.instance.epochs
    running.instance.remove("g1", force=True)

    class Scarce:
        are_scarce = True

        def __getattr__(self, name: str) -> object:
            return getattr(epochs, name)

    ages = Ages(Scarce(), lambda: [gone])  # type: ignore[arg-type]
    ages.next_forgetting = 0.0
    ages.keep()
    with pytest.raises(OSError, match="is being removed"):
        gone.forget_left()


def test_ages_keep_renumbers_when_numbers_are_scarce(running: Running) -> None:
    running.open()
    running.connect().pwrite(page_of(1), PAGE)
    epochs, device = running.instance.epochs, running.device
    before = device.ages([0.0])
    time.sleep(0.2)
    for _ in range(4):  # so that its first number is another epoch's by then
        while not epochs.are_scarce:
            epochs.begin()
        running.instance.ages.keep()
        assert not epochs.are_scarce
        assert device.ages([0.2, 10**6]) == [before[0], (0, 0)]


def test_ages_are_cumulative(running: Running) -> None:
    """What is older than a bound is older than every lower one."""
    running.open()
    running.connect().pwrite(page_of(1) * 8, PAGE)
    found = running.device.ages([0.0, 0.0, 3600.0])
    assert found[0] == found[1] == (8, found[0][1])
    assert found[0][1] > 0
    assert found[2] == (0, 0)


# --- weights ---


def test_logarithms_of_16_steps(c: ctypes.CDLL) -> None:
    """Linear between powers of two: each number is in the step that begins at or below it."""
    numbers = {n for k in range(60) for n in ((1 << k) - 1, 1 << k, (1 << k) + 1, 5 << k, 11 << k)}
    for n in sorted(numbers | set(range(16, 5000))):
        if n < 16:
            continue
        step = c.test_log16(n)
        least, following = c.test_log16_least(step), c.test_log16_least(step + 1)
        assert least <= n < following
        assert 33 * following <= 35.1 * least
        assert abs(step / 16 - math.log2(n)) < 0.1 + 1 / 16
    assert [c.test_log16(n) for n in (0, 1)] == [0, 0]


def test_steps_of_weight(c: ctypes.CDLL) -> None:
    """A page weighs 32 bytes at least, of age 1, and a whole page at most, of the greatest age."""
    steps = [c.weight_step(weight) for weight in range(32, 4128 * OLDEST + 1, 7)]
    assert steps == sorted(steps)
    assert steps[0] == 1
    assert steps[-1] == 225
    for step in range(1, 226):
        least = c.weight_least(step)
        assert c.weight_step(least) == step
        assert step == 1 or c.weight_step(least - 1) == step - 1
        assert least_weight(step) == least
    assert c.weight_step(1) == 1, "0 is what is not in tmem"
    assert c.weight_step(2**63) == 255


def test_weights_are_age_times_bytes(running: Running) -> None:
    """Of pages of one age the larger are heavier; what is touched again is lightest."""
    instance = running.open(DeviceSpec("g1", MIB))
    kinds = {0: range(1, 11), 1: range(11, 21), 2: range(21, 31)}  # smallest to largest
    for kind, pages in kinds.items():
        for page in pages:
            running.connect().pwrite(page_of(3 * page + kind), page * PAGE)
    device = running.device
    assert least_steps(device, instance.epochs) == sorted(least_steps(device, instance.epochs))
    weights = device.weigh(instance.epochs.begin())
    assert sum(weights) == 30
    assert weights[0] == 0
    assert sum(1 for pages in weights if pages) >= 3


def least_steps(device: Device, epochs: Epochs) -> list[int]:
    found = device.weigh(epochs.begin())
    return [step for step, pages in enumerate(found) for _ in range(pages)]
