# SPDX-License-Identifier: BSD-3-Clause
"""Many devices are made at once: what is synced when, and one that cannot be made among others."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from preswapd.errors import RefusedError
from preswapd.preswap.files.making import Making
from preswapd.preswap.files.sidecar import Sidecar
from preswapd.preswap.settings import DeviceSpec
from tests.preswap.coherence import check_coherence
from tests.preswap.running import MIB, Running

NAMES = [f"d{number}" for number in range(20)]
DEVICES = [DeviceSpec(name, MIB) for name in NAMES]
KINDS = [".img", ".map", ".json"]


@pytest.fixture
def events(running: Running, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What reaches the state directory, in order: ("sync" or "name", the file's name)."""
    found: list[tuple[str, str]] = []
    sync, rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if running.paths.state_dir in (path, path.parent):
            found.append(("sync", path.name))
        sync(descriptor)

    def renamed(path: Path, target: Any) -> Path:
        result = rename(path, target)
        if path.parent == running.paths.state_dir:
            found.append(("name", Path(target).name))
        return result

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", renamed)
    return found


def test_syncs_of_the_directory_are_not_one_for_each_device(
    running: Running, events: list[tuple[str, str]]
) -> None:
    running.open(*DEVICES)
    directory = ("sync", running.paths.state_dir.name)
    named = [what for what in events if what == directory or what[0] == "name"]
    data = [("name", f"{name}{kind}") for name in NAMES for kind in (".img", ".map")]
    sidecars = [("name", f"{name}.json") for name in NAMES]
    # After the look at an empty directory, and whatever reads it.
    assert named[named.index(data[0]) :] == [*data, directory, *sidecars, directory]


def test_file_is_on_disk_before_it_has_its_name(
    running: Running, events: list[tuple[str, str]]
) -> None:
    running.open(*DEVICES)
    for name in NAMES:
        for kind in KINDS:
            file = f"{name}{kind}"
            assert events.index(("sync", f"{file}.new")) < events.index(("name", file))


@pytest.mark.parametrize("step", ["write", "sync", "publish_data", "publish_sidecar"])
def test_device_that_cannot_be_made_is_left_out(
    running: Running, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    running.open()
    running.kill()
    done = getattr(Making, step)

    def fail(making: Making) -> None:
        if making.sidecar.name == "d7":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        done(making)

    with monkeypatch.context() as patched:
        patched.setattr(Making, step, fail)
        instance = running.open(DeviceSpec("g1", MIB), *DEVICES)
    assert instance.devices.keys() == {"g1", *NAMES} - {"d7"}
    assert "the device d7 cannot be made: Input/output error" in running.log[-1]
    check_coherence(instance)
    assert not [path for path in running.snapshot() if path.name.startswith("d7.")]
    instance.create("d7", MIB)


def test_directory_that_cannot_be_synced_refuses_all(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("preswapd.preswap.files.making.sync_directory", fail)
    with pytest.raises(RefusedError, match="the device d0 cannot be made: Input/output error"):
        running.open(*DEVICES)
    assert not list(running.paths.state_dir.iterdir())


def test_discard_makes_all_anew_and_syncs_them(
    running: Running, events: list[tuple[str, str]]
) -> None:
    running.open(*DEVICES)
    running.kill()
    before = {name: Sidecar.read(running.paths.sidecar(name)) for name in NAMES}
    events.clear()
    running.open(*DEVICES, discard=True)
    for name in NAMES:
        assert running.sidecar(name).token not in (before[name].token, before[name].prev)
        for kind in KINDS:
            file = f"{name}{kind}"
            assert events.index(("sync", f"{file}.new")) < events.index(("name", file))
