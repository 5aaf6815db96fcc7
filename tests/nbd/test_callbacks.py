# SPDX-License-Identifier: BSD-3-Clause
"""nbdkit's callbacks, called as nbdkit does: its flags, its types of extents, its way of errors."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbd_plugin import _callbacks
from preswapd.preswap.device._device import Connection
from preswapd.server.buffers import LARGEST_REQUEST
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.disk_model import page_of
from tests.preswap.running import MIB, Running, data_of

# nbdkit-plugin(3)
FLAG_FUA, FLAG_FAST_ZERO = 2, 8
DATA, HOLE_ZERO = 0, 3
GiveBack = Callable[[Connection, int, int, int], None]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path) as made:
        made.open()
        yield made


@pytest.fixture
def connection(running: Running) -> Connection:
    return running.connect()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What nbdkit was told of errors."""
    errors: list[int] = []
    monkeypatch.setattr(_callbacks, "set_error", errors.append)
    return errors


def test_reads_what_was_written(connection: Connection) -> None:
    _callbacks.pwrite(connection, page_of(1), PAGE, 0)
    into = bytearray(PAGE)
    _callbacks.pread(connection, into, PAGE, 0)
    assert bytes(into) == page_of(1)


def test_fua_goes_to_disk(running: Running, connection: Connection) -> None:
    _callbacks.pwrite(connection, page_of(1), PAGE, FLAG_FUA)
    assert running.device.is_on_disk(1)


@pytest.mark.parametrize("give_back", [_callbacks.trim, _callbacks.zero])
def test_fua_punches_before_the_answer(
    running: Running, connection: Connection, give_back: GiveBack
) -> None:
    _callbacks.pwrite(connection, page_of(1), PAGE, FLAG_FUA)
    give_back(connection, PAGE, PAGE, FLAG_FUA)
    assert [len(data) for _, data in data_of(running.paths.disk_file("g1"))] == [PAGE]


def test_fast_zero_of_ragged_ends(connection: Connection, told: list[int]) -> None:
    with pytest.raises(OSError, match="not supported"):
        _callbacks.zero(connection, 10, PAGE, FLAG_FAST_ZERO)
    assert told == [errno.EOPNOTSUPP]


def test_extents_have_types(connection: Connection) -> None:
    _callbacks.trim(connection, 4 * PAGE, PAGE, 0)
    _callbacks.pwrite(connection, page_of(1), 2 * PAGE, 0)
    assert _callbacks.extents(connection, 4 * PAGE, 0, 0) == [
        (0, PAGE, DATA),
        (PAGE, PAGE, HOLE_ZERO),
        (2 * PAGE, PAGE, DATA),
        (3 * PAGE, PAGE, HOLE_ZERO),
    ]


def test_unknown_pages_are_no_holes(running: Running, connection: Connection) -> None:
    """A copy of the disk that leaves holes out would have zeros there."""
    running.instance.swapoff("g1")
    assert _callbacks.extents(connection, 4 * PAGE, 0, 0) == [(0, 4 * PAGE, DATA)]


def test_errors_are_told(running: Running, connection: Connection, told: list[int]) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        _callbacks.trim(connection, 1, MIB, 0)
    running.instance.remove("g1", force=True)
    requests = (
        lambda: _callbacks.pread(connection, bytearray(PAGE), PAGE, 0),
        lambda: _callbacks.pwrite(connection, page_of(1), PAGE, 0),
        lambda: _callbacks.flush(connection, 0),
        lambda: _callbacks.trim(connection, PAGE, PAGE, 0),
        lambda: _callbacks.zero(connection, PAGE, PAGE, 0),
        lambda: _callbacks.extents(connection, PAGE, PAGE, 0),
    )
    for request in requests:
        with pytest.raises(OSError, match="shutdown"):
            request()
    assert told == [errno.EINVAL] + [errno.ESHUTDOWN] * len(requests)


def test_request_that_is_refused_holds_no_memory(connection: Connection, told: list[int]) -> None:
    """All of the buffer was given back, with what shorter ones had taken of it before."""
    into = bytearray(LARGEST_REQUEST + PAGE)
    _callbacks.pread(connection, into[:MIB], 0, 0)
    before = _callbacks.held()
    with pytest.raises(OSError, match="Invalid argument"):
        _callbacks.pread(connection, into, PAGE, 0)
    after = _callbacks.held()
    assert after <= before - MIB
    _callbacks.pread(connection, into[: MIB // 2], 0, 0)
    assert _callbacks.held() == after + MIB // 2
