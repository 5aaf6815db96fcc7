# SPDX-License-Identifier: BSD-3-Clause
"""Real guests under memory pressure that are live-migrated with their swapped pages."""

import json
from pathlib import Path
from typing import Any

import pytest

from preswapd.guest.faults import GuestError
from tests.conftest import StartServer
from tests.guest.conftest import Boot
from tests.guest.migrations import FAST, SLOW
from tests.guest.relay import Relay
from tests.guest.stamped import ENOUGH, StampedGuest, disk
from tests.guest.swapping import device
from tests.running import RunningServer, wait_for

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(500)]

DISK = 256 << 20
DEVICES = {"g1": str(DISK)}


def announce(server: RunningServer, source: RunningServer) -> None:
    wait_for(lambda: device(server)["connections"], lambda number: number == 0)
    uri = source.nbd_uri("g1")
    server.ctl("create", "g1", str(DISK), "--from", uri, "--yes", "--force")


def moved(guest: StampedGuest, there: StampedGuest, socket: str) -> None:
    guest.migrate(socket)
    guest.__exit__()
    there.assert_all_right("cwc")


def all_pulled(server: RunningServer, source: RunningServer) -> None:
    server.ctl("pull", "g1", timeout=120)
    assert device(server)["pending_pages"] == 0
    wait_for(lambda: device(source)["guest"], lambda where: where == "here")
    assert device(source)["preswap_pages"] == 0


def assert_saw_nothing(guest: StampedGuest) -> None:
    assert guest.troubles() == []
    assert guest.stops() == []


def test_there_and_back_every_byte_is_right(
    start_server: StartServer, boot: Boot, tmp_path: Path
) -> None:
    first, second = start_server(devices=DEVICES), start_server(devices=DEVICES)
    guest = boot(first)
    guest.fill()
    guest.assert_all_right("w")
    for round in range(2):
        socket = f"unix:{tmp_path / f'moving{round}'}"
        announce(second, first)
        there = boot(second, incoming=socket)
        # QEMU has looked at the disk over there; here all goes on.
        guest.assert_all_right("wc")
        assert device(second)["fetched_pages"] == 0
        moved(guest, there, socket)
        assert device(second)["guest"] == "here"
        all_pulled(second, first)
        assert device(second)["fetched_pages"] > ENOUGH
        there.assert_all_right("cwc")
        assert_saw_nothing(there)
        guest, first, second = there, second, first


@pytest.mark.parametrize("who", [0, 1])
def test_either_server_is_killed_in_between(
    start_server: StartServer, boot: Boot, tmp_path: Path, who: int
) -> None:
    servers = [start_server(devices=DEVICES), start_server(devices=DEVICES)]
    first, second = servers
    guest = boot(first)
    guest.fill()
    announce(second, first)
    second.ctl("pull", "g1", "--rate", "1M", "--no-wait")
    socket = f"unix:{tmp_path / 'moving'}"
    there = boot(second, incoming=socket)
    guest.migrate(socket)
    guest.__exit__()
    there.assert_all_right("c")
    for _ in range(3):
        servers[who].kill()
        servers[who].start()
        there.assert_all_right("wc")
    all_pulled(second, first)
    there.assert_all_right("cwc")
    assert there.troubles() == []


def test_migration_that_fails_goes_on_at_the_source(
    start_server: StartServer, boot: Boot, tmp_path: Path
) -> None:
    first, second = start_server(devices=DEVICES), start_server(devices=DEVICES)
    guest = boot(first)
    guest.fill()
    announce(second, first)
    socket = f"unix:{tmp_path / 'moving'}"
    there = boot(second, incoming=socket)
    with pytest.raises(GuestError):
        guest.migrate("exec:false")
    guest.resume()
    guest.assert_all_right("cwc")
    assert device(first)["guest"] == "here"
    moved(guest, there, socket)
    all_pulled(second, first)
    assert_saw_nothing(there)


def test_guest_that_comes_back_meets_errors_and_never_its_past(
    start_server: StartServer, boot: Boot, tmp_path: Path
) -> None:
    first, second = start_server(devices=DEVICES), start_server(devices=DEVICES)
    reporting: dict[str, Any] = {"bus": "virtio", "report": True}
    guest = boot(first, **reporting)
    guest.fill()
    announce(second, first)
    socket, again = (f"unix:{tmp_path / name}" for name in ("moving", "back"))
    there = boot(second, **reporting, incoming=socket)
    moved(guest, there, socket)
    # Without a word to anybody, to a server that has released its pages, or has not yet.
    back = boot(first, **reporting, incoming=again)
    there.migrate(again)
    there.__exit__()
    for seen in back.rounds("c"):
        seen.assert_nothing_false()
        assert seen.failed > ENOUGH


def test_source_that_comes_back_on_the_way_writes_until_the_guest_has_gone(
    start_server: StartServer, boot: Boot, tmp_path: Path
) -> None:
    """At one server: the connection over there is the older one then, and was never lost."""
    server = start_server(devices=DEVICES)
    socket = f"unix:{tmp_path / 'moving'}"
    with Relay(tmp_path / "wire", server.nbd_socket) as wire:
        direct = disk(server, "scsi", report=False)
        relayed = [part.replace(str(server.nbd_socket), str(wire.at)) for part in direct]
        assert relayed != direct
        guest = boot(server, hardware=relayed)
        guest.fill()
        there = boot(server, incoming=socket)
        guest.begin_to_migrate(socket, **SLOW)
        wait_for(guest.migration, lambda seen: seen.get("status") == "active")
        wire.cut()
        wire.mend()
        guest.assert_all_right("wc")
        assert guest.migration()["status"] == "active"
        guest.limit_migration(**FAST)
        guest.migrated()
        guest.__exit__()
        there.assert_all_right("cwc")
        server.wait_for_line("a client of g1 is cut off: one that came after it has written since")
    assert_saw_nothing(there)


def test_both_ends_say_so(start_server: StartServer) -> None:
    first, second = start_server(devices=DEVICES), start_server(devices=DEVICES)
    announce(second, first)
    listed = json.loads(second.ctl("--json", "list").stdout)["devices"][0]
    assert (listed["guest"], listed["source"]) == ("coming", first.nbd_uri("g1"))
