# SPDX-License-Identifier: BSD-3-Clause
"""Columns that are said to add up do, and to what really lies where, after any history."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from preswapd.cli.look.columns import DEVICE_COLUMNS, PARKED, POOL_COLUMNS, QUOTA, STORE
from preswapd.cli.look.rows import Moment, Subject, devices_of, pool_of
from preswapd.cli.look.table import Columns, Kind
from preswapd.preswap.device._device import FLAG_FUA, Device
from preswapd.preswap.files.maps import UNKNOWN
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.disk_model import pages_of
from tests.preswap.running import Running

# More than two extents, so that a shrink has a choice.
PAGES = {"g1": 600, "g2": 40}
# Null where there is none.
NULL = (QUOTA, PARKED, STORE)
POOL = 8_000_000

OPERATOR = ("shrink", "shrink all", "limit", "stage", "compress", "swapoff")

Step = tuple[str, str, int, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "durable", "trim", "zero", "part", *OPERATOR]),
        st.sampled_from(sorted(PAGES)),
        st.integers(0, PAGES["g1"] - 1),
        st.integers(1, 300),
        st.integers(0, 1 << 20),
    ),
    min_size=1,
    max_size=30,
)


class History:
    """An instance, and which of its devices' pages hold something."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.used = {name: {0} for name in PAGES}

    def take(self, kind: str, name: str, first: int, count: int, tag: int) -> None:
        instance = self.running.instance
        device = instance.devices[name]
        first %= device.pages
        count = min(count, device.pages - first)
        match kind:
            case "shrink":
                instance.shrink(count, name)
            case "shrink all":
                instance.shrink(tag % 200)
            case "limit":
                instance.host.limit = (0, POOL // 40, POOL // 8, POOL)[tag % 4]
            case "stage":
                instance.compress_later()
            case "compress":
                instance.host.settle()
            case "swapoff":
                instance.swapoff(name)
                self.used[name] = {0}
            case _:
                self.request(device, kind, first, count, tag)

    def request(self, device: Device, kind: str, first: int, count: int, tag: int) -> None:
        connection = device.connect()
        offset, size = first * PAGE, count * PAGE
        pages = set(range(first, first + count))
        match kind:
            case "write":
                connection.pwrite(pages_of(tag, size), offset)
            case "durable":
                connection.pwrite(pages_of(tag, size), offset, FLAG_FUA)
            case "part":
                pages = {first}
                try:
                    connection.pwrite(b"a part of a page", offset + tag % 4000)
                except OSError:
                    assert device.state_bytes(first, 1)[0] == UNKNOWN
                    pages = set()
            case "trim":
                connection.trim(size, offset)
            case "zero":
                connection.zero(size, offset)
        if kind in ("trim", "zero"):
            # The swap header stays in the disk file, whatever it says.
            self.used[device.name] -= pages - {0}
        else:
            self.used[device.name] |= pages
        connection.close()


@pytest.fixture(scope="module")
def make() -> Iterator[Callable[[], History]]:
    """Each example begins with a new instance, in the same directories."""
    specs = [DeviceSpec(name, pages * PAGE) for name, pages in PAGES.items()]
    with (
        tempfile.TemporaryDirectory(prefix="preswapd-test-") as tmp,
        Running(Path(tmp), specs, POOL) as running,
    ):

        def new() -> History:
            running.kill()
            running.open(*specs, discard=True)
            return History(running)

        yield new


def cells(columns: Columns, row: Subject) -> dict[str, int]:
    """The columns that count something; a size is a whole number of bytes."""
    sizes = [column for column in columns if column.kind is Kind.SIZE and column not in NULL]
    found = {column.name: column.value(row) for column in sizes}
    assert all(isinstance(cell, int) and cell >= 0 for cell in found.values()), found
    return cast(dict[str, int], found)


# Finding a shorter example would take longer than a test may.
@settings(phases=[phase for phase in Phase if phase is not Phase.shrink])
@given(steps=STEPS)
def test_sizes_add_up_to_what_holds_something(
    make: Callable[[], History], steps: list[Step]
) -> None:
    history = make()
    for step in steps:
        history.take(*step)
    now = Moment.of(history.running.instance.stats())
    rows = devices_of(now)
    assert [row.name for row in rows] == list(PAGES)
    in_tmem = 0
    for row in rows:
        device = cells(DEVICE_COLUMNS, row)
        assert device["USED"] == PAGE * len(history.used[row.name])
        assert device["USED"] == device["TMEM"] + device["DISK"] + device["LOST"]
        assert device["SIZE"] == device["USED"] + device["FREE"]
        in_tmem += device["TMEM"]
    pool = cells(POOL_COLUMNS, pool_of(now))
    assert pool["ORIG"] == in_tmem
    assert pool["ORIG"] == pool["SAME"] + pool["RAW"] + pool["STAGED"] + pool["PACKED"]
    assert pool["USED"] == pool["PAYLOAD"] + pool["OVERHEAD"]
    assert pool["FREE"] == max(0, pool["LIMIT"] - pool["USED"])


def test_lost_pages_count_as_used() -> None:
    figures = {"size": 10 * PAGE, "preswap_pages": 1, "disk_pages": 2, "lost_pages": 3}
    device = cells(DEVICE_COLUMNS, Subject("default", "g1", 0.0, figures))
    shown = [device[name] // PAGE for name in ("SIZE", "USED", "TMEM", "DISK", "LOST", "FREE")]
    assert shown == [10, 6, 1, 2, 3, 4]
