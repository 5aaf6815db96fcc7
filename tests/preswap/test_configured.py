# SPDX-License-Identifier: BSD-3-Clause
"""Devices that are not there as they are configured are served, and a complaint says what to do."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from preswapd.errors import RefusedError
from preswapd.preswap import settings, survey
from preswapd.preswap.device._device import FLAG_FUA
from preswapd.preswap.opening import check
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.disk_model import page_of
from tests.preswap.running import MIB, Running, read
from tests.running import BIN, RunningServer, run

OTHER = DeviceSpec("g1", 2 * MIB)


@pytest.mark.parametrize("end", ["kill", "stop", "reboot"])
@pytest.mark.parametrize("size", [MIB // 2, 2 * MIB])
def test_other_size_is_served_with_the_one_it_has(running: Running, end: str, size: int) -> None:
    running.open()
    running.connect().pwrite(page_of(1), PAGE, FLAG_FUA)
    running.connect().pwrite(page_of(2), 255 * PAGE, FLAG_FUA)
    running.instance.shrink(0)
    if end == "reboot":
        running.stop()
    getattr(running, end)()
    running.settings = replace(running.settings, devices=(DeviceSpec("g1", size),))
    check(running.settings)
    running.open()
    assert running.device.size == MIB
    assert read(running.connect(), PAGE, PAGE) == page_of(1)
    assert read(running.connect(), 255 * PAGE, PAGE) == page_of(2)
    (complaint,) = running.log
    assert complaint.startswith("the device g1 has 1M and is served with that")


def test_other_size_after_its_state_is_discarded(running: Running) -> None:
    running.open()
    running.kill()
    running.open(OTHER, discard=True)
    assert running.device.size == MIB
    assert "is served with that" in running.log[-1]


def test_same_size_is_no_complaint(running: Running) -> None:
    running.open()
    running.kill()
    running.open(DeviceSpec("g1", MIB, "zstd"))
    assert not running.log


def test_way_out_works_as_it_is_written(server: RunningServer) -> None:
    server.stop()
    server.devices["g1"] = "32M"
    server.start()
    complaint = server.wait_for_line("the device g1 has 64M")
    commands = [part for part in complaint.split("`") if part.startswith("preswapctl ")]
    assert len(commands) == 2
    for command in commands:
        program, *arguments = shlex.split(command)
        done = run([str(Path(BIN) / program), *arguments])
        assert done.returncode == 0, done.stderr
    assert server.client.device("g1")["size"] == 32 << 20
    before = len(server.lines)
    server.restart()
    assert not [line for line in server.lines[before:] if "is served with" in line]
    assert server.client.device("g1")["size"] == 32 << 20


@pytest.fixture
def two_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (settings, survey):
        monkeypatch.setattr(module, "MOST_DEVICES", 2)


@pytest.mark.usefixtures("two_at_most")
def test_more_than_may_be_are_left_out(running: Running) -> None:
    """What guests swap to is served."""
    running.open()
    running.connect().pwrite(page_of(1), PAGE)
    running.kill()
    devices = [DeviceSpec(name, MIB) for name in ("g0", "g1", "g2", "g3")]
    assert running.open(*devices).devices.keys() == {"g0", "g1"}
    assert read(running.connect(), PAGE, PAGE) == page_of(1)
    assert running.log[-1].startswith("an instance can have at most 2 devices: g2, g3 are not")


@pytest.mark.usefixtures("two_at_most")
def test_more_than_may_be_at_a_first_start(running: Running) -> None:
    with pytest.raises(RefusedError, match="at most 2 devices"):
        running.open(*(DeviceSpec(name, MIB) for name in ("g1", "g2", "g3")))
