# SPDX-License-Identifier: BSD-3-Clause
"""The key of the remote tier: made once, and refused where it is none."""

import errno
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from preswapd.errors import RefusedError
from preswapd.remote.key_file import KEY_BYTES, load, load_of_images
from tests.running import as_nobody_special


def refusal(path: Path) -> str:
    with pytest.raises(RefusedError) as refused:
        load(path)
    return str(refused.value)


def test_it_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "remote.key"
    key = load(path)
    assert len(key) == KEY_BYTES
    assert path.stat().st_mode & 0o777 == 0o600
    assert load(path) == key
    assert list(tmp_path.iterdir()) == [path]


def test_two_are_never_alike(tmp_path: Path) -> None:
    assert load(tmp_path / "a") != load(tmp_path / "b")


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o644])
def test_what_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "remote.key"
    load(path)
    path.chmod(mode)
    assert refusal(path) == f"{path} can be read or changed by others: chmod o=,g-w {path}"


def test_the_services_group_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "remote.key"
    key = load(path)
    path.chmod(0o640)
    assert load(path) == key


@pytest.mark.parametrize("length", [0, KEY_BYTES - 1, KEY_BYTES + 1])
def test_another_length_is_named(tmp_path: Path, length: int) -> None:
    path = tmp_path / "remote.key"
    path.touch(mode=0o600)
    path.write_bytes(bytes(length))
    assert f"{path} has {length} bytes, and a key has 32" in refusal(path)
    assert path.stat().st_size == length


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "it is no file" in refusal(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    assert "No such file" in refusal(tmp_path / "link")


def test_where_it_cannot_be_made(tmp_path: Path) -> None:
    text = os.strerror(errno.ENOENT)
    path = tmp_path / "none" / "remote.key"
    assert refusal(path) == f"the key {path} cannot be made: {text}"


def test_one_that_cannot_be_read_says_who_should() -> None:
    with TemporaryDirectory(prefix="preswapd-test-") as folder:
        path = Path(folder) / "remote.key"
        path.parent.chmod(0o755)
        path.touch(mode=0o000)
        with as_nobody_special():
            assert f"let user {os.geteuid()} read it, and nobody else" in refusal(path)


def test_one_that_comes_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers that share a key file, started at once."""
    path = tmp_path / "remote.key"
    before = load(path)
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    assert load(path) == before


def test_what_was_left_by_one_that_was_killed_is_not_in_the_way(tmp_path: Path) -> None:
    """In a container each server is the same process by number."""
    path = tmp_path / "remote.key"
    (tmp_path / f".{path.name}.{os.getpid()}").touch(mode=0o600)
    assert len(load(path)) == KEY_BYTES


def refusal_of_images(path: Path) -> str:
    with pytest.raises(RefusedError) as refused:
        load_of_images(path)
    return str(refused.value)


def test_that_of_images_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "images.key"
    said = refusal_of_images(path)
    assert f"(umask 077; head -c 32 /dev/urandom > {path}) makes a key" in said
    assert not path.exists()
    command = said[said.index("(umask") : said.index(" makes")]
    subprocess.run(["sh", "-c", command], check=True)
    assert load_of_images(path) == path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("length", [0, KEY_BYTES - 1, KEY_BYTES + 1])
def test_one_of_images_of_another_length_is_named(tmp_path: Path, length: int) -> None:
    path = tmp_path / "images.key"
    path.touch(mode=0o600)
    path.write_bytes(bytes(length))
    assert f"{path} has {length} bytes, and a key has 32" in refusal_of_images(path)


def test_one_of_images_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.key"
    path.write_bytes(bytes(KEY_BYTES))
    path.chmod(0o644)
    assert f"{path} can be read or changed by others" in refusal_of_images(path)
