# SPDX-License-Identifier: BSD-3-Clause
"""Single requests: what each of them does, and how it is counted."""

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from preswapd.preswap.device._device import FLAG_FAST_ZERO, FLAG_FUA, Connection
from preswapd.preswap.opening import POOL
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.disk_model import page_of, pages_of
from tests.preswap.running import MIB, Running, data_of, read


@pytest.fixture
def connection(running: Running) -> Connection:
    running.open()
    return running.connect()


def counts(connection: Connection, *names: str) -> list[int]:
    stats: Mapping[str, Any] = connection.device.stats()
    return [int(stats[name]) for name in names]


# --- what counts ---


@pytest.mark.parametrize(
    ("request_of", "is_io", "is_asking"),
    [
        (lambda connection: connection.pread(bytearray(PAGE), PAGE), True, True),
        (lambda connection: connection.pread(bytearray(64 * PAGE), PAGE), True, True),
        (lambda connection: connection.pread(bytearray(PAGE), 0), True, False),
        (lambda connection: connection.pread(bytearray(2 * PAGE), 0), True, True),
        (lambda connection: connection.pread(bytearray(64 * PAGE), 0), True, True),
        (lambda connection: connection.pwrite(page_of(1), PAGE), True, True),
        (lambda connection: connection.pwrite(page_of(1), 0), True, True),
        (lambda connection: connection.trim(PAGE, PAGE), True, True),
        (lambda connection: connection.zero(PAGE, PAGE), True, True),
        (lambda connection: connection.flush(), False, True),
        (lambda connection: connection.extents(PAGE, PAGE), False, False),
    ],
    ids=[
        "read",
        "long read",
        "look",
        "more than a look",
        "long read from the first page",
        "write",
        "write of the first page",
        "trim",
        "zero",
        "flush",
        "extents",
    ],
)
def test_what_a_guest_asks_for(
    connection: Connection,
    request_of: Callable[[Connection], object],
    is_io: bool,
    is_asking: bool,
) -> None:
    """QEMU flushes a disk that it takes away, and that is no sign of a guest that swaps.  Tools
    read what is in the scan zone, here page 0, and that is no sign of a guest at all."""
    device = connection.device
    assert (device.seconds_since_io, device.is_asked) == (None, False)
    request_of(connection)
    assert (device.seconds_since_io is not None, device.is_asked) == (is_io, is_asking)


def test_write_counts_pages_and_requests(connection: Connection) -> None:
    connection.pwrite(pages_of(1, 20 * PAGE), PAGE)
    assert counts(connection, "succ_stores", "failed_stores", "write_requests") == [20, 0, 1]


@pytest.mark.parametrize("pages", [1, 2, 20])
def test_rejected_pages_count_once(connection: Connection, pages: int) -> None:
    connection.device.max_pages = 0
    connection.pwrite(pages_of(1, pages * PAGE), PAGE)
    assert counts(connection, "succ_stores", "failed_stores", "disk_writes") == [0, pages, pages]


def test_pages_beyond_the_pools_count_once(connection: Connection, running: Running) -> None:
    """Of a request that is taken whole and put in the end page by page."""
    running.instance.compress_later()
    running.instance.host.set_max_pages(POOL, 3)
    connection.pwrite(page_of(1) * 16, PAGE)
    assert counts(connection, "succ_stores", "failed_stores", "disk_writes") == [3, 13, 13]
    assert running.instance.host.stats()["no_mem_puts"] == 13


def test_rejected_part_counts_once(connection: Connection) -> None:
    connection.device.max_pages = 0
    connection.pwrite(b"part", PAGE)
    assert counts(connection, "failed_stores", "disk_writes", "write_requests") == [1, 1, 1]


def test_page_zero_and_fua_are_no_failed_stores(connection: Connection) -> None:
    connection.pwrite(page_of(1), 0)
    connection.pwrite(page_of(2), PAGE, FLAG_FUA)
    assert counts(connection, "failed_stores", "disk_writes") == [0, 2]


def test_read_counts_where_it_came_from(connection: Connection) -> None:
    connection.pwrite(page_of(1), PAGE)
    connection.pwrite(page_of(2), 2 * PAGE, FLAG_FUA)
    read(connection, PAGE, 3 * PAGE)
    assert counts(connection, "loads", "disk_reads", "read_requests") == [1, 1, 1]


def test_trim_counts_whole_pages(connection: Connection) -> None:
    connection.pwrite(page_of(1), PAGE)
    connection.trim(3 * PAGE - 1, PAGE - 100)
    assert counts(connection, "trims", "invalidates", "trim_requests") == [2, 1, 1]


def test_connections_are_counted(connection: Connection) -> None:
    device = connection.device
    another = device.connect()
    assert device.connections == 2
    another.close()
    another.close()
    assert device.connections == 1


# --- ranges ---


@pytest.mark.parametrize(
    ("offset", "count"), [(MIB, 1), (MIB - 1, 2), (2**64 - 1, 1), (0, MIB + 1)]
)
def test_request_out_of_range(connection: Connection, offset: int, count: int) -> None:
    for ask in (
        lambda: connection.pread(bytearray(count), offset),
        lambda: connection.pwrite(bytes(count), offset),
        lambda: connection.trim(count, offset),
        lambda: connection.zero(count, offset),
        lambda: connection.extents(count, offset),
    ):
        with pytest.raises(OSError, match="Invalid argument") as error:
            ask()
        assert error.value.errno == errno.EINVAL


def test_request_of_nothing(connection: Connection) -> None:
    connection.pread(bytearray(), MIB)
    connection.pwrite(b"", MIB)
    connection.trim(0, MIB)
    connection.zero(0, MIB)
    assert counts(connection, "succ_stores", "disk_writes", "trims") == [0, 0, 0]


