# SPDX-License-Identifier: BSD-3-Clause
"""Random histories: two devices read as disks must, whatever limits, shrinks, room and kills."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from math import inf
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from preswapd.codecs import COMPRESS
from preswapd.preswap.device._device import FLAG_FUA, Connection, Device
from preswapd.preswap.files.disk_file import data_ranges
from preswapd.preswap.policy import AUTO
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.disk_model import DiskModel, pages_of
from tests.preswap.running import Running, pages_read, read
from tests.preswap.zones import with_zone


def small_zone(pages: int) -> tuple[range, ...]:
    """A zone as large devices have it, of devices that can be compared at each step."""
    return range(1), range(3, 5), range(20, 30), range(pages - 2, pages)


# More than two extents, so that a shrink has a choice.
PAGES = {"g1": 600, "g2": 40}
QUOTAS = ["0", "1", "50", "default"]
LIMITS = [0, 100_000, 300_000, 1_000_000, 8_000_000]
UNLIMITED = 2**64 - 1

NAMES = st.sampled_from([*PAGES, "g1"])
FLAGS = st.sampled_from([0, 0, 0, FLAG_FUA])
TAGS = st.integers(0, 1 << 20)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[str, int, int]:
    """(device, offset, count), most of them of whole pages or about a page's end."""
    name = draw(NAMES)
    size = PAGES[name] * PAGE
    first = draw(st.integers(0, PAGES[name] - 1))
    kind = draw(st.sampled_from(["page", "page", "pages", "ragged", "part", "huge"]))
    if kind == "part":
        offset = first * PAGE + draw(st.sampled_from([0, 1, 512, 1024, 4086]))
        return name, offset, draw(st.integers(1, min(4 * PAGE, size - offset)))
    most = {"page": 1, "huge": PAGES[name]}.get(kind, 20)
    end = min(PAGES[name], first + draw(st.integers(1, most)))
    offset, stop = first * PAGE, end * PAGE
    if kind == "ragged":
        offset = max(0, offset + draw(st.integers(-600, 600)))
        stop = min(size, stop + draw(st.integers(-600, 600)))
    return name, offset, stop - offset


class DevicesAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.stack.enter_context(with_zone(small_zone))
        self.stack.enter_context(patch("preswapd.preswap.writeback.room.PAUSE_SECONDS", 0.0))
        tmp = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="preswapd-test-"))
        specs = [DeviceSpec(name, pages * PAGE) for name, pages in PAGES.items()]
        self.running = self.stack.enter_context(Running(Path(tmp), specs, LIMITS[-1]))
        self.running.paths.runtime_dir.mkdir(parents=True)
        self.models = {name: DiskModel(pages * PAGE) for name, pages in PAGES.items()}
        self.connections: dict[str, Connection] = {}

    @initialize(codec=st.sampled_from(COMPRESS))
    def create(self, codec: str) -> None:
        specs = [DeviceSpec(name, pages * PAGE, codec) for name, pages in PAGES.items()]
        self.running.open(*specs)
        self.connect()
        for name, model in self.models.items():
            model.write(0, read(self.connections[name], 0, PAGE))

    def teardown(self) -> None:
        self.stack.close()

    def connect(self) -> None:
        devices = self.running.instance.devices
        self.connections = {name: device.connect() for name, device in devices.items()}

    @rule(where=ranges(), tag=TAGS, flags=FLAGS)
    def write(self, where: tuple[str, int, int], tag: int, flags: int) -> None:
        name, offset, count = where
        data = pages_of(tag, count)
        with fails_unless(self.models[name].write(offset, data)):
            self.connections[name].pwrite(data, offset, flags)

    # Most of what happens is guests at work: what nobody has written cannot be lost.
    @rule(name=NAMES, tag=TAGS, flags=FLAGS)
    def fill(self, name: str, tag: int, flags: int) -> None:
        """Half of it."""
        size = PAGES[name] * PAGE
        self.write((name, size // 4, size // 2), tag, flags)

    @rule(where=ranges(), tag=TAGS, flags=FLAGS)
    def write_more(self, where: tuple[str, int, int], tag: int, flags: int) -> None:
        self.write(where, tag, flags)

    @rule(where=ranges(), tag=TAGS)
    def write_to_disk(self, where: tuple[str, int, int], tag: int) -> None:
        self.write(where, tag, FLAG_FUA)

    @rule(where=ranges(), flags=FLAGS)
    def trim(self, where: tuple[str, int, int], flags: int) -> None:
        name, offset, count = where
        self.connections[name].trim(count, offset, flags)
        self.models[name].trim(offset, count)

    @rule(where=ranges(), flags=FLAGS)
    def zero(self, where: tuple[str, int, int], flags: int) -> None:
        name, offset, count = where
        with fails_unless(self.models[name].zero(offset, count)):
            self.connections[name].zero(count, offset, flags)

    @rule(where=ranges())
    def read(self, where: tuple[str, int, int]) -> None:
        name, offset, count = where
        model = self.models[name]
        with fails_unless(model.knows(offset, count)):
            assert read(self.connections[name], offset, count) == model.read(offset, count)

    @rule(name=NAMES)
    def flush(self, name: str) -> None:
        self.connections[name].flush()

    @rule(pages=st.sampled_from([0, 1, 10, 100, 400]), name=st.sampled_from([None, *PAGES]))
    def shrink(self, pages: int, name: str | None) -> None:
        devices = self.running.instance.devices
        chosen = devices.values() if name is None else [devices[name]]
        before = sum(device.preswap_pages for device in chosen)
        result = self.running.instance.shrink(pages, name)
        left = sum(device.preswap_pages for device in chosen)
        assert (result.complete, result.lost, result.left) == (True, 0, left)
        assert left == min(before, pages)
        assert result.moved == before - left

    @rule(limit=st.sampled_from(LIMITS))
    def set_limit(self, limit: int) -> None:
        self.running.instance.host.limit = limit

    @rule(pages=st.sampled_from([0, 1, 50, UNLIMITED]), name=NAMES)
    def set_max_pages(self, pages: int, name: str) -> None:
        self.running.instance.devices[name].max_pages = pages

    @rule(quota=st.sampled_from(QUOTAS), codec=st.sampled_from(COMPRESS), name=NAMES)
    def set_device(self, quota: str, codec: str, name: str) -> None:
        self.running.instance.set(f"preswap.test.{name}.quota", quota)
        self.running.instance.devices[name].compress = codec
        self.running.fitted()

    @rule(
        room=st.sampled_from([0.0, 0.05, 0.5, 0.9]),
        idle=st.sampled_from([None, 0.0, AUTO]),
        rate=st.sampled_from([None, 10 * PAGE]),
    )
    def look_after_memory(self, room: float, idle: float | str | None, rate: int | None) -> None:
        """Set anew, and some turns of it."""
        instance = self.running.instance
        policy = instance.sysctl.policy
        policy.writeback_room, policy.writeback_idle = room, idle
        policy.writeback_rate = rate
        for _ in range(3):
            instance.room.turn(0)
            instance.idle.next_look = 0.0
            instance.idle.looked_at -= 1.0  # a second ago
            instance.idle.turn()

    @rule(tag=TAGS)
    def fill_and_make_room(self, tag: int) -> None:
        """All that is in memory goes to disk, and may come back with the reads after it."""
        self.running.instance.host.limit = LIMITS[-1]
        self.running.instance.devices["g1"].max_pages = UNLIMITED
        self.write(("g1", 40 * PAGE, 500 * PAGE), tag, 0)
        self.look_after_memory(0.9, None, None)

    @rule()
    def move_all_that_is_idle(self) -> None:
        self.look_after_memory(0.05, 0.0, None)

    @rule(weight=st.sampled_from([None, None, 0, 1000, 100_000]), renumbered=st.booleans())
    def come_back(self, weight: int | None, renumbered: bool) -> None:
        """What is read, until the next turn says otherwise: all pages are, after each step."""
        if renumbered:
            self.running.instance.epochs.change_over()
        for device in self.running.instance.devices.values():
            device.promoted_below = weight
            if renumbered:
                device.renumber()

    @rule()
    def maintain(self) -> None:
        self.running.instance.maintain()
        self.running.fitted()

    @rule()
    def compress_later(self) -> None:
        self.running.instance.compress_later()

    @rule()
    def settle(self) -> None:
        self.running.instance.host.settle()

    @rule(name=NAMES)
    def settle_device(self, name: str) -> None:
        self.running.instance.devices[name].settle()

    @rule(name=NAMES, first=st.integers(0, 39))
    def recompress(self, name: str, first: int) -> None:
        device = self.running.instance.devices[name]
        was_marked = device.is_marked
        assert recompressed(device, first) == device.pages
        assert device.is_marked == was_marked

    @rule(name=NAMES)
    def swapoff(self, name: str) -> None:
        device = self.running.instance.devices[name]
        pages, disk_pages = device.preswap_pages, device.disk_pages - device.is_on_disk(0)
        result = self.running.instance.swapoff(name)
        assert (result.pages, result.disk_pages) == (pages, disk_pages)
        self.forget(name)
        assert device.preswap_pages == 0
        with open(self.running.paths.disk_file(name), "rb") as disk_file:
            on_disk = pages_in(data_ranges(disk_file.fileno(), device.size))
        assert on_disk <= self.zone_of(name)

    def zone_of(self, name: str) -> set[int]:
        return {page for part in small_zone(PAGES[name]) for page in part}

    def forget(self, name: str) -> None:
        """All but its zone."""
        self.models[name].unknown |= set(range(PAGES[name])) - self.zone_of(name)

    @rule(name=NAMES)
    def make_known(self, name: str) -> None:
        """The operator's trim."""
        model = self.models[name]
        assert self.running.instance.trim(name) == len(model.unknown)
        for page in sorted(model.unknown):
            model.zero(page * PAGE, PAGE)

    @rule(name=NAMES)
    def mkswap(self, name: str) -> None:
        self.running.instance.mkswap(name, force=True)
        header = read(self.connections[name], 0, PAGE)
        assert header.endswith(b"SWAPSPACE2")
        self.models[name].write(0, header)
        self.forget(name)

    @rule()
    def reboot_after_a_sync(self) -> None:
        assert self.running.instance.begin_sync().wait().complete
        self.running.reboot()
        self.running.open(known=False)
        self.connect()

    @rule(clean=st.booleans())
    def reboot(self, clean: bool) -> None:
        """Of a stop in order what was on disk, or zeros, is known."""
        if clean:
            for name, device in self.running.instance.devices.items():
                in_memory = {page for page, bit in enumerate(device.preswap_map) if bit}
                self.models[name].unknown |= in_memory
            self.running.stop()
        else:
            # What was synced last may be known still: nothing has changed since.
            for name, device in self.running.instance.devices.items():
                if device.is_marked:
                    self.forget(name)
                else:
                    self.models[name].unknown |= {
                        page for page, bit in enumerate(device.preswap_map) if bit
                    }
        self.running.reboot()
        self.running.open(known=False)
        self.connect()

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        if clean:
            self.running.stop()
        else:
            self.running.kill()
        instance = self.running.open(known=False)
        assert (instance.recovery.damaged_slots, instance.recovery.lost_pages) == (0, 0)
        self.connect()

    @invariant()
    def every_byte_is_right(self) -> None:
        for name, connection in self.connections.items():
            model = self.models[name]
            if not model.unknown:
                assert read(connection) == bytes(model.bytes)
                continue
            for page, found in enumerate(pages_read(connection)):
                expected = None if page in model.unknown else model.read(page * PAGE, PAGE)
                assert found == expected, f"page {page} of {name}"

    @invariant()
    def all_say_the_same(self) -> None:
        if self.connections:
            check_coherence(self.running.instance)


def recompressed(device: Device, first: int) -> int:
    """All pages from there on, however young: the page that it has come to."""
    return device.recompress("zstd", first, since=-inf, before=inf, nanoseconds=10**12)[0]


def pages_in(ranges: Iterable[tuple[int, int]]) -> set[int]:
    return {page for start, end in ranges for page in range(start // PAGE, -(-end // PAGE))}


@contextmanager
def fails_unless(fine: bool) -> Iterator[None]:
    """With an I/O error."""
    if fine:
        yield
    else:
        with pytest.raises(OSError, match="Input/output error"):
            yield


TestDevicesAgainstModel = DevicesAgainstModel.TestCase
# Each step compares whole devices; finding a shorter example would take longer than a test may.
PHASES = [phase for phase in Phase if phase is not Phase.shrink]
TestDevicesAgainstModel.settings = settings(
    max_examples=(settings.default or settings()).max_examples // 3, phases=PHASES
)
