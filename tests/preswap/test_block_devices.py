# SPDX-License-Identifier: BSD-3-Clause
"""Disk files that are links to block devices: real ones, on loop devices."""

import fcntl
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from preswapd.errors import RefusedError
from preswapd.preswap.device._device import FLAG_FUA
from preswapd.preswap.files import identity
from tests.preswap.running import MIB, Running, pages_read

pytestmark = [
    pytest.mark.xdist_group("block-devices"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a loop device needs root"),
    pytest.mark.skipif(shutil.which("losetup") is None, reason="there is no losetup"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A block device of 1 MiB."""
    backing = tmp_path / "backing"
    with backing.open("wb") as file:
        file.truncate(MIB)
    made = subprocess.run(
        ["losetup", "--find", "--show", str(backing)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    path = Path(made.stdout.strip())
    yield path
    subprocess.run(["losetup", "--detach", str(path)], check=True)


@pytest.fixture
def linked(running: Running, disk: Path) -> Iterator[Running]:
    """Two names that lead to the one disk; no device yet."""
    running.open()
    for name in ("m1", "m2"):
        running.paths.disk_file(name).symlink_to(disk)
    yield running
    running.kill()


def test_device_on_a_block_device(linked: Running) -> None:
    linked.instance.create("m1", MIB)
    client = linked.instance.devices["m1"].connect()
    client.pwrite(b"a" * 4096, 4096, FLAG_FUA)
    found = bytearray(4096)
    client.pread(found, 4096)
    assert found == b"a" * 4096


def test_block_device_has_one_device(linked: Running) -> None:
    linked.instance.create("m1", MIB)
    with pytest.raises(RefusedError, match="leads to a block device that is in use"):
        linked.instance.create("m2", MIB)
    assert set(linked.instance.devices) == {"g1", "m1"}


def test_block_device_of_somebody_else_is_not_written(linked: Running, disk: Path) -> None:
    descriptor = os.open(disk, os.O_RDONLY | os.O_EXCL)  # as a mount holds it
    try:
        with pytest.raises(RefusedError, match="in use"):
            linked.instance.create("m1", MIB)
        assert os.pread(descriptor, 4096, 0) == bytes(4096)
    finally:
        os.close(descriptor)


def test_block_device_is_free_after_remove(linked: Running) -> None:
    linked.instance.create("m1", MIB)
    linked.instance.remove("m1")
    linked.instance.create("m2", MIB)


def test_block_device_that_was_made_longer_keeps_its_pages(
    linked: Running, disk: Path, tmp_path: Path
) -> None:
    """As the complaint above says."""
    linked.instance.create("m1", MIB)
    linked.instance.devices["m1"].connect().pwrite(b"a" * 4096, 4096, FLAG_FUA)
    linked.stop()
    os.truncate(tmp_path / "backing", MIB + 4096)
    subprocess.run(["losetup", "--set-capacity", str(disk)], check=True)
    linked.open(accept_moved=True)
    linked.instance.devices["m1"].connect().pwrite(b"b" * 4096, 8192, FLAG_FUA)
    linked.stop()
    linked.reboot()
    linked.open()
    assert pages_read(linked.instance.devices["m1"].connect())[1:3] == [b"a" * 4096, b"b" * 4096]


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a disk with a serial number is: loop devices have none."""
    monkeypatch.setattr(identity, "name_for_life", lambda number: 17)


def make_longer(disk: Path, tmp_path: Path) -> None:
    os.truncate(tmp_path / "backing", MIB + 4096)
    subprocess.run(["losetup", "--set-capacity", str(disk)], check=True)


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_block_device_that_was_made_longer_is_served(
    linked: Running, disk: Path, tmp_path: Path, end: str
) -> None:
    """It had no room for a token, and bears one as soon as it can."""
    linked.instance.create("m1", MIB)
    linked.instance.devices["m1"].connect().pwrite(b"a" * 4096, 4096, FLAG_FUA)
    getattr(linked, end)()
    make_longer(disk, tmp_path)
    linked.open()
    assert not linked.instance.refused
    client = linked.instance.devices["m1"].connect()
    assert pages_read(client)[1] == b"a" * 4096
    client.pwrite(b"b" * 4096, 8192, FLAG_FUA)
    linked.stop()
    assert not linked.sidecar("m1").bare
    assert identity.identity_of(disk, MIB).token == linked.sidecar("m1").token
    linked.reboot()
    linked.open()
    assert pages_read(linked.instance.devices["m1"].connect())[1:3] == [b"a" * 4096, b"b" * 4096]


@pytest.mark.usefixtures("named")
def test_block_device_that_is_made_longer_while_it_is_served(
    linked: Running, disk: Path, tmp_path: Path
) -> None:
    linked.instance.create("m1", MIB)
    assert linked.sidecar("m1").bare
    linked.instance.devices["m1"].connect().pwrite(b"a" * 4096, 4096, FLAG_FUA)
    make_longer(disk, tmp_path)
    linked.stop()
    assert identity.identity_of(disk, MIB).token == linked.sidecar("m1").token
    linked.reboot()
    linked.open()
    assert pages_read(linked.instance.devices["m1"].connect())[1] == b"a" * 4096


@pytest.mark.usefixtures("named")
def test_block_device_made_longer_over_a_reboot_is_not_believed(
    linked: Running, disk: Path, tmp_path: Path
) -> None:
    """Nothing on it tells what has happened since."""
    linked.instance.create("m1", MIB)
    linked.instance.devices["m1"].connect().pwrite(b"a" * 4096, 4096, FLAG_FUA)
    linked.stop()
    make_longer(disk, tmp_path)
    linked.reboot()
    linked.open()
    assert pages_read(linked.instance.devices["m1"].connect())[1] is None
    assert any("m1 is on a block device that bore no token" in line for line in linked.log)


def test_block_device_without_a_name_that_was_made_longer(
    linked: Running, disk: Path, tmp_path: Path
) -> None:
    """It might be any other."""
    linked.instance.create("m1", MIB)
    linked.stop()
    make_longer(disk, tmp_path)
    linked.open()
    assert set(linked.instance.refused) == {"m1"}
    linked.kill()
    linked.open(accept_moved=True)
    assert set(linked.instance.devices) == {"g1", "m1"}


def test_block_device_that_udev_looks_at(linked: Running, disk: Path) -> None:
    """It does so whenever somebody has closed it who could write, and holds a shared lock."""
    linked.instance.create("m1", MIB)
    linked.kill()
    descriptor = os.open(disk, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    looked = threading.Timer(0.3, os.close, [descriptor])
    looked.start()
    linked.open()
    looked.join()
    assert set(linked.instance.devices) == {"g1", "m1"}


def test_block_device_that_somebody_keeps_locked(
    linked: Running, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preswapd.host.disk_locks.PATIENCE_SECONDS", 0.1)
    descriptor = os.open(disk, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        with pytest.raises(RefusedError, match="in use by another process"):
            linked.instance.create("m1", MIB)
    finally:
        os.close(descriptor)


def test_block_device_without_room_for_a_token_is_complained_of_after_a_reboot(
    linked: Running,
) -> None:
    linked.instance.create("m1", MIB)
    linked.stop()
    linked.reboot()
    linked.open()
    assert any("m1 is on a block device that bore no token" in line for line in linked.log)
    assert not any("g1" in line for line in linked.log)


def test_block_device_after_a_kill(linked: Running) -> None:
    linked.instance.create("m1", MIB)
    linked.kill()
    linked.open()
    assert set(linked.instance.devices) == {"g1", "m1"}
