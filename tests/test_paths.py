# SPDX-License-Identifier: BSD-3-Clause
"""Names and places."""

from pathlib import Path

import pytest

from preswapd import paths
from preswapd.errors import UsageError


def default_paths(instance: str) -> paths.InstancePaths:
    return paths.InstancePaths(
        paths.default_runtime_dir(instance),
        paths.default_shm_dir(instance),
        paths.default_state_dir(instance),
    )


@pytest.mark.parametrize("name", ["g1", "a", "0", "swap.0_x-y", "A" * 15])
def test_device_names(name: str) -> None:
    assert paths.check_device_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "a/b", "A" * 16, "a b", "ä", "a\n"])
def test_bad_device_names(name: str) -> None:
    with pytest.raises(UsageError, match="device name"):
        paths.check_device_name(name)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65])
def test_bad_instance_names(name: str) -> None:
    with pytest.raises(UsageError, match="instance name"):
        paths.check_instance_name(name)


def test_governor_is_no_instance() -> None:
    with pytest.raises(UsageError, match=r"preswapd govern.*/etc/preswapd/governor\.toml"):
        paths.check_instance_name("governor")
    assert not paths.INSTANCE_NAME.fullmatch("governor")
    for name in ("governor1", "the-governor", "governor.vm"):
        assert paths.check_instance_name(name) == name
        assert paths.INSTANCE_NAME.fullmatch(name)


def test_defaults_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preswapd.paths.os.geteuid", lambda: 0)
    found = default_paths("vm1")
    assert found.nbd_socket == Path("/run/preswapd/vm1/nbd.sock")
    assert found.arena == Path("/dev/shm/preswapd-vm1/arena")
    assert found.disk_file("g1") == Path("/var/lib/preswapd/vm1/g1.img")


def test_defaults_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preswapd.paths.os.geteuid", lambda: 1234)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1234")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/u/state")
    found = default_paths("vm1")
    assert found.control_socket == Path("/run/user/1234/preswapd/vm1/control.sock")
    assert found.shm_dir == Path("/dev/shm/preswapd-1234-vm1")
    assert found.state_dir == Path("/home/u/state/preswapd/vm1")


def test_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preswapd.paths.os.geteuid", lambda: 1234)
    monkeypatch.setattr("preswapd.paths.Path.home", homeless)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    with pytest.raises(UsageError, match="no home directory: give --state-dir"):
        paths.default_state_dir("vm1")
    assert paths.default_shm_dir("vm1") == Path("/dev/shm/preswapd-1234-vm1")


def homeless() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_files_of_two_devices_never_meet() -> None:
    found = default_paths("x")
    names = ["a", "a.map", "a.img", "a.json", "lock", "arena"]
    files = [f(name) for name in names for f in (found.map, found.disk_file, found.sidecar)]
    assert len({*files, *found.locks, found.arena}) == len(files) + 4


def test_directories_in_the_order_in_which_they_are_named() -> None:
    found = paths.InstancePaths(Path("/run/x"), Path("/dev/shm/x"), Path("/var/x"))
    assert found.nbd_socket == paths.RuntimePaths(Path("/run/x")).nbd_socket
    assert found.map("a") == paths.SharedMemoryPaths(Path("/dev/shm/x")).map("a")
    assert found.disk_file("a") == paths.StatePaths(Path("/var/x")).disk_file("a")
