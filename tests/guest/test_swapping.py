# SPDX-License-Identifier: BSD-3-Clause
"""Real guests that swap through preswapd: what the operator promises holds while they do."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from preswapd.demo.server import allocated
from preswapd.guest.faults import GuestTimeoutError
from preswapd.guest.kernel import Kernel
from preswapd.units import PAGE_SIZE
from tests.conftest import StartServer
from tests.guest.swapping import (
    FILES,
    MIB,
    SUMS,
    SwappingGuest,
    at_rest,
    device,
    glance,
)
from tests.running import RunningServer, wait_until

# Half a minute each; three times that where other work goes on beside them.
pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(500)]

POOL = 32 * MIB
# A page, in blocks and book-keeping of the file system.
HEADER = 64 * 1024


class StartGuest:
    """Boots guests on a server, with swap turned on by label; all are ended after the test."""

    def __init__(self, kernel: Kernel, cache: Path, folder: Path, stack: ExitStack) -> None:
        self.kernel, self.cache, self.folder, self.stack = kernel, cache, folder, stack

    def __call__(self, server: RunningServer) -> SwappingGuest:
        guest = SwappingGuest(server, self.kernel, self.cache, self.folder)
        self.stack.enter_context(guest)
        guest.swapon("g1")
        guest.fill()
        return guest


@pytest.fixture
def start_guest(kernel: Kernel, guest_cache: Path, tmp_path: Path) -> Iterator[StartGuest]:
    with ExitStack() as stack:
        yield StartGuest(kernel, guest_cache, tmp_path, stack)


def test_guest_and_server_tell_the_same_story(
    start_server: StartServer, start_guest: StartGuest
) -> None:
    server = start_server(devices={"g1": "256M"})
    guest = start_guest(server)
    vmstat, counters = at_rest(guest)
    assert vmstat["pswpout"] > 1000
    assert vmstat["pswpout"] == counters["succ_stores"] + counters["failed_stores"]

    guest.check_files()
    after, later = at_rest(guest)
    assert after["pswpin"] - vmstat["pswpin"] > 1000
    for guests, servers in (
        ("pswpout", ("succ_stores", "failed_stores")),
        ("pswpin", ("loads", "disk_reads")),
    ):
        swapped = after[guests] - vmstat[guests]
        assert swapped == sum(later[name] - counters[name] for name in servers)

    kept = later["preswap_pages"] + later["disk_pages"]
    slot_caches = 2 * 64 * guest.hardware.processors
    assert guest.used() - slot_caches <= kept <= after["pswpout"] + 1
    guest.assert_saw_nothing()


def test_discards_and_swapoff_give_everything_back(
    start_server: StartServer, start_guest: StartGuest
) -> None:
    # Some pages overflow to the disk file, which must come back too.
    server = start_server(devices={"g1": "256M", "g2": "16M"}, pool_size="4M")
    guest = start_guest(server)
    assert "SSDsc" in guest.run("dmesg | grep 'swap on'").output
    full = device(server)
    assert full["preswap_pages"] > 1000
    assert full["disk_pages"] > 1

    guest.run("umount /files")
    # A swapoff of any area makes the kernel give up the slots that it keeps at hand.  A page of a
    # process that is still swapped out holds its cluster of 512 back, some of some twenty here.
    spare = guest.swapon("g2")
    guest.swapoff(spare.path)
    wait_until(lambda: kept(server) < (full["preswap_pages"] + full["disk_pages"]) // 2, "discards")

    guest.swapoff(guest.swaps()[0].path)
    server.ctl("swapoff", "g1", "--yes")
    empty = device(server)
    assert (empty["preswap_pages"], empty["disk_pages"]) == (0, 1)  # the swap header
    assert allocated(server.arena) < 4 * MIB // 100
    assert allocated(server.state_dir / "g1.img") <= HEADER
    guest.assert_saw_nothing()

    # And the label is still there.
    assert guest.swapon("g1").used == 0


def kept(server: RunningServer) -> int:
    """Pages that the server holds for the guest, in tmem and on disk."""
    counters = glance(server)
    return int(counters["preswap_pages"] + counters["disk_pages"])


class Lowest(threading.Thread):
    """The least that the arena held while this ran: a guest under load fills it again at once."""

    def __init__(self, arena: Path) -> None:
        super().__init__()
        self.arena = arena
        self.bytes = allocated(arena)
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.001):
            self.bytes = min(self.bytes, allocated(self.arena))

    def __enter__(self) -> "Lowest":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.join()


def test_shrink_to_nothing_under_load(start_server: StartServer, start_guest: StartGuest) -> None:
    server = start_server(devices={"g1": "256M"}, pool_size=str(POOL))
    guest = start_guest(server)
    load = guest.start_load()
    lows = []
    for _ in range(3):
        wait_until(lambda: glance(server)["preswap_pages"] > 2000, "tmem to fill")
        with Lowest(server.arena) as lowest:
            said = server.ctl("sysctl", "vm.preswap=0").stdout
        assert said == "vm.preswap = 0\n"
        lows.append(lowest.bytes)
    # On a busy machine a look may come when the guest has filled it again, but not three times.
    assert min(lows) < POOL // 100
    assert device(server)["written_back_pages"] >= 3 * 2000
    guest.stop_load(load)
    guest.assert_saw_nothing()


@pytest.mark.parametrize(("number", "times"), [(signal.SIGKILL, 10), (signal.SIGTERM, 3)])
def test_restarts_under_load(
    start_server: StartServer, start_guest: StartGuest, number: signal.Signals, times: int
) -> None:
    server = start_server(devices={"g1": "256M"}, pool_size="8M")
    guest = start_guest(server)
    load = guest.start_load()
    for _ in range(times):
        wait_until(lambda: is_swapping(server), "swap traffic")
        assert server.stop(number) == (0 if number == signal.SIGTERM else -number)
        server.start()
        wait_until(lambda: is_swapping(server), "the guest to go on")
    guest.stop_load(load)
    assert server.json_stats()["tmem"]["checksum_errors"] == 0
    guest.assert_saw_nothing()


def is_swapping(server: RunningServer) -> bool:
    before = glance(server)["write_requests"]
    time.sleep(0.05)
    return bool(glance(server)["write_requests"] > before)


def test_pool_that_is_always_full_means_disk_and_no_errors(
    start_server: StartServer, start_guest: StartGuest
) -> None:
    server = start_server(devices={"g1": "256M"}, pool_size="4M")
    guest = start_guest(server)
    guest.check_files()
    guest.check_files()
    _, counters = at_rest(guest)
    # How many of them are moved before the pool is full depends on how fast the guest is.
    assert counters["failed_stores"] + counters["written_back_pages"] > 1000
    assert counters["failed_stores"] > 0
    assert counters["disk_reads"] > 1000
    assert counters["disk_errors"] == 0
    assert allocated(server.arena) <= 4 * MIB
    assert allocated(server.state_dir / "g1.img") <= (FILES * MIB) + counters["size"] // PAGE_SIZE
    guest.assert_saw_nothing()


def test_damaged_memory_stops_the_guest_and_is_never_wrong_data(
    start_server: StartServer, start_guest: StartGuest
) -> None:
    server = start_server(devices={"g1": "256M"})
    guest = start_guest(server)
    damage(server.arena)
    # A page of the shell that starts it may be the first that is read.
    with suppress(GuestTimeoutError):
        guest.start("check", f"sha256sum -c -s {SUMS}")
    # Asked of QEMU, since the guest answers no more.
    wait_until(lambda: "STOP" in kinds(guest), "QEMU to pause the guest")
    # As many errors as requests were in flight.
    events = kinds(guest)
    assert {*events[: events.index("STOP")]} == {"BLOCK_IO_ERROR"}
    assert server.json_stats()["tmem"]["checksum_errors"] > 0
    with pytest.raises(GuestTimeoutError, match="QEMU: BLOCK_IO_ERROR"):
        guest.run("true", timeout=1)


def kinds(guest: SwappingGuest) -> list[object]:
    return [event["event"] for event in guest.stops()]


def damage(arena: Path) -> None:
    """Turns one byte over in each block that holds something, behind the superblock."""
    with arena.open("r+b") as file:
        at = 64 * 1024
        while True:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # no data behind this
                return
            place = at + PAGE_SIZE // 2
            byte = os.pread(file.fileno(), 1, place)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 0xFF]), place)
            at += PAGE_SIZE
