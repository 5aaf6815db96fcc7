# SPDX-License-Identifier: BSD-3-Clause
"""Random operations on two devices while all that looks after memory swings, against a model.

As many as you like:
    .venv/bin/python -m tests.preswap.swinging --operations 10000000 --seed 7
Requests, settings, turns of the work in the background, kills and reboots come in one thread, so
that a run can be repeated by its seed.  What a request reads is compared at once, and all pages now
and then, and after each start.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from typing import cast

from preswapd.codecs import COMPRESS
from preswapd.preswap.device._device import FLAG_FUA, Connection
from preswapd.preswap.settings import DeviceSpec
from preswapd.preswap.writeback import room
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.disk_model import page_of
from tests.preswap.running import Running, pages_read, read

DEVICES = {"g1": 704, "g2": 64}
LIMITS = [0, 60_000, 300_000, 600_000, 1_200_000, 8_000_000]
QUOTAS = ["0", "1", "30", "200", "default"]
TAGS = [page_of(tag) for tag in range(500)]
ZEROS = bytes(PAGE)
COUNTED = ("written_back_room", "written_back_idle", "promoted_pages", "refaults")
LOOK_EVERY = 5000  # operations
TELL_EVERY = 500_000

Pages = dict[int, bytes | None]  # None: an I/O error


class Swings:
    """`truth` of each device: what its pages are.  The sum of `done` is the operations."""

    def __init__(self, tmp: Path, seed: int) -> None:
        self.random = random.Random(seed)
        specs = [DeviceSpec(name, pages * PAGE) for name, pages in DEVICES.items()]
        self.running = Running(tmp, specs, LIMITS[-1])
        self.running.paths.runtime_dir.mkdir(parents=True, exist_ok=True)
        self.done: dict[str, int] = {}
        self.counted: dict[str, int] = {}
        self.running.open()
        self.connect()
        self.truth: dict[str, Pages] = {}
        for name, pages in DEVICES.items():
            self.truth[name] = dict.fromkeys(range(pages), ZEROS)
            self.truth[name][0] = read(self.connections[name], 0, PAGE)
        self.ways: dict[Callable[[], None], float] = {
            self.write: 35,
            self.read: 35,
            self.write_to_disk: 2,
            self.part: 3,
            self.trim: 6,
            self.keep_room: 8,
            self.move_idle: 3,
            self.begin_epoch: 3,
            self.maintain: 1,
            self.settle: 1,
            self.recompress: 0.5,
            self.change_over: 0.5,
            self.set_promotion: 0.5,
            self.set_limit: 0.5,
            self.set_quota: 0.2,
            self.set_policy: 0.3,
            self.set_codec: 0.2,
            self.shrink: 0.2,
            self.make_known: 0.05,
            self.swapoff: 0.02,
            self.sync: 0.02,
            self.restart: 0.02,
            self.reboot: 0.01,
        }

    def run(self, operations: int) -> None:
        ways, weights = list(self.ways), list(self.ways.values())
        for number in range(operations):
            (way,) = self.random.choices(ways, weights)
            self.done[way.__name__] = self.done.get(way.__name__, 0) + 1
            way()
            if number % LOOK_EVERY == 0:
                self.look()
            if number and number % TELL_EVERY == 0:
                print(f"{number} operations", file=sys.stderr)
        self.look()
        self.count()

    def connect(self) -> None:
        devices = self.running.instance.devices
        self.connections: dict[str, Connection] = {
            name: device.connect() for name, device in devices.items()
        }

    def count(self) -> None:
        """Of a life of the server what it has counted; the next one begins at 0."""
        for device in self.running.instance.all_devices():
            figures = cast(Mapping[str, int], device.stats())
            for key in COUNTED:
                self.counted[key] = self.counted.get(key, 0) + figures[key]

    # --- what guests do ---

    def some(self) -> tuple[str, range]:
        """Half of them in a hot tenth."""
        name = self.random.choice(["g1", "g1", "g2"])
        pages = DEVICES[name]
        most = pages if self.random.random() < 0.5 else pages // 10
        first = self.random.randrange(1, most)
        return name, range(first, min(pages, first + self.random.choice([1, 1, 2, 8, 40])))

    def write(self, flags: int = 0) -> None:
        name, pages = self.some()
        contents = self.random.choices(TAGS, k=len(pages))
        self.connections[name].pwrite(b"".join(contents), pages.start * PAGE, flags)
        self.truth[name].update(zip(pages, contents, strict=True))

    def write_to_disk(self) -> None:
        self.write(FLAG_FUA)

    def part(self) -> None:
        name, pages = self.some()
        page, at = pages.start, self.random.randrange(PAGE - 10)
        before = self.truth[name][page]
        try:
            self.connections[name].pwrite(b"part of it", page * PAGE + at)
        except OSError:
            assert before is None, f"page {page} of {name} cannot be written"
        else:
            assert before is not None, f"page {page} of {name} was not known"
            self.truth[name][page] = before[:at] + b"part of it" + before[at + 10 :]

    def read(self) -> None:
        name, pages = self.some()
        expected = [self.truth[name][page] for page in pages]
        try:
            found = read(self.connections[name], pages.start * PAGE, len(pages) * PAGE)
        except OSError:
            assert None in expected, f"pages {pages} of {name} cannot be read"
            return
        for i, page in enumerate(pages):
            assert found[i * PAGE : (i + 1) * PAGE] == expected[i], f"page {page} of {name}"

    def trim(self) -> None:
        name, pages = self.some()
        connection = self.connections[name]
        way = self.random.choice([connection.trim, connection.zero])
        way(len(pages) * PAGE, pages.start * PAGE, self.random.choice([0, 0, 0, FLAG_FUA]))
        self.truth[name].update(dict.fromkeys(pages, ZEROS))

    # --- what goes on in the background ---

    def keep_room(self) -> None:
        self.running.instance.room.turn(0)

    def move_idle(self) -> None:
        idle = self.running.instance.idle
        idle.next_look = 0.0
        idle.looked_at -= 1.0  # a second ago
        idle.turn()

    def begin_epoch(self) -> None:
        self.running.instance.epochs.begin()

    def change_over(self) -> None:
        self.running.instance.epochs.change_over()
        for device in self.running.instance.all_devices():
            device.renumber()

    def maintain(self) -> None:
        self.running.instance.maintain()
        self.running.fitted()

    def settle(self) -> None:
        self.running.instance.host.settle()

    def recompress(self) -> None:
        for device in self.running.instance.all_devices():
            device.recompress("zstd", 0, since=-inf, before=inf, nanoseconds=10**9)

    # --- what operators do ---

    def set_promotion(self) -> None:
        """Until the next turn."""
        for device in self.running.instance.all_devices():
            device.promoted_below = self.random.choice([None, None, 0, 2000, 200_000])

    def set_limit(self) -> None:
        self.running.instance.host.limit = self.random.choice(LIMITS)
        self.running.fitted()

    def set_quota(self) -> None:
        name = self.random.choice(list(DEVICES))
        self.running.instance.set(f"preswap.test.{name}.quota", self.random.choice(QUOTAS))
        self.running.fitted()

    def set_policy(self) -> None:
        policy = self.running.instance.sysctl.policy
        policy.writeback_room = self.random.choice([0.0, 0.05, 0.05, 0.3])
        policy.writeback_idle = self.random.choice([None, None, 0.0, 0.01, "auto"])
        policy.writeback_rate = self.random.choice([None, 20 * PAGE, 1 << 30])

    def set_codec(self) -> None:
        device = self.random.choice(self.running.instance.all_devices())
        device.compress = self.random.choice(COMPRESS)
        self.running.instance.host.set_staging(self.random.random() < 0.5)

    def shrink(self) -> None:
        name = self.random.choice([None, *DEVICES])
        result = self.running.instance.shrink(self.random.choice([0, 1, 30, 200]), name)
        assert (result.complete, result.lost) == (True, 0)

    def make_known(self) -> None:
        for name in DEVICES:
            self.running.instance.trim(name)
            unknown = [page for page, content in self.truth[name].items() if content is None]
            self.truth[name].update(dict.fromkeys(unknown, ZEROS))

    def swapoff(self) -> None:
        self.running.instance.swapoff("g2")
        self.forget("g2", set(range(1, DEVICES["g2"])))

    def forget(self, name: str, pages: set[int]) -> None:
        self.truth[name].update(dict.fromkeys(pages - {0}, None))

    def sync(self) -> None:
        assert self.running.instance.begin_sync().wait().complete
        if self.random.random() < 0.3:
            self.count()
            self.running.reboot()
            self.start()

    # --- the server and its host ---

    def start(self) -> None:
        instance = self.running.open(known=False)
        assert (instance.recovery.damaged_slots, instance.recovery.lost_pages) == (0, 0)
        if self.random.random() < 0.7:
            instance.compress_later()
        self.connect()
        self.look()

    def restart(self) -> None:
        self.count()
        (self.running.stop if self.random.random() < 0.3 else self.running.kill)()
        self.start()

    def reboot(self) -> None:
        """What was in memory is unknown, and of a device that was marked everything."""
        self.count()
        is_clean = self.random.random() < 0.7
        devices = self.running.instance.devices
        in_memory = {
            name: {page for page, bit in enumerate(device.preswap_map) if bit}
            for name, device in devices.items()
        }
        marked = {name for name, device in devices.items() if device.is_marked}
        if is_clean:
            self.running.stop()
        for name in DEVICES:
            everything = set(range(DEVICES[name]))
            is_lost = name in marked and not is_clean
            self.forget(name, everything if is_lost else in_memory[name])
        self.running.reboot()
        self.start()

    # --- looking ---

    def look(self) -> None:
        for name, connection in self.connections.items():
            for page, found in enumerate(pages_read(connection)):
                assert found == self.truth[name][page], f"page {page} of {name}"
        check_coherence(self.running.instance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--operations", type=int, default=100_000, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    room.PAUSE_SECONDS = 0.0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="preswapd-test-", dir="/dev/shm") as tmp:
        swings = Swings(Path(tmp), args.seed)
        with swings.running:
            swings.run(args.operations)
    print(f"{sum(swings.done.values())} operations in {time.monotonic() - began:.0f} s: none wrong")
    for what, times in {**swings.done, **swings.counted}.items():
        print(f"{times:10} {what}")


if __name__ == "__main__":
    main()
