# SPDX-License-Identifier: BSD-3-Clause
"""Real guests that move, are saved, hibernate: what a server cannot vouch for is an I/O error.

Never zeros, never an older page, and never an error where the server does know.
"""

import signal
from pathlib import Path
from typing import Any

import pytest

from preswapd.preswap.files.zone import zone
from tests.conftest import StartServer
from tests.guest.conftest import Boot
from tests.guest.stamped import ENOUGH, RESUME, rest_disk
from tests.guest.swapping import device
from tests.running import GUEST_PATIENCE, RunningServer

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(500)]

DISK = 256 << 20
DEVICES = {"g1": str(DISK)}

REPORTING: dict[str, Any] = {"bus": "virtio", "report": True}


@pytest.fixture
def socket(tmp_path: Path) -> str:
    return f"unix:{tmp_path / 'moving'}"


def lose_memory(server: RunningServer) -> None:
    """The server is killed and its host starts again."""
    server.kill()
    server.reboot()
    server.start()


def stop_in_order(server: RunningServer) -> None:
    """All pages on disk, then the host starts again."""
    server.ctl("sysctl", "vm.preswap=0")
    assert server.stop(signal.SIGTERM) == 0
    server.reboot()
    server.start()


def known_pages(server: RunningServer) -> int:
    """Behind the scan zone."""
    whole = DISK // 4096
    return whole - sum(map(len, zone(whole))) - int(device(server)["unknown_pages"])


def test_moved_without_its_pages_it_is_paused(
    start_server: StartServer, boot: Boot, socket: str
) -> None:
    first, second = start_server(devices=DEVICES), start_server(devices=DEVICES)
    there = boot(second, incoming=socket)
    guest = boot(first)
    guest.fill()
    guest.order("wc" * 500)
    guest.migrate(socket)
    there.assert_pauses()
    counters = device(second)
    assert counters["unknown_reads"] > 0
    # Nothing was made up: what is known here is what the guest has written or discarded here.
    stored = counters["succ_stores"] + counters["failed_stores"]
    assert known_pages(second) <= stored + counters["trims"]


def test_there_and_back_no_page_is_zeros_or_older(
    start_server: StartServer, boot: Boot, socket: str
) -> None:
    first, second = start_server(devices=DEVICES), start_server(devices=DEVICES)
    guest = boot(first, **REPORTING)
    guest.fill()
    there = boot(second, **REPORTING, incoming=socket)
    # A page that was read and not written again has its place in swap still, and is lost with it.
    guest.assert_all_right("w")
    guest.migrate(socket)
    guest.__exit__()
    left = there.assert_nothing_false("cw")[-1]
    assert device(second)["unknown_reads"] > ENOUGH
    there.swap_out()

    first.ctl("swapoff", "g1", "--yes")
    back = boot(first, **REPORTING, incoming=socket)
    before = device(first)["unknown_reads"]
    there.migrate(socket)
    there.__exit__()
    lost = back.rounds("cw")
    print(lost)
    for seen in lost:
        seen.assert_nothing_false()
    # Those that the second server has too, of which the first had had older ones.
    assert lost[0].failed - left.failed > ENOUGH
    assert device(first)["unknown_reads"] > before


def test_hibernated_and_its_server_killed(
    start_server: StartServer, boot: Boot, tmp_path: Path
) -> None:
    server = start_server(devices=DEVICES)
    guest = boot(server, **REPORTING, rest=rest_disk(tmp_path))
    guest.fill()
    server.ctl("shrink", "0", "g1")  # older pages on disk
    guest.assert_all_right("w")
    guest.hibernate()
    lose_memory(server)
    guest = boot(server, **REPORTING, rest=rest_disk(tmp_path))
    guest.wake()
    guest.assert_nothing_false("cw")


@pytest.mark.parametrize("elsewhere", [True, False])
def test_hibernated_and_its_server_stopped_in_order(
    start_server: StartServer, boot: Boot, tmp_path: Path, elsewhere: bool
) -> None:
    server = start_server(devices=DEVICES)
    disks = {"rest": rest_disk(tmp_path)} if elsewhere else {"bus": "virtio"}
    guest = boot(server, **disks)
    guest.fill()
    guest.hibernate()
    stop_in_order(server)
    guest = boot(server, **disks)
    guest.wake()
    guest.assert_all_right("cwc")
    assert guest.troubles() == []
    assert guest.stops() == []


