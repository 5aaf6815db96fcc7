# SPDX-License-Identifier: BSD-3-Clause
"""Devices need memory beside their pages, and are only made where there is some."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from preswapd.errors import RefusedError
from preswapd.preswap import opening
from preswapd.preswap.footprint import private_bytes
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import parse_size
from tests.preswap.running import MIB, Running
from tests.tmem.test_headroom import Group

TIB = 1 << 40
# Too large for a group of 100M.
LARGE = DeviceSpec("large", 512 << 30)


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Group:
    """The memory cgroup of all instances that are opened."""
    made = Group(tmp_path / "group")
    monkeypatch.setattr(opening, "memory_files", lambda: [made.files])
    return made


def sparse_files(running: Running) -> set[str]:
    return {path.name for path in running.paths.state_dir.iterdir()}


def test_device_that_is_too_large_for_the_cgroup(running: Running, group: Group) -> None:
    instance = running.open()
    with pytest.raises(
        RefusedError, match=r"group/max allows [\d.]+M more: [\d.]+G would fit"
    ) as refused:
        instance.create("big", TIB)
    assert instance.devices.keys() == {"g1"}
    assert sparse_files(running) == {"g1.img", "g1.json", "g1.map"}
    fits = re.search(r"([\d.]+G) would fit", str(refused.value))
    assert fits
    instance.create("big", parse_size(fits[1]))
    assert instance.devices.keys() == {"g1", "big"}


def test_no_room_at_all(running: Running, group: Group) -> None:
    instance = running.open()
    group.say(current=100 * MIB)
    with pytest.raises(RefusedError, match="allows 0B more: give it more"):
        instance.create("small", MIB)


def test_device_that_would_take_the_reserve_of_shared_memory(running: Running) -> None:
    running.settings = replace(running.settings, shm_reserve=1 << 60)
    instance = running.open()
    with pytest.raises(RefusedError, match=r"the tmpfs of .* allows 0B more"):
        instance.create("small", MIB)


def test_device_without_room_is_left_out_of_a_start(running: Running, group: Group) -> None:
    """After a reboot of the host; the others are served, and it is when there is room again."""
    group.say(max="max")
    running.open(*running.settings.devices, LARGE)
    running.stop()
    running.reboot()
    group.say(max=100 * MIB)
    instance = running.open()
    assert instance.devices.keys() == {"g1"}
    (complaint,) = running.log
    assert "the device large cannot be made: it takes" in complaint
    assert "the other devices are served" in complaint
    running.stop()
    group.say(max="max")
    assert running.open().devices.keys() == {"g1", "large"}


def test_start_that_could_serve_nothing_is_refused(running: Running, group: Group) -> None:
    running.open()
    running.stop()
    running.reboot()
    group.say(current=100 * MIB)
    before = running.snapshot()
    with pytest.raises(RefusedError, match="the device g1 cannot be made"):
        running.open()
    after = running.snapshot()
    assert {path: after[path] for path in before} == before


def test_restart_serves_what_was_served(running: Running, group: Group) -> None:
    """Its map is there already, and a pool grows up to its reserve."""
    running.open()
    running.kill()
    group.say(current=90 * MIB)
    assert running.open().devices.keys() == {"g1"}


def test_private_memory_is_what_is_counted(running: Running) -> None:
    """In `metadata_size`, which has the map too."""
    size = 8 << 30
    running.open(DeviceSpec("g1", size))
    counted = running.instance.stats()["tmem"]["metadata_size"]
    assert 0.9 * counted <= size // 4096 + private_bytes(size) <= 1.1 * counted
