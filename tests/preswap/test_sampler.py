# SPDX-License-Identifier: BSD-3-Clause
"""The sampler: what it chooses, against a plain computation of the same; and what that is worth,
against the full one."""

import ctypes
import random
import subprocess
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.aging import recordings
from tests.compiling import INCLUDES
from tests.preswap.reuse import READ, TRIM, WRITE, Event, Full, share, swapping

HERE = Path(__file__).parent
STEPS = 33 * 16
SHIFT = 4
MOST_SAMPLES = 1 << 13
CURVES = ("pool", "least", "most")


class Distances(ctypes.Structure):
    _fields_ = (
        ("period", ctypes.c_uint64),
        *((curve, ctypes.c_uint64 * STEPS) for curve in CURVES),
        ("unseen", ctypes.c_uint64),
        ("samples", ctypes.c_uint64),
    )


class State(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("one_in", "samples", "read_again", "not_read_again")
    )


class Sampling:
    """The C under test, fed with events of one device."""

    def __init__(self, c: ctypes.CDLL, shift: int) -> None:
        self.c = c
        self.fed = c.test_new(shift)

    def close(self) -> None:
        self.c.test_end(self.fed)

    def feed(self, events: Sequence[Event]) -> "Sampling":
        ops = bytes(op for op, _ in events)
        pages = (ctypes.c_uint64 * len(events))(*(page for _, page in events))
        self.c.test_feed(self.fed, ops, pages, len(events))
        return self

    def turn(self) -> None:
        self.c.test_turn(self.fed)

    @property
    def sum(self) -> Distances:
        found = Distances()
        self.c.test_sum(self.fed, ctypes.byref(found))
        return found

    @property
    def state(self) -> State:
        found = State()
        self.c.test_state(self.fed, ctypes.byref(found))
        return found

    def counts(self, curve: str) -> list[int]:
        return list(getattr(self.sum, curve))

    def share(self, curve: str, pages: int) -> float:
        """Between two steps, as a reader of the curve has it."""
        counts = self.counts(curve)
        sums = [0, *accumulate(counts)]
        step = max(0, bisect_right(BOUNDS, pages) - 1)
        part = (pages - least_pages(step)) / (least_pages(step + 1) - least_pages(step))
        return (sums[step] + part * counts[step]) / sums[-1]


