# SPDX-License-Identifier: BSD-3-Clause
"""Digests of images' files: computed once, kept, and lost with what the file was."""

import errno
import os
from hashlib import sha256
from pathlib import Path

import pytest

from preswapd.precache.digests import HEAD, PIECE, Contents, Digests
from preswapd.remote._remote import DIGEST_BYTES, SUM_BYTES
from preswapd.units import PAGE_SIZE as PAGE
from tests.precache.conftest import SIZE
from tests.precache.running import MIB, Shown, content, shown
from tests.precache.sharing import digests_in

CONTENT = content(SIZE)


def find(digests: Digests, image: Shown) -> Contents | None:
    watched = image.watched
    found = digests.find(image.path, watched.image, watched.image.look())
    if found is not None:
        os.close(found.sums)
    return found


def computed(digests: Digests, image: Shown) -> bytes:
    assert find(digests, image) is None
    digests.work()
    found = find(digests, image)
    assert found is not None
    return found.digest


@pytest.mark.parametrize("size", [512, PAGE, MIB, MIB + 512, SIZE])
def test_it_is_the_sha256_of_the_file_and_of_each_page(tmp_path: Path, size: int) -> None:
    path = tmp_path / "base.raw"
    path.write_bytes(CONTENT[:size])
    with shown(path) as image:
        digests = digests_in(tmp_path, [])
        assert computed(digests, image) == sha256(CONTENT[:size]).digest()
    padded = CONTENT[:size] + bytes(-size % PAGE)
    pages = [padded[at : at + PAGE] for at in range(0, len(padded), PAGE)]
    sums = b"".join(sha256(page).digest()[:SUM_BYTES] for page in pages)
    assert (tmp_path / "base.sums").read_bytes()[HEAD.size :] == sums


def test_it_is_computed_once(image: Shown, tmp_path: Path) -> None:
    digests = digests_in(tmp_path, [])
    for _ in range(3):
        assert find(digests, image) is None
    assert digests.jobs.qsize() == 1


def test_it_outlives_the_server(image: Shown, tmp_path: Path) -> None:
    digest = computed(digests_in(tmp_path, []), image)
    again = digests_in(tmp_path, [])
    found = find(again, image)
    assert found is not None
    assert found.digest == digest
    assert again.jobs.empty()
    kept = tmp_path / "base.sums"
    assert sorted(tmp_path.iterdir()) == [image.path, kept]
    assert kept.stat().st_mode & 0o777 == 0o600


def test_it_is_lost_with_what_the_file_was(image: Shown, tmp_path: Path) -> None:
    digests = digests_in(tmp_path, [])
    before = computed(digests, image)
    image.change(b"x", SIZE - 1)
    assert computed(digests, image) == sha256(CONTENT[:-1] + b"x").digest() != before
    image.change(b"", 0)  # its bytes are the same, which nobody can know
    assert find(digests, image) is None


def test_it_is_of_that_path(image: Shown, tmp_path: Path) -> None:
    digests = digests_in(tmp_path, [])
    computed(digests, image)
    image.path = tmp_path / "other.raw"
    assert find(digests_in(tmp_path, []), image) is None


@pytest.mark.parametrize("cut", [0, 1, HEAD.size - 1, HEAD.size, -1])
def test_what_is_kept_in_part_is_computed_anew(image: Shown, tmp_path: Path, cut: int) -> None:
    digest = computed(digests_in(tmp_path, []), image)
    kept = tmp_path / "base.sums"
    kept.write_bytes(kept.read_bytes()[:cut])
    assert computed(digests_in(tmp_path, []), image) == digest


def test_what_is_kept_and_cannot_be_read_leaves_no_file_open(
    image: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again and again."""
    digests = digests_in(tmp_path, [])
    computed(digests, image)
    before = os.listdir("/proc/self/fd")

    def refuse(_descriptor: int, _count: int, _at: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", refuse)
    assert find(digests_in(tmp_path, []), image) is None
    assert os.listdir("/proc/self/fd") == before


def test_what_is_kept_of_another_form_is_computed_anew(image: Shown, tmp_path: Path) -> None:
    digest = computed(digests_in(tmp_path, []), image)
    kept = tmp_path / "base.sums"
    for at in range(HEAD.size - DIGEST_BYTES):
        whole = bytearray(kept.read_bytes())
        whole[at] ^= 1
        kept.write_bytes(whole)
        assert computed(digests_in(tmp_path, []), image) == digest


@pytest.mark.parametrize("turn", range(SIZE // PIECE + 1))
def test_a_file_that_is_changed_meanwhile_has_none(image: Shown, tmp_path: Path, turn: int) -> None:
    turns: list[float] = []

    def change(seconds: float) -> None:
        if len(turns) == turn:
            image.change(b"new", 0)
        turns.append(seconds)

    clock = [0.0]
    digests = digests_in(tmp_path, [], pause=change, clock=lambda: clock[0])
    assert find(digests, image) is None
    digests.work()
    assert list(tmp_path.iterdir()) == [image.path]
    assert computed(digests, image) == sha256(b"new" + CONTENT[3:]).digest()


def test_what_cannot_be_kept_is_said_and_tried_again(
    image: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    clock = [0.0]
    digests = digests_in(tmp_path / "none", log, clock=lambda: clock[0])
    assert find(digests, image) is None
    digests.work()
    assert log[-1] == f"base: no digest of {image.path}: No such file or directory"
    assert find(digests, image) is None
    assert digests.jobs.empty()
    clock[0] = 61.0
    (tmp_path / "none").mkdir()
    assert find(digests, image) is None
    digests.work()
    assert find(digests, image) is not None


@pytest.mark.parametrize(
    ("number", "is_kept"), [(errno.EIO, False), (errno.EINVAL, True), (errno.EROFS, True)]
)
def test_it_is_kept_of_what_is_on_disk(
    image: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_kept: bool
) -> None:
    """A crash of the host may keep a digest of bytes that are gone."""
    synced: list[Path] = []

    def refuse(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fdatasync", refuse)
    digests = digests_in(tmp_path, [])
    assert find(digests, image) is None
    digests.work()
    assert synced == [image.path]
    assert (tmp_path / "base.sums").exists() == is_kept


def test_it_is_read_no_faster_than_that(image: Shown, tmp_path: Path) -> None:
    clock = [0.0]

    def pause(seconds: float) -> None:
        clock[0] += seconds

    digests = digests_in(tmp_path, [], rate=MIB, pause=pause, clock=lambda: clock[0])
    computed(digests, image)
    assert clock[0] == pytest.approx(SIZE / MIB)