def test_trim_inside_a_page_does_nothing(connection: Connection) -> None:
    connection.pwrite(page_of(1), PAGE)
    connection.trim(PAGE - 2, PAGE + 1)
    assert read(connection, PAGE, PAGE) == page_of(1)


def test_zero_inside_a_page(connection: Connection) -> None:
    connection.pwrite(page_of(1), PAGE)
    connection.zero(10, PAGE + 5)
    assert read(connection, PAGE, PAGE) == page_of(1)[:5] + bytes(10) + page_of(1)[15:]


@pytest.mark.parametrize(("offset", "count"), [(1, PAGE), (0, 10), (PAGE - 1, 1)])
def test_fast_zero_of_ragged_ends(connection: Connection, offset: int, count: int) -> None:
    """They may take a read and a write of the disk, which is not fast."""
    with pytest.raises(OSError, match="Operation not supported"):
        connection.zero(count, PAGE + offset, FLAG_FAST_ZERO)


def test_fast_zero_of_whole_pages(connection: Connection) -> None:
    connection.pwrite(page_of(1), PAGE)
    connection.zero(PAGE, PAGE, FLAG_FAST_ZERO)
    assert read(connection, PAGE, PAGE) == bytes(PAGE)


def test_trim_and_zero_mark_a_clean_device(running: Running) -> None:
    """What they did is not in the saved map."""
    running.open()
    for change in (Connection.trim, Connection.zero):
        running.stop()
        running.open()
        connection = running.connect()
        connection.flush()
        read(connection, 0, PAGE)
        assert not running.device.is_marked
        change(connection, PAGE, PAGE)
        assert running.device.is_marked
        assert not running.sidecar().clean


# --- extents ---


def test_extents_of_holes_and_data(connection: Connection) -> None:
    connection.pwrite(page_of(1), 2 * PAGE)
    connection.pwrite(page_of(1), 3 * PAGE, FLAG_FUA)
    assert connection.extents(MIB, 0) == [
        (0, PAGE, False),
        (PAGE, PAGE, True),
        (2 * PAGE, 2 * PAGE, False),
        (4 * PAGE, MIB - 4 * PAGE, True),
    ]


def test_extents_of_a_part(connection: Connection) -> None:
    assert connection.extents(10, 5 * PAGE + 10) == [(5 * PAGE, PAGE, True)]


# --- durability, disk space ---


def image_of(running: Running) -> list[tuple[int, bytes]]:
    return data_of(running.paths.disk_file("g1"))


def test_fua_is_on_disk(running: Running, connection: Connection) -> None:
    connection.pwrite(page_of(1), PAGE, FLAG_FUA)
    assert image_of(running)[0][1][PAGE:] == page_of(1)


def test_page_zero_never_enters_tmem(running: Running, connection: Connection) -> None:
    connection.pwrite(page_of(1), 0)
    assert not running.device.preswap_map[0]
    assert image_of(running) == [(0, page_of(1))]


def test_trim_with_fua_is_punched_before_its_answer(
    running: Running, connection: Connection
) -> None:
    connection.pwrite(page_of(1), PAGE, FLAG_FUA)
    connection.trim(PAGE, PAGE, FLAG_FUA)
    assert [len(data) for _, data in image_of(running)] == [PAGE]


def test_trim_is_punched_by_maintenance(running: Running, connection: Connection) -> None:
    connection.pwrite(page_of(1), PAGE, FLAG_FUA)
    connection.trim(PAGE, PAGE)
    assert counts(connection, "stale_pages") == [1]
    running.instance.maintain()
    assert counts(connection, "stale_pages") == [0]
    assert [len(data) for _, data in image_of(running)] == [PAGE]


def test_trim_in_tmem_gives_up_the_place_on_disk(running: Running, connection: Connection) -> None:
    """It went to disk once, and came back since."""
    connection.pwrite(page_of(1), PAGE, FLAG_FUA)
    connection.pwrite(page_of(2), PAGE)
    connection.trim(PAGE, PAGE)
    running.instance.maintain()
    assert [len(data) for _, data in image_of(running)] == [PAGE]


def test_punch_leaves_what_was_written_again(running: Running, connection: Connection) -> None:
    connection.pwrite(page_of(1), PAGE, FLAG_FUA)
    connection.trim(PAGE, PAGE)
    connection.pwrite(page_of(2), PAGE, FLAG_FUA)
    running.instance.maintain()
    assert read(connection, PAGE, PAGE) == page_of(2)
    check_coherence(running.instance)


def test_blocks_of_a_killed_process_are_punched(running: Running, connection: Connection) -> None:
    connection.pwrite(page_of(1), PAGE, FLAG_FUA)
    connection.trim(PAGE, PAGE)
    running.kill()
    running.open()
    running.instance.maintain()
    assert [len(data) for _, data in image_of(running)] == [PAGE]


# --- what must not be asked ---


def test_unknown_flags_refused(connection: Connection) -> None:
    with pytest.raises(ValueError, match="unknown flags 2"):
        connection.pwrite(page_of(1), PAGE, 2)


def test_read_wants_a_writable_buffer(connection: Connection) -> None:
    with pytest.raises(BufferError):
        connection.pread(bytes(PAGE), 0)


def test_closed_device_tells_no_lies(running: Running, connection: Connection) -> None:
    device = connection.device
    running.instance.remove("g1", force=True)
    for ask in (device.state_bytes, device.sync):
        with pytest.raises(ValueError, match="the device g1 is closed"):
            ask()
    assert (device.preswap_pages, device.disk_pages) == (0, 0)
    assert not Path(running.paths.map("g1")).exists()
