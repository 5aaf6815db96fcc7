# SPDX-License-Identifier: BSD-3-Clause
"""One server for each directory."""

from pathlib import Path

import pytest

from preswapd.errors import RefusedError
from preswapd.paths import InstancePaths
from preswapd.server import locks


@pytest.fixture
def paths(tmp_path: Path) -> InstancePaths:
    found = InstancePaths(tmp_path / "run", tmp_path / "shm", tmp_path / "state")
    for directory in (found.runtime_dir, found.shm_dir, found.state_dir):
        directory.mkdir()
    return found


@pytest.mark.parametrize("shared", ["runtime_dir", "shm_dir", "state_dir"])
def test_each_directory_serves_one(paths: InstancePaths, tmp_path: Path, shared: str) -> None:
    for name in ("run2", "shm2", "state2"):
        (tmp_path / name).mkdir()
    other = {
        "runtime_dir": tmp_path / "run2",
        "shm_dir": tmp_path / "shm2",
        "state_dir": tmp_path / "state2",
        shared: getattr(paths, shared),
    }
    held = locks.take(paths)
    try:
        with pytest.raises(RefusedError, match=f"{other[shared]} is in use by another server"):
            locks.take(InstancePaths(**other))
    finally:
        locks.release(held)


def test_refused_takes_nothing(paths: InstancePaths, tmp_path: Path) -> None:
    (tmp_path / "shm2").mkdir()
    (tmp_path / "run2").mkdir()
    other = InstancePaths(tmp_path / "run2", tmp_path / "shm2", paths.state_dir)
    held = locks.take(paths)
    with pytest.raises(RefusedError):
        locks.take(other)
    locks.release(held)
    locks.release(locks.take(other))


def test_lock_file_may_be_there_already(paths: InstancePaths) -> None:
    locks.release(locks.take(paths))
    locks.release(locks.take(paths))


def test_link_for_a_lock(paths: InstancePaths, tmp_path: Path) -> None:
    (paths.shm_dir / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError):
        locks.take(paths)
    assert not (tmp_path / "elsewhere").exists()
