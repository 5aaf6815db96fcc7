# SPDX-License-Identifier: BSD-3-Clause
"""Every kind of request through libnbd, with room in the pool and without."""

import errno
import random
from typing import Any

import nbd
import pytest

from preswapd.server.buffers import LARGEST_REQUEST
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, Connect
from tests.nbd.conftest import FREE, MIB, SIZE
from tests.running import RunningServer

pytestmark = pytest.mark.xdist_group("nbd-requests")

NOISE = random.Random(1).randbytes(4 * PAGE)
# Within four pages: aligned, odd, less than a page, over page ends.
RANGES = [
    (0, PAGE),
    (0, 4 * PAGE),
    (PAGE, 2 * PAGE),
    (0, 512),
    (512, 1024),
    (1, 1),
    (PAGE - 1, 2),
    (100, PAGE),
    (PAGE - 7, 2 * PAGE + 13),
    (3 * PAGE + 5, PAGE - 5),
]


def error_of(request: Any, *arguments: Any) -> int:
    with pytest.raises(nbd.Error) as failed:
        request(*arguments)
    assert failed.value.errnum is not None
    return int(failed.value.errnum)


@pytest.fixture(params=[PAGE, BEHIND_ZONE], ids=["zone", "swap"])
def here(request: pytest.FixtureRequest) -> int:
    """Where the four pages are: behind the swap header, in the scan zone, or where guests swap."""
    return int(request.param)


def pages(client: Any, here: int) -> bytes:
    return bytes(client.pread(4 * PAGE, here))


def test_unwritten_pages_are_zeros(client: Any, here: int) -> None:
    assert pages(client, here) == bytes(4 * PAGE)


@pytest.mark.parametrize(("start", "length"), RANGES)
@pytest.mark.parametrize("before", [bytes(4 * PAGE), NOISE], ids=["zeros", "noise"])
def test_write_changes_its_range_and_nothing_else(
    client: Any, here: int, before: bytes, start: int, length: int
) -> None:
    client.pwrite(before, here)
    piece = (b"new!" * length)[:length]
    client.pwrite(piece, here + start)
    assert pages(client, here) == before[:start] + piece + before[start + length :]


@pytest.mark.parametrize(("start", "length"), RANGES)
def test_read_gives_its_range(client: Any, here: int, start: int, length: int) -> None:
    client.pwrite(NOISE, here)
    assert bytes(client.pread(length, here + start)) == NOISE[start : start + length]


@pytest.mark.parametrize(("start", "length"), RANGES)
@pytest.mark.parametrize("flags", [0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA])
def test_zero_clears_its_range_and_nothing_else(
    client: Any, here: int, start: int, length: int, flags: int
) -> None:
    client.pwrite(NOISE, here)
    client.zero(length, here + start, flags=flags)
    assert pages(client, here) == NOISE[:start] + bytes(length) + NOISE[start + length :]