def test_hibernated_to_the_device_and_its_server_killed(
    start_server: StartServer, boot: Boot
) -> None:
    server = start_server(devices=DEVICES)
    guest = boot(server, **REPORTING)
    guest.fill()
    guest.hibernate()
    lose_memory(server)
    # The header, which is on disk, says that the image is there.
    guest = boot(server, **REPORTING)
    assert device(server)["unknown_reads"] == 0
    guest.run(RESUME, GUEST_PATIENCE, check=False)
    assert device(server)["unknown_reads"] > 0
    # No memory came back; this is the guest that has booted now, and it may swap.
    guest.fill()


def test_saved_and_its_server_killed(start_server: StartServer, boot: Boot, tmp_path: Path) -> None:
    server = start_server(devices=DEVICES)
    guest = boot(server, bus="virtio")
    guest.fill()
    server.ctl("shrink", "0", "g1")
    guest.assert_all_right("w")
    guest.migrate(f"exec:cat >{tmp_path / 'saved'}")
    guest.__exit__()
    lose_memory(server)
    guest = boot(server, bus="virtio", incoming=f"exec:cat {tmp_path / 'saved'}")
    guest.order_soon("c")
    guest.assert_pauses()
    assert device(server)["unknown_reads"] > 0
    guest.__exit__()

    guest = boot(server, **REPORTING, incoming=f"exec:cat {tmp_path / 'saved'}")
    guest.assert_nothing_false("cw")


def test_saved_and_its_server_stopped_in_order(
    start_server: StartServer, boot: Boot, tmp_path: Path
) -> None:
    server = start_server(devices=DEVICES)
    guest = boot(server)
    guest.fill()
    guest.migrate(f"exec:cat >{tmp_path / 'saved'}")
    guest.__exit__()
    stop_in_order(server)
    guest = boot(server, incoming=f"exec:cat {tmp_path / 'saved'}")
    guest.assert_all_right("cwc")
    assert guest.troubles() == []
    assert guest.stops() == []


@pytest.mark.parametrize("where", ["elsewhere", "here, after a reboot"])
def test_saved_and_restored_with_its_swap(
    start_server: StartServer, boot: Boot, tmp_path: Path, where: str
) -> None:
    """As docs/guides/moving.md has it."""
    first, second = start_server(devices=DEVICES), start_server(devices=DEVICES)
    guest = boot(first)
    guest.fill()
    first.ctl("shrink", "4M", "g1")  # most of it is on disk
    guest.assert_all_right("w")
    guest.migrate(f"exec:cat >{tmp_path / 'saved'}")
    guest.__exit__()
    first.ctl("save", "g1", str(tmp_path / "swap"), timeout=GUEST_PATIENCE)
    if where == "elsewhere":
        there = second
    else:
        there = first
        lose_memory(first)
    there.ctl("restore", "g1", str(tmp_path / "swap"), timeout=GUEST_PATIENCE)
    guest = boot(there, incoming=f"exec:cat {tmp_path / 'saved'}")
    guest.assert_all_right("cwc")
    assert guest.troubles() == []
    assert guest.stops() == []
    assert device(there)["loads"] > 0
    assert device(there)["unknown_reads"] == 0


def test_freshly_booted_guest_sees_no_error(start_server: StartServer, boot: Boot) -> None:
    server = start_server(devices=DEVICES)
    for _ in ("a new device", "one that came up dirty"):
        guest = boot(server)
        guest.fill()
        guest.assert_all_right("wc")
        guest.run("kill $(pidof stamps); while pidof stamps; do usleep 100000; done")
        guest.swapoff(guest.swaps()[0].path)
        assert guest.troubles() == []
        assert guest.stops() == []
        guest.__exit__()
        assert device(server)["unknown_reads"] == 0
        lose_memory(server)
