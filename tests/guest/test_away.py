# SPDX-License-Identifier: BSD-3-Clause
"""The server is away for longer than QEMU waits: the guest is paused, and loses nothing by it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from preswapd.guest.kernel import Kernel
from tests.conftest import StartServer
from tests.guest.swapping import SwappingGuest, device, disks, glance
from tests.running import wait_until

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(500)]

SECONDS = 2
AS_PRINTED, SHORTER = (f'"reconnect-delay":{seconds},' for seconds in (300, SECONDS))


@pytest.fixture
def guest(
    start_server: StartServer, kernel: Kernel, guest_cache: Path, tmp_path: Path
) -> Iterator[SwappingGuest]:
    """Its QEMU waits not quite so long as it does with what qemu-args prints."""
    server = start_server(devices={"g1": "256M"})
    printed = disks(server)
    assert AS_PRINTED in printed[1]
    hardware = [argument.replace(AS_PRINTED, SHORTER) for argument in printed]
    with SwappingGuest(server, kernel, guest_cache, tmp_path, hardware=hardware) as running:
        yield running


def test_guest_goes_on_after_the_server_was_away_for_too_long(guest: SwappingGuest) -> None:
    server = guest.server
    guest.swapon("g1")
    guest.fill()
    load = guest.start_load()
    wait_until(lambda: glance(server)["loads"] > 100, "the load to swap")
    server.kill()
    wait_until(lambda: "STOP" in {event["event"] for event in guest.stops()}, "QEMU to pause it")
    server.start()
    # Its connection comes back, and it asks for nothing.
    wait_until(lambda: glance(server)["connections"] == 1, "QEMU to reconnect")
    seen = device(server)
    assert (seen["awaited"], seen["read_requests"], seen["write_requests"]) == (False, 0, 0)
    assert seen["away"] > SECONDS

    guest.resume()
    guest.stop_load(load)
    guest.check_files()
    assert guest.troubles() == []
    assert device(server)["away"] == 0