@pytest.mark.parametrize(("start", "length"), RANGES)
@pytest.mark.parametrize("flags", [0, nbd.CMD_FLAG_FUA])
def test_trim_clears_the_whole_pages_inside(
    client: Any, here: int, start: int, length: int, flags: int
) -> None:
    client.pwrite(NOISE, here)
    client.trim(length, here + start, flags=flags)
    first = -(-start // PAGE) * PAGE
    end = max(first, (start + length) // PAGE * PAGE)
    assert pages(client, here) == NOISE[:first] + bytes(end - first) + NOISE[end:]


def test_fast_zero_of_whole_pages(client: Any, here: int) -> None:
    client.pwrite(NOISE, here)
    client.zero(2 * PAGE, here + PAGE, flags=nbd.CMD_FLAG_FAST_ZERO)
    assert pages(client, here) == NOISE[:PAGE] + bytes(2 * PAGE) + NOISE[3 * PAGE :]


@pytest.mark.parametrize(("start", "length"), [(0, 512), (100, 2 * PAGE), (0, PAGE + 1)])
def test_fast_zero_that_is_not_fast_is_refused(
    client: Any, here: int, start: int, length: int
) -> None:
    client.pwrite(NOISE, here)

    def fast_zero() -> None:
        client.zero(length, here + start, flags=nbd.CMD_FLAG_FAST_ZERO)

    assert error_of(fast_zero) == errno.EOPNOTSUPP
    assert pages(client, here) == NOISE


@pytest.mark.parametrize("size", [PAGE, 100, 3 * PAGE])
def test_fua_write_is_read_back(client: Any, here: int, size: int) -> None:
    client.pwrite(NOISE, here)
    client.pwrite(b"f" * size, here, flags=nbd.CMD_FLAG_FUA)
    assert pages(client, here) == b"f" * size + NOISE[size:]


def test_fua_write_over_a_page_in_tmem_goes_to_disk(client: Any, served: RunningServer) -> None:
    client.pwrite(NOISE[:PAGE], BEHIND_ZONE)
    before = served.json_stats()["devices"]["g1"]
    client.pwrite(NOISE[:PAGE], BEHIND_ZONE, flags=nbd.CMD_FLAG_FUA)
    after = served.json_stats()["devices"]["g1"]
    assert after["disk_writes"] == before["disk_writes"] + 1
    assert after["failed_stores"] == before["failed_stores"]


def test_flush(client: Any, here: int) -> None:
    client.pwrite(NOISE, here)
    client.flush()
    assert pages(client, here) == NOISE


def test_last_bytes_of_the_device(client: Any) -> None:
    client.pwrite(b"end", SIZE - 3)
    assert bytes(client.pread(PAGE, SIZE - PAGE))[-3:] == b"end"


def test_largest_request(client: Any, here: int) -> None:
    content = random.Random(2).randbytes(LARGEST_REQUEST)
    nbd.NBD.pwrite(client, content, here)
    assert bytes(nbd.NBD.pread(client, LARGEST_REQUEST, here)) == content


def test_longer_request_is_refused(client: Any, here: int) -> None:
    """Also where it is only a little longer; and the client goes on."""
    client.pwrite(NOISE, here)
    for length in (LARGEST_REQUEST + 1, 32 * MIB):
        assert error_of(nbd.NBD.pwrite, client, bytes(length), here) == errno.EINVAL
        assert error_of(nbd.NBD.pread, client, length, here) == errno.EINVAL
    assert bytes(client.pread(len(NOISE), here)) == NOISE


def test_trim_and_zero_may_be_longer(client: Any) -> None:
    """They carry no bytes."""
    client.pwrite(NOISE, 24 * MIB)
    client.zero(32 * MIB, PAGE)
    assert bytes(client.pread(4 * PAGE, 24 * MIB)) == bytes(4 * PAGE)


@pytest.mark.parametrize("name", ["trim", "zero"])
def test_zero_length_is_refused(client: Any, here: int, name: str) -> None:
    """nbdkit does it, whose error for what writes is that of a full disk."""
    assert error_of(getattr(client, name), 0, here) in {errno.EINVAL, errno.ENOSPC}
    assert pages(client, here) == bytes(4 * PAGE)


@pytest.mark.parametrize("offset", [SIZE - 512, SIZE, SIZE + PAGE, (1 << 63) - PAGE])
def test_request_beyond_the_end(client: Any, here: int, offset: int) -> None:
    assert error_of(client.pread, PAGE, offset) == errno.EINVAL
    assert error_of(client.pwrite, bytes(PAGE), offset) in {errno.EINVAL, errno.ENOSPC}
    assert error_of(client.trim, PAGE, offset) == errno.EINVAL
    assert error_of(client.zero, PAGE, offset) in {errno.EINVAL, errno.ENOSPC}
    assert pages(client, here) == bytes(4 * PAGE)


@pytest.mark.parametrize("request_name", ["trim", "zero"])
def test_whole_device_in_one_request(client: Any, here: int, request_name: str) -> None:
    header = bytes(client.pread(PAGE, 0))
    filler = bytes(client.pread(8 * MIB, FREE))
    client.pwrite(NOISE, here)
    getattr(client, request_name)(SIZE, 0)
    assert bytes(client.pread(16 * MIB, 0)) == bytes(16 * MIB)
    assert bytes(client.pread(8 * MIB, FREE)) == bytes(8 * MIB)
    client.pwrite(header, 0)
    client.pwrite(filler, FREE)


def test_cache_is_not_offered_and_refused(client: Any, here: int) -> None:
    assert not client.can_cache()
    assert error_of(client.cache, PAGE, here) == errno.EINVAL
    assert pages(client, here) == bytes(4 * PAGE)


def test_read_only_flag_is_not_set(client: Any) -> None:
    assert not client.is_read_only()


def test_two_connections_see_the_same(
    client: Any, here: int, served: RunningServer, connect: Connect
) -> None:
    other = connect(served)
    for content in (b"a" * PAGE, NOISE[:PAGE], bytes(PAGE), b"b" * PAGE):
        client.pwrite(content, here)
        assert bytes(other.pread(PAGE, here)) == content
    other.trim(PAGE, here)
    assert bytes(client.pread(PAGE, here)) == bytes(PAGE)


def test_many_requests_in_flight(client: Any, here: int) -> None:
    buffers = [nbd.Buffer(PAGE) for _ in range(64)]
    for page in range(64):
        client.aio_pwrite(bytes([page + 1]) * PAGE, here + page * PAGE)
    while client.aio_in_flight():
        client.poll(-1)
    for page, buffer in enumerate(buffers):
        client.aio_pread(buffer, here + page * PAGE)
    while client.aio_in_flight():
        client.poll(-1)
    assert all(bytes(b.to_bytearray()) == bytes([n + 1]) * PAGE for n, b in enumerate(buffers))