def least_pages(step: int) -> float:
    return (16 + step % 16) * 2.0 ** (step // 16) / 16


BOUNDS = [least_pages(step) for step in range(STEPS)]


def compiled(folder: Path, samples: int) -> ctypes.CDLL:
    path = folder / f"sampling-{samples}.so"
    flags = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command = ["cc", *flags, *INCLUDES, f"-DTEST_SAMPLES={samples}", "-o", str(path)]
    subprocess.run([*command, str(HERE / "sampling.c"), "-lpthread"], check=True)
    c = ctypes.CDLL(str(path))
    pointer, u64 = ctypes.c_void_p, ctypes.c_uint64
    for name, result, *arguments in (
        ("test_new", pointer, ctypes.c_uint32),
        ("test_end", None, pointer),
        ("test_feed", None, pointer, ctypes.c_char_p, pointer, u64),
        ("test_turn", None, pointer),
        ("test_sum", None, pointer, pointer),
        ("test_state", None, pointer, pointer),
        ("test_bytes", u64),
        ("test_device_bytes", u64),
        ("test_hash", u64, u64),
        ("test_log16", ctypes.c_uint, u64),
    ):
        function = getattr(c, name)
        function.restype, function.argtypes = result, arguments
    return c


@pytest.fixture(scope="module", name="c")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compiled(tmp_path_factory.mktemp("sampling"), MOST_SAMPLES)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """With room for 32 samples: it is full soon, and positions run out."""
    return compiled(tmp_path_factory.mktemp("sampling"), 32)


Start = Callable[..., Sampling]


@pytest.fixture
def start(c: ctypes.CDLL) -> Iterator[Start]:
    begun: list[Sampling] = []

    def begin(shift: int = SHIFT, library: ctypes.CDLL = c) -> Sampling:
        begun.append(Sampling(library, shift))
        return begun[-1]

    yield begin
    for sampling in begun:
        sampling.close()


# --- against a plain computation of the same ---


class Model(Full):
    """The full computation, of the pages that the sampler should choose."""

    def __init__(self, c: ctypes.CDLL, shift: int, room: int) -> None:
        super().__init__(scale=1 << shift)
        self.c = c
        self.room = room

    def chooses(self, page: int) -> bool:
        return int(self.c.test_hash(page)) < (2**64 - 1) // self.scale

    def note(self, op: int, page: int) -> None:
        if not self.chooses(page):
            return
        super().note(op, page)
        if len(self.last) >= self.room:
            self.scale *= 2
            for gone in [page for page in self.last if not self.chooses(page)]:
                time, is_out = self.last.pop(gone)
                self.used.remove(time)
                if is_out:
                    self.out.remove(time)


class Counted(Model):
    """With the reads of each step, each as many as it stands for when it is read."""

    def __init__(self, c: ctypes.CDLL, shift: int, room: int) -> None:
        super().__init__(c, shift, room)
        self.steps = {curve: [0] * STEPS for curve in CURVES}

    def measure(self, used: int, out: int) -> None:
        super().measure(used, out)
        for curve in CURVES:
            distance = getattr(self, curve)[-1]
            self.steps[curve][self.c.test_log16(distance)] += self.scale


EVENTS = st.lists(st.tuples(st.sampled_from([READ, WRITE, WRITE, TRIM]), st.integers(1, 200)))


@given(st.integers(0, 3), EVENTS, st.integers(0, 2**32))
@settings(deadline=None, max_examples=200)
def test_model(small: ctypes.CDLL, shift: int, events: list[Event], seed: int) -> None:
    """Also after hundreds of events more: the sample is halved, positions begin anew."""
    drawn = random.Random(seed)
    more = [(drawn.choice((READ, WRITE, TRIM)), drawn.randrange(1, 200)) for _ in range(300)]
    events = [*events, *more]
    sampling, model = Sampling(small, shift), Counted(small, shift, 32)
    try:
        sampling.feed(events)
        model.feed(events)
        assert {curve: sampling.counts(curve) for curve in CURVES} == model.steps
        state = sampling.state
        assert (state.one_in, state.samples) == (model.scale, len(model.last))
        assert (state.read_again, state.not_read_again) == (model.read_again, model.not_read_again)
        assert sampling.sum.unseen == model.unseen
    finally:
        sampling.close()


def test_full_sample_is_halved_and_stays_bounded(start: Start) -> None:
    sampling = start(0)
    for first in range(0, 1 << 18, 1 << 14):
        sampling.feed([(WRITE, page) for page in range(first + 1, first + (1 << 14) + 1)])
        assert sampling.state.samples < MOST_SAMPLES
    state = sampling.state
    assert (1 << 18) / state.one_in == pytest.approx(state.samples, rel=0.1)
    # What was not chosen any more is not counted any less.
    sampling.feed([(READ, page) for page in range(1, (1 << 18) + 1)])
    assert sum(sampling.counts("pool")) == pytest.approx(1 << 18, rel=0.05)


def test_period_before_counts_and_the_one_before_that_does_not(start: Start) -> None:
    sampling = start(0)
    reads = [(WRITE, 1), *[(READ, 1)] * 3]
    sums = []
    for _ in range(3):
        sampling.feed(reads)
        sums.append(sum(sampling.counts("pool")))
        sampling.turn()
    sampling.turn()
    assert (sums, sum(sampling.counts("pool"))) == ([3, 6, 6], 0)


def test_what_was_trimmed_is_not_between_two_uses(start: Start) -> None:
    written = [(WRITE, page) for page in range(1, 101)]
    sampling = start(0).feed([*written, *((TRIM, page) for page in range(2, 100)), (READ, 1)])
    assert [sampling.counts(curve).index(1) for curve in CURVES] == [16, 16, 16]  # two pages
    assert sampling.feed([(READ, 50)]).sum.unseen == 1


def test_memory_is_what_the_guide_says(c: ctypes.CDLL) -> None:
    guide = (HERE.parents[1] / "docs/guides/capacity.md").read_text()
    bound = f"{c.test_bytes() // 1024} KiB at most for an instance"
    of_device = f"{-(-c.test_device_bytes() // 1024)} KiB for each device"
    assert bound in guide
    assert of_device in guide


# --- against the full computation ---


def recorded(name: str) -> list[Event]:
    ops = {"R": READ, "W": WRITE, "T": TRIM}
    return [
        (ops[request.op], page)
        for request in recordings.requests(recordings.lines(name))
        for page in range(request.page, request.page + request.count)
    ]


SLOW = [
    pytest.param(name, marks=pytest.mark.slow) for name in recordings.SIMULATED if name != "skewed"
]


@pytest.mark.parametrize("name", ["skewed", *SLOW])
def test_recorded_guests(start: Start, name: str) -> None:
    """On average over a hundred sizes, up to the one that has all."""
    events = recorded(name)
    full = Full().feed(events)
    sampling = start().feed(events)
    for curve in CURVES:
        exact = sorted(getattr(full, curve))
        sizes = [exact[-1] * percent // 100 for percent in range(1, 101)]
        errors = [
            abs(sampling.share(curve, size) - bisect_right(exact, size) / len(exact))
            for size in sizes
        ]
        assert sum(errors) / len(errors) <= 0.02, curve


PAGES, MEMORY = 3000, 1000


def accesses(kind: str) -> list[tuple[int, bool]]:
    drawn = random.Random(kind)
    if kind == "loop":
        return [(number % PAGES + 1, drawn.random() < 0.5) for number in range(10 * PAGES)]
    bias = {"even": 1.0, "skewed": 2.5}[kind]
    return [
        (int(PAGES * drawn.random() ** bias) + 1, drawn.random() < 0.5) for _ in range(12 * PAGES)
    ]


MORE = [MEMORY * part // 4 for part in range(1, 9)]


def ended(kind: str, more: int, *, keeps_slots: bool) -> float:
    """The share of swap-ins that a guest with so much more memory has not."""
    reads = [
        sum(op == READ for op, _ in swapping(accesses(kind), memory, keeps_slots=keeps_slots))
        for memory in (MEMORY, MEMORY + more)
    ]
    return 1 - reads[1] / reads[0]


@pytest.mark.parametrize("kind", ["even", "skewed", "loop"])
def test_more_memory_ends_what_is_said(kind: str) -> None:
    """Exactly, where a guest writes whatever it puts out."""
    full = Full().feed(swapping(accesses(kind), MEMORY, keeps_slots=False))
    for more in MORE:
        truth = ended(kind, more, keeps_slots=False)
        assert share(full.most, more) == pytest.approx(truth, abs=0.003)
        assert share(full.least, more) <= share(full.most, more)


@pytest.mark.parametrize("kind", ["even", "skewed", "loop"])
def test_truth_is_between_least_and_most(kind: str) -> None:
    """Where it puts out unseen what it has not changed."""
    full = Full().feed(swapping(accesses(kind), MEMORY, keeps_slots=True))
    for more in MORE:
        truth = ended(kind, more, keeps_slots=True)
        assert share(full.least, more) - 0.02 <= truth <= share(full.most, more) + 0.03


@pytest.mark.parametrize("kind", ["even", "skewed", "loop"])
def test_pool_is_one_that_drops_what_was_used_longest_ago(kind: str) -> None:
    events = list(swapping(accesses(kind), MEMORY, keeps_slots=True))
    full = Full().feed(events)
    for size in MORE:
        held: dict[int, None] = {}
        hits = 0
        for op, page in events:
            hits += op == READ and page in held
            held.pop(page, None)
            held[page] = None
            if len(held) > size:
                del held[next(iter(held))]
        reads = sum(op == READ for op, _ in events)
        assert share(full.pool, size) == hits / reads
