# SPDX-License-Identifier: BSD-3-Clause
"""A pool that looks after itself, in a real server: the cold goes, the hot stays."""

import errno
import time
from typing import Any

import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import Connect, discard
from tests.conftest import StartServer
from tests.faults.conftest import MIB, NOISE, counters, error_of, page, place
from tests.faults.injection import Call, Injector
from tests.running import PATIENCE, RunningServer, wait_until

POOL = 4 * MIB
COLD = 3 * POOL // PAGE
# A quarter of the pool, from where nothing cold is.
HOT = range(8000, 8000 + POOL // PAGE // 4)


def cold(number: int) -> bytes:
    """Incompressible, and another one for each number, beyond what NOISE holds."""
    return number.to_bytes(8, "little") + page(number % 4096)[8:]


@pytest.fixture(params=["5%", "off"])
def server(start_server: StartServer, request: pytest.FixtureRequest) -> RunningServer:
    option = f"--writeback-room={request.param}"
    return start_server(pool_size=str(POOL), devices={"g1": "64M"}, extra=[option])


def fill(client: Any) -> None:
    for number in range(COLD):
        client.pwrite(cold(number), place(number))


def use_hot(client: Any) -> None:
    """Reads each page, and writes it again."""
    for number in HOT:
        found = bytes(client.pread(PAGE, place(number)))
        assert found in (page(number % 4096), cold(number)), f"page {number}"
        client.pwrite(cold(number), place(number))


def share_from_memory(server: RunningServer, client: Any) -> float:
    """Of the reads of one round."""
    before = counters(server)
    use_hot(client)
    after = counters(server)
    from_memory = after["loads"] - before["loads"]
    from_disk = after["disk_reads"] - before["disk_reads"]
    assert from_memory + from_disk == len(HOT)
    return float(from_memory / len(HOT))


def test_hot_set_after_a_pool_full_of_cold_pages(
    server: RunningServer, connect: Connect, request: pytest.FixtureRequest
) -> None:
    """Counted, not timed: with room nearly all is in memory, without it nothing ever is."""
    client = discard(connect(server))
    fill(client)
    for number in HOT:
        client.pwrite(page(number % 4096), place(number))
    is_off = "off" in request.node.name
    until = time.monotonic() + PATIENCE
    rounds = 0
    while rounds < 5 or (not is_off and time.monotonic() < until):
        share = share_from_memory(server, client)
        rounds += 1
        if share >= 0.95 and rounds >= 5:
            break
    share = sum(share_from_memory(server, client) for _ in range(5)) / 5
    found = counters(server)
    if is_off:
        assert share == 0.0
        assert (found["written_back_pages"], found["promoted_pages"]) == (0, 0)
    else:
        assert share >= 0.95
        assert found["written_back_room"] == found["written_back_pages"] > 0
    for number in range(COLD):
        assert bytes(client.pread(PAGE, place(number))) == cold(number), f"page {number}"
    for number in HOT:
        assert bytes(client.pread(PAGE, place(number))) == cold(number), f"page {number}"


def test_cold_pages_survive_a_kill_while_room_is_made(
    start_server: StartServer, connect: Connect
) -> None:
    server = start_server(pool_size=str(POOL), devices={"g1": "64M"})
    client = discard(connect(server))
    fill(client)
    assert counters(server)["written_back_room"] > 0
    server.kill()
    server.start()
    again = connect(server)
    for number in range(COLD):
        assert bytes(again.pread(PAGE, place(number))) == cold(number), f"page {number}"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
def test_room_that_finds_the_disk_full_or_broken_loses_nothing(
    start_server: StartServer, injector: Injector, connect: Connect, error: int
) -> None:
    """No page, and no write of a guest that tmem has a place for."""
    server = start_server(env=injector.env, pool_size="16M")
    client = discard(connect(server))
    pages = 9 * MIB // PAGE
    client.pwrite(NOISE[: pages * PAGE], place(0))
    injector.fail(Call.WRITE, "/g1.img", error)
    server.ctl("sysctl", "preswap.default.writeback_room=50%")
    wait_until(lambda: counters(server)["disk_errors"] > 0, "the disk to fail")
    for number in range(pages, pages + 200):
        client.pwrite(page(number), place(number))
    for number in range(200):
        client.pwrite(page(number), place(number))
    found = counters(server)
    assert found["written_back_pages"] == 0
    assert found["disk_errors"] < 5, "it is not asked at each turn"
    assert found["preswap_pages"] == pages + 200
    assert bytes(client.pread((pages + 200) * PAGE, place(0))) == NOISE[: (pages + 200) * PAGE]
    # What tmem does not take is the guest's error, as ever.
    assert error_of(client.pwrite, page(1), place(1), flags=1) in (errno.ENOSPC, errno.EIO)
    injector.end()
    server.ctl("shrink", "0")
    assert bytes(client.pread((pages + 200) * PAGE, place(0))) == NOISE[: (pages + 200) * PAGE]
