# SPDX-License-Identifier: BSD-3-Clause
"""Devices and instances never see each other's bytes."""

import os
from pathlib import Path
from typing import Any

import nbd
import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, Connect, discard
from tests.conftest import StartServer
from tests.nbd.conftest import MIB
from tests.running import RunningServer, run

# Of a device of 16M; from the scan zone to behind what is in no zone.
PAGES = 2560


def content(name: str) -> bytes:
    """Another one for each name and page; some compresses and some does not."""
    return b"".join(
        f"{name} {page:13}".encode() * 256 if page % 3 else os.urandom(PAGE)
        for page in range(PAGES)
    )


@pytest.fixture
def pair(start_server: StartServer) -> RunningServer:
    """Two devices in a pool that is too small for them."""
    return start_server(devices={"g1": "16M", "g2": "16M"}, pool_size="4M")


def filled(connect: Connect, server: RunningServer, name: str) -> tuple[Any, bytes]:
    client, written = connect(server, name), content(name)
    client.pwrite(written, PAGE)
    return client, written


def check_nothing_known(client: Any) -> None:
    """Neither another's pages nor zeros, which its guest would take for what it wrote there."""
    for page in range(BEHIND_ZONE // PAGE, client.get_size() // PAGE - 512):
        with pytest.raises(nbd.Error, match="EIO"):
            client.pread(PAGE, page * PAGE)
    assert not any(client.pread(512 << 10, PAGE)), "the scan zone is not as it was born"
    discard(client)
    assert not any(client.pread(8 * MIB, PAGE))


def test_devices_keep_their_own(pair: RunningServer, connect: Connect) -> None:
    clients = [filled(connect, pair, name) for name in ("g1", "g2")]
    for client, written in clients:
        assert bytes(client.pread(len(written), PAGE)) == written


def test_trim_of_one_leaves_the_other(pair: RunningServer, connect: Connect) -> None:
    one, _ = filled(connect, pair, "g1")
    other, written = filled(connect, pair, "g2")
    one.trim(16 * MIB, 0)
    assert bytes(other.pread(len(written), PAGE)) == written
    assert bytes(one.pread(8 * MIB, 0)) == bytes(8 * MIB)


def test_new_device_finds_nothing_of_a_removed_one(pair: RunningServer, connect: Connect) -> None:
    filled(connect, pair, "g1")
    pair.ctl("remove", "g1", "--yes")
    pair.ctl("create", "g1", "16M")
    check_nothing_known(connect(pair, "g1"))


def test_new_device_finds_nothing_of_a_removed_one_after_a_kill(
    pair: RunningServer, connect: Connect
) -> None:
    filled(connect, pair, "g1")
    _, written = filled(connect, pair, "g2")
    pair.ctl("remove", "g1", "--yes")
    pair.kill()
    pair.start()
    check_nothing_known(connect(pair, "g1"))
    assert bytes(connect(pair, "g2").pread(len(written), PAGE)) == written


def test_devices_that_swap_places_in_the_configuration(
    pair: RunningServer, connect: Connect
) -> None:
    written = {name: filled(connect, pair, name)[1] for name in ("g1", "g2")}
    pair.kill()
    pair.devices = dict(reversed(pair.devices.items()))
    pair.start()
    for name, expected in written.items():
        assert bytes(connect(pair, name).pread(len(expected), PAGE)) == expected


def test_instances_share_nothing(start_server: StartServer, connect: Connect) -> None:
    first, second = start_server(), start_server()
    _, written = filled(connect, first, "g1")
    other = connect(second)
    check_nothing_known(other)
    other.pwrite(b"x" * MIB, PAGE)
    second.ctl("shrink", "0")
    second.ctl("swapoff", "g1", "--yes")
    assert bytes(connect(first).pread(len(written), PAGE)) == written


def test_disk_file_of_another_instance_is_refused(
    start_server: StartServer, connect: Connect, tmp_path: Path
) -> None:
    """Its pages in memory would be another's."""
    first, second = start_server(), start_server(start=False)
    connect(first).pwrite(b"x" * MIB, PAGE)
    first.kill()
    done = run([*second.command(), f"--state-dir={first.state_dir}"])
    assert done.returncode == 4
    assert "--discard-state" in done.stderr
