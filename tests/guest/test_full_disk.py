# SPDX-License-Identifier: BSD-3-Clause
"""A real guest on a full pool and a full disk: it pauses, and goes on when there is room."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import nbd
import pytest

from preswapd.guest.kernel import Kernel
from tests.clients import BEHIND_ZONE, connected
from tests.conftest import StartServer
from tests.faults.conftest import MIB, mounted
from tests.guest.swapping import SwappingGuest, device
from tests.running import GUEST_PATIENCE, RunningServer, wait_until

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root"),
]

DISK = 64 * MIB
ROOM = 2 * MIB
OTHERS = os.urandom(MIB // 2)


@pytest.fixture
def cramped(start_server: StartServer, tmp_path: Path) -> Iterator[RunningServer]:
    """A pool of 4M; on disk, room for 2M of a guest's pages, and "stuffing" in the way of more."""
    with ExitStack() as stack:
        mounted(stack, tmp_path / "state", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "none")
        server = start_server(tmp=tmp_path, devices={"g1": "256M", "g2": "16M"}, pool_size="4M")
        with (tmp_path / "state" / "stuffing").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, DISK - ROOM)
        yield server


@pytest.fixture
def other(cramped: RunningServer) -> nbd.NBD:
    """A client of the other device, which holds OTHERS."""
    client = connected(cramped, "g2")
    client.pwrite(OTHERS, BEHIND_ZONE)
    return client


def test_full_disk_and_full_pool_pause_the_guest_until_there_is_room(
    cramped: RunningServer, other: nbd.NBD, kernel: Kernel, guest_cache: Path, tmp_path: Path
) -> None:
    with SwappingGuest(cramped, kernel, guest_cache, tmp_path) as guest:
        guest.swapon("g1")
        filling = guest.start_filling()
        wait_until(lambda: "STOP" in names(guest), "the guest to pause")
        reasons = {reason_of(event) for event in guest.stops()} - {None}
        assert reasons == {"No space left on device"}
        assert device(cramped)["disk_errors"] > 0
        assert bytes(other.pread(len(OTHERS), BEHIND_ZONE)) == OTHERS

        (cramped.state_dir / "stuffing").unlink()
        guest.resume()
        filling.wait(GUEST_PATIENCE)
        guest.check_files()
        assert guest.troubles() == []
    assert bytes(other.pread(len(OTHERS), BEHIND_ZONE)) == OTHERS
    other.shutdown()


def names(guest: SwappingGuest) -> list[object]:
    return [event["event"] for event in guest.stops()]


def reason_of(event: dict[str, object]) -> object:
    data = event.get("data")
    return data.get("reason") if isinstance(data, dict) else None
