# SPDX-License-Identifier: BSD-3-Clause
"""Directories that will not do are refused before anything is written there."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from preswapd.errors import RefusedError
from preswapd.paths import InstancePaths
from preswapd.server.directories import prepare

MIB = 1 << 20


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[InstancePaths]:
    shm = Path(tempfile.mkdtemp(prefix="preswapd-test-", dir="/dev/shm"))
    yield InstancePaths(tmp_path / "run", shm / "shm", tmp_path / "state")
    shutil.rmtree(shm)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_missing_ones_are_made_private(paths: InstancePaths) -> None:
    prepare(paths, 32 * MIB)
    assert {mode(paths.shm_dir), mode(paths.runtime_dir), mode(paths.state_dir)} == {0o700}


def test_user_who_is_not_logged_in_is_told_what_to_give(
    paths: InstancePaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preswapd.server.directories.SESSIONS", tmp_path / "user")
    session = tmp_path / f"user/{os.geteuid()}"
    ours = InstancePaths(session / "preswapd/default", paths.shm_dir, paths.state_dir)
    with pytest.raises(RefusedError, match=f"^{session} is not there, .* --runtime-dir DIR"):
        prepare(ours, 32 * MIB)
    assert not paths.shm_dir.exists()
    session.mkdir(parents=True)
    prepare(ours, 32 * MIB)


def test_shared_memory_must_be_a_tmpfs(paths: InstancePaths, tmp_path: Path) -> None:
    on_disk = InstancePaths(paths.runtime_dir, tmp_path / "shm", paths.state_dir)
    with pytest.raises(RefusedError, match="is not on a tmpfs"):
        prepare(on_disk, 32 * MIB)
    assert not list(tmp_path.iterdir())


def test_pool_must_fit(paths: InstancePaths) -> None:
    with pytest.raises(RefusedError, match="does not fit"):
        prepare(paths, 1 << 60)
    assert not paths.shm_dir.exists()


def test_link_for_the_shared_memory(paths: InstancePaths) -> None:
    target = paths.shm_dir.with_name("target")
    target.mkdir(mode=0o700)
    paths.shm_dir.symlink_to(target)
    with pytest.raises(RefusedError, match="symbolic link"):
        prepare(paths, 32 * MIB)


def test_shared_memory_open_to_others(paths: InstancePaths) -> None:
    paths.shm_dir.mkdir()
    paths.shm_dir.chmod(0o750)
    with pytest.raises(RefusedError, match=r"mode 0750\): chmod 0700 it"):
        prepare(paths, 32 * MIB)


def test_directory_for_everybody_is_not_to_be_closed(paths: InstancePaths) -> None:
    paths.shm_dir.mkdir()
    paths.shm_dir.chmod(0o1777)
    with pytest.raises(
        RefusedError, match=r"is shared by all users \(mode 1777\): give a directory inside it"
    ):
        prepare(paths, 32 * MIB)


def test_group_may_enter_the_runtime_directory(paths: InstancePaths) -> None:
    paths.runtime_dir.mkdir()
    paths.runtime_dir.chmod(0o750)
    prepare(paths, 32 * MIB)
    assert mode(paths.runtime_dir) == 0o750


def test_group_may_not_write_there(paths: InstancePaths) -> None:
    paths.state_dir.mkdir()
    paths.state_dir.chmod(0o770)
    with pytest.raises(RefusedError, match="chmod 0750 it"):
        prepare(paths, 32 * MIB)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_someone_elses(paths: InstancePaths) -> None:
    paths.state_dir.mkdir(mode=0o700)
    os.chown(paths.state_dir, 12345, -1)
    with pytest.raises(RefusedError, match="belongs to user 12345"):
        prepare(paths, 32 * MIB)


def test_file_in_the_way(paths: InstancePaths) -> None:
    paths.runtime_dir.write_text("")
    with pytest.raises(RefusedError, match="is not a directory"):
        prepare(paths, 32 * MIB)
