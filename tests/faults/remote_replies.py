# SPDX-License-Identifier: BSD-3-Clause
"""A search: what a store answers may be old, swapped, cut, flipped, late, of another page, or no
answer at all, and no read may return anything but what its page holds.

A device in this process, threads that write, read and trim pages of their own and compare each
byte, one that moves all to disk meanwhile, and a courier that is wrong most of the time:

    .venv/bin/python -m tests.faults.remote_replies --replies 1000000 --seed 7

Exits with 1 at the first wrong page, and says at the end how many answers were wrong, and how.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from preswapd.preswap.device._device import Connection, Device
from preswapd.preswap.settings import DeviceSpec
from preswapd.remote._remote import Remote
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.running import MIB, Running
from tests.remote.played import AWAY, ERROR, MISS, Get, Played, Store, frame

KEY = bytes(range(32))
TIMEOUT_MS = 5.0
WORKERS = 3
STORED = 2000  # by a store between two couriers
PAGES_OF_EACH = 96  # with those of others they share extents, marks and gets of many pages
# Of all answers; some get none at all, and one in a while no frame.
RIGHT = 0.45
GARBAGE = 0.0002


@dataclass
class Liar:
    """Answers gets, and counts how."""

    store: Store
    random: random.Random
    faults: Counter[str] = field(default_factory=Counter)
    late: list[bytes] = field(default_factory=list)
    earlier: list[Get] = field(default_factory=list)

    def answer(self, get: Get) -> bytes:
        answers = [self.one(get, i, name) for i, name in enumerate(get.names)]
        self.random.shuffle(answers)
        self.earlier = [*self.earlier[-20:], get]
        if self.random.random() < 0.5:  # what is late comes with what is not
            answers, self.late = [*self.late, *answers], []
        if self.random.random() < GARBAGE:
            self.faults["garbage"] += 1
            answers.append(self.random.randbytes(64))
        return b"".join(answers)

    def one(self, get: Get, index: int, name: bytes) -> bytes:
        value = self.store.get(name)
        if value is None or self.random.random() < RIGHT:
            return get.value(index, value)
        fault = self.random.choice(FAULTS)
        self.faults[fault.__name__] += 1
        return fault(self, get, index, value)


def flipped(liar: Liar, get: Get, index: int, value: bytes) -> bytes:
    changed = bytearray(value)
    changed[liar.random.randrange(len(value))] ^= 1 << liar.random.randrange(8)
    return get.value(index, bytes(changed))


def cut(liar: Liar, get: Get, index: int, value: bytes) -> bytes:
    return get.value(index, value[: liar.random.randrange(len(value))])


def longer(liar: Liar, get: Get, index: int, value: bytes) -> bytes:
    return get.value(index, value + liar.random.randbytes(liar.random.choice((1, 16, 5000))))


def made_up(liar: Liar, get: Get, index: int, value: bytes) -> bytes:
    return get.value(index, liar.random.randbytes(len(value)))


def swapped(liar: Liar, get: Get, index: int, value: bytes) -> bytes:
    """Another page's, which is as good as this one."""
    return get.value(index, liar.random.choice(list(liar.store.values())))


def old(liar: Liar, get: Get, index: int, value: bytes) -> bytes:
    """Of this page or another one, and not what it holds now."""
    return get.value(index, liar.random.choice(liar.store.ever))


def lost(liar: Liar, get: Get, index: int, value: bytes) -> bytes:
    status = liar.random.choice((MISS, AWAY, ERROR))
    if status == MISS:
        del liar.store[get.names[index]]
    return frame(b"v", get.ident, status=status, index=index)


def late(liar: Liar, get: Get, index: int, value: bytes) -> bytes:
    liar.late.append(get.value(index, value))
    return b""


def never(liar: Liar, get: Get, index: int, value: bytes) -> bytes:
    return b""


def of_another_get(liar: Liar, get: Get, index: int, value: bytes) -> bytes:
    """The value under the number of a get before this one, or after it."""
    other = liar.random.choice([*liar.earlier, get]).ident + liar.random.choice((-1, 0, 1, 2))
    return frame(b"v", max(0, other), value, index=index)


def of_another_name(liar: Liar, get: Get, index: int, value: bytes) -> bytes:
    return get.value(liar.random.randrange(40), value)


def twice(liar: Liar, get: Get, index: int, value: bytes) -> bytes:
    """Wrong, and then right, or the other way round."""
    both = [get.value(index, value), flipped(liar, get, index, value)]
    liar.random.shuffle(both)
    return b"".join(both)


FAULTS: Sequence[Callable[[Liar, Get, int, bytes], bytes]] = (
    flipped,
    cut,
    longer,
    made_up,
    swapped,
    old,
    lost,
    late,
    never,
    of_another_get,
    of_another_name,
    twice,
)


