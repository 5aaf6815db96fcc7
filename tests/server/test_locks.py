# SPDX-License-Identifier: BSD-3-Clause
"""One server for each directory."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from preswapd.errors import RefusedError
from preswapd.paths import InstancePaths, default_shm_dir
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
    option = f"--{shared.replace('_', '-')}"
    complaint = f"^{other[shared]} is in use by another server: .* give another {option}$"
    try:
        with pytest.raises(RefusedError, match=complaint):
            locks.take(InstancePaths(**other))
    finally:
        locks.release(held)


@pytest.fixture
def instances() -> Iterator[list[str]]:
    """Two instances with shared memory where it is when nothing is said about it."""
    names = [f"test-{os.getpid()}-{number}" for number in range(2)]
    directories = [default_shm_dir(name) for name in names]
    for directory in directories:
        directory.mkdir()
    yield names
    for directory in directories:
        (directory / "lock").unlink(missing_ok=True)
        directory.rmdir()


def test_another_instance_is_the_way_out(
    paths: InstancePaths, instances: list[str], tmp_path: Path
) -> None:
    """It is what the complaint says, and with it there is none."""
    first, second = instances
    for name in ("run2", "state2"):
        (tmp_path / name).mkdir()
    ours = InstancePaths(paths.runtime_dir, default_shm_dir(first), paths.state_dir)
    held = locks.take(ours, first)
    try:
        same = InstancePaths(tmp_path / "run2", default_shm_dir(first), tmp_path / "state2")
        with pytest.raises(RefusedError, match=r"give --instance NAME$"):
            locks.take(same, first)
        other = InstancePaths(tmp_path / "run2", default_shm_dir(second), tmp_path / "state2")
        locks.release(locks.take(other, second))
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
