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
    monkeypatch.setattr("preswapd.preswap.files.lock.PATIENCE_SECONDS", 0.1)
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
    assert any("m1 is on a block device without room" in line for line in linked.log)
    assert not any("g1" in line for line in linked.log)


def test_block_device_after_a_kill(linked: Running) -> None:
    linked.instance.create("m1", MIB)
    linked.kill()
    linked.open()
    assert set(linked.instance.devices) == {"g1", "m1"}
