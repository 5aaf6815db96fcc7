# SPDX-License-Identifier: BSD-3-Clause
"""A guest whose disk is vhost-user-blk, with qemu-storage-daemon between it and the server."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from preswapd.guest.kernel import Kernel
from preswapd.guest.memory import memory_leaving
from tests.conftest import StartServer
from tests.guest import stamped, swapping
from tests.guest.stamped import ENOUGH, StampedGuest
from tests.guest.storage_daemon import STILL, StorageDaemon, storage_daemon
from tests.guest.swapping import SwappingGuest, device, glance
from tests.guest.test_swapping import is_swapping
from tests.running import RunningServer, wait_until

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(500)]

KILLS = 5
SECONDS = 2
DEVICES = {"g1": "256M"}

Stamped = Callable[[RunningServer, StorageDaemon], StampedGuest]


def test_server_is_killed_under_load(
    start_server: StartServer, kernel: Kernel, guest_cache: Path, tmp_path: Path
) -> None:
    """Requests wait in the daemon; and what the guest frees comes back, by discards."""
    server = start_server(devices=DEVICES, pool_size="8M")
    memory = memory_leaving(swapping.AVAILABLE, kernel, guest_cache)
    with (
        storage_daemon(server) as daemon,
        SwappingGuest(
            server, kernel, guest_cache, tmp_path, hardware=daemon.hardware(memory)
        ) as guest,
    ):
        guest.run(STILL)
        area = guest.swapon("g1")
        assert "SSDsc" in guest.run("dmesg | grep 'swap on'").output
        guest.fill()
        load = guest.start_load()
        for _ in range(KILLS):
            wait_until(lambda: is_swapping(server), "swap traffic")
            server.kill()
            server.start()
            wait_until(lambda: is_swapping(server), "the guest to go on")
        guest.stop_load(load)
        guest.check_files()
        assert guest.troubles() == []
        assert server.json_stats()["tmem"]["checksum_errors"] == 0
        before = device(server)["preswap_pages"] + device(server)["disk_pages"]
        guest.run("umount /files")
        guest.swapoff(area.path)
        guest.swapon("g1")
        found = device(server)
        # The scan zone stays on disk.
        assert found["preswap_pages"] == 0
        assert found["disk_pages"] < before // 2


@pytest.fixture
def stamped_guest(kernel: Kernel, guest_cache: Path, tmp_path: Path) -> Iterator[Stamped]:
    memory = memory_leaving(stamped.AVAILABLE, kernel, guest_cache)
    with ExitStack() as stack:

        def start(server: RunningServer, daemon: StorageDaemon) -> StampedGuest:
            hardware = daemon.hardware(memory)
            guest = StampedGuest(server, kernel, guest_cache, tmp_path, hardware=hardware)
            stack.enter_context(guest)
            guest.run(STILL)
            guest.fill()
            return guest

        yield start


def test_server_that_is_away_for_too_long_is_errors(
    start_server: StartServer, stamped_guest: Stamped
) -> None:
    """No monitor pauses such a guest: it sees them, and no zeros, and all is there again later."""
    server = start_server(devices=DEVICES)
    with storage_daemon(server, SECONDS) as daemon:
        guest = stamped_guest(server, daemon)
        guest.run("dmesg -n 1; echo 0 >/proc/sys/vm/page-cluster")
        server.kill()
        (seen,) = guest.rounds("c")
        print(seen)
        seen.assert_nothing_false()
        assert seen.failed > ENOUGH
        server.start()
        wait_until(lambda: glance(server)["connections"] == 1, "the daemon to reconnect")
        guest.assert_all_right("cwc")


def test_what_the_server_does_not_know_is_an_error(
    start_server: StartServer, stamped_guest: Stamped
) -> None:
    """Pages were on the host's memory alone, and that has started again."""
    server = start_server(devices=DEVICES)
    with storage_daemon(server) as daemon:
        guest = stamped_guest(server, daemon)
        server.ctl("shrink", "0", "g1")  # older pages on disk
        guest.assert_all_right("w")
        server.kill()
        server.reboot()
        server.start()
        guest.assert_nothing_false("cw")
        assert device(server)["unknown_reads"] > 0