class WrongPageError(Exception):
    pass


class Worker:
    """A part of a client with pages of its own; nobody else writes them."""

    def __init__(self, connection: Connection, first: int, seed: int) -> None:
        self.connection = connection
        self.first, self.random = first, random.Random(seed)
        self.is_held: dict[int, bytes] = {}
        self.counter = 0

    def page(self, number: int) -> bytes:
        """No two are equal; half of each compresses."""
        self.counter += 1
        stamp = number.to_bytes(4) + self.counter.to_bytes(8)
        return (stamp * PAGE)[: PAGE // 2] + self.random.randbytes(PAGE // 2)

    def step(self) -> None:
        n = self.random.choice((1, 1, 2, 8, 40, PAGES_OF_EACH))
        first = self.first + self.random.randrange(PAGES_OF_EACH - n + 1)
        numbers = range(first, first + n)
        do = self.random.random()
        if do < 0.75:
            self.read(numbers)
        elif do < 0.97:
            self.write(numbers)
        else:
            self.connection.trim(n * PAGE, first * PAGE)
            self.is_held.update(dict.fromkeys(numbers, bytes(PAGE)))

    def write(self, numbers: range) -> None:
        pages = {number: self.page(number) for number in numbers}
        self.connection.pwrite(b"".join(pages.values()), numbers[0] * PAGE)
        self.is_held.update(pages)

    def read(self, numbers: range) -> None:
        found = bytearray(len(numbers) * PAGE)
        self.connection.pread(found, numbers[0] * PAGE)
        for i, number in enumerate(numbers):
            if found[i * PAGE : (i + 1) * PAGE] != self.is_held.get(number, bytes(PAGE)):
                raise WrongPageError(f"page {number}")


@dataclass
class Search:
    device: Device
    remote: Remote
    seed: int
    replies: int
    stop: threading.Event = field(default_factory=threading.Event)
    wrong: list[BaseException] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    store: Store = field(default_factory=Store)
    couriers: int = 0

    def run(self) -> None:
        loops = [self.writebacks, self.ticks]
        guest = self.device.connect()
        for i in range(WORKERS):
            loops.append(Worker(guest, 1 + i * PAGES_OF_EACH, self.seed + i).step)
        threads = [threading.Thread(target=self.until_stopped, args=(loop,)) for loop in loops]
        for thread in threads:
            thread.start()
        try:
            self.play()
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()
        if self.wrong:
            raise self.wrong[0]

    def until_stopped(self, loop: Callable[[], None]) -> None:
        try:
            while not self.stop.is_set():
                loop()
        except BaseException as error:
            self.wrong.append(error)
            self.stop.set()

    def writebacks(self) -> None:
        """As a shrink: all leaves memory, again and again; seldom enough that the queue of sets is
        empty now and then, as nobody is asked for what is read from there."""
        for extent in range(0, self.device.pages, 256):
            self.device.writeback(extent // 256)
        self.stop.wait(0.01)

    def ticks(self) -> None:
        self.remote.tick()
        self.stop.wait(0.05)

    def play(self) -> None:
        """Couriers one after another: each ends with garbage, or where too many were late."""
        rng = random.Random(self.seed)
        while not self.stop.is_set() and self.faults.total() < self.replies:
            liar = Liar(self.store, rng)
            self.couriers += 1
            with Played(self.remote, self.store, liar.answer):
                while self.goes_on(liar):
                    self.stop.wait(0.01)
            self.faults += liar.faults
            # What it took with it was never deleted: a store forgets it in time.
            for name in list(self.store)[:-STORED]:
                del self.store[name]

    def goes_on(self, liar: Liar) -> bool:
        return (
            not self.stop.is_set()
            and self.remote.connected
            and not self.remote.figures()["remote_open"]
            and self.faults.total() + liar.faults.total() < self.replies
        )


def search(replies: int, seed: int) -> Search:
    """WrongPageError, or how it went."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = stack.enter_context(Running(folder, [DeviceSpec("g1", 2 * MIB)]))
        running.open()
        running.device.promoted_below = None
        remote = Remote(KEY, TIMEOUT_MS, 2 * MIB, 3600)
        running.device.use_remote(remote)
        found = Search(running.device, remote, seed, replies)
        found.run()
        return found


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replies", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        found = search(asked.replies, asked.seed)
    except WrongPageError as error:
        print(f"wrong: {error}")
        return 1
    print(f"{found.faults.total()} wrong answers of {found.couriers} couriers in "
          f"{time.monotonic() - began:.0f} s, and no wrong page")  # fmt: skip
    for name, number in sorted(found.faults.items()):
        print(f"  {name:16}{number:9}")
    for name, number in found.remote.figures().items():
        print(f"  {name:20}{number:9}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
