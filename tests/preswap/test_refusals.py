# SPDX-License-Identifier: BSD-3-Clause
"""A start refuses what does not fit together, in one sentence, and changes nothing."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preswapd.api.kinds import LARGEST_POOL
from preswapd.errors import RefusedError
from preswapd.preswap.device._device import FLAG_FUA
from preswapd.preswap.opening import check
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.checksums import xxh3
from tests.preswap.disk_model import page_of
from tests.preswap.running import MIB, Running, read

Harm = Callable[[Running], object]


def edit_sidecar(running: Running, **changes: Any) -> None:
    path = running.paths.sidecar("g1")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def punch_map(running: Running) -> None:
    path = running.paths.map("g1")
    size = path.stat().st_size
    os.truncate(path, 0)
    os.truncate(path, size)


def another_arena(running: Running) -> None:
    """The arena of a different start lies there."""
    mine, aside = running.paths.arena, running.base / "aside"
    sidecar = running.sidecar()
    mine.rename(aside)
    edit_sidecar(running, tmem_dirty=False)
    running.open()
    running.kill()
    sidecar.write(running.paths.sidecar("g1"))


def other_boot(running: Running) -> None:
    arena = running.paths.arena
    with arena.open("rb") as file:
        front = bytearray(file.read(96))
    front[48:88] = b"another boot".ljust(40, b"\0")
    overwrite(arena, 0, with_check(front))


def other_format(running: Running) -> None:
    overwrite(running.paths.arena, 8, (2).to_bytes(4, "little"))


def with_check(front: bytearray) -> bytes:
    front[88:96] = xxh3(bytes(front[8:88])).to_bytes(8, "little")
    return bytes(front)


def remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink()


def instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def new_image(running: Running, data_at: int) -> None:
    path = running.paths.disk_file("g2")
    path.write_bytes(b"")
    os.truncate(path, MIB)
    overwrite(path, data_at, b"somebody's")
    running.settings = replace(
        running.settings, devices=(*running.settings.devices, DeviceSpec("g2", MIB))
    )


REFUSALS: dict[str, tuple[Harm, str]] = {
    "arena missing": (
        lambda r: remove([r.paths.arena]),
        r"the pages of g1 that were in shared memory are gone .*--discard-state",
    ),
    "shared memory empty": (
        lambda r: remove(r.paths.shm_dir.iterdir()),
        r"the pages of g1 that were in shared memory are gone .*--discard-state",
    ),
    "arena of a later start": (
        another_arena,
        r"g1\.json does not belong to the device g1 in shared memory",
    ),
    "arena of another boot": (
        other_boot,
        r"is from an earlier boot of this host: if the files of \S+ are removed, as a reboot does,"
        r" what was synced is served; --discard-state starts empty",
    ),
    "arena of another format": (
        other_format,
        "its format is version 2, this release reads version 1",
    ),
    "arena's superblock damaged": (
        lambda r: overwrite(r.paths.arena, 30, b"\xff\xfe"),
        "its superblock is damaged",
    ),
    "no arena at all": (
        lambda r: overwrite(r.paths.arena, 0, b"not mine"),
        "it is not an arena",
    ),
    "arena cut short": (lambda r: os.truncate(r.paths.arena, 65536), "it is truncated"),
    "arena cut off": (lambda r: os.truncate(r.paths.arena, 50), "it is too short"),
    "pool table damaged": (
        lambda r: overwrite(r.paths.arena, 4096 + 8, b"\xff"),
        "its pool table is damaged",
    ),
    "device table damaged": (
        lambda r: overwrite(r.paths.arena, 8192 + 64 + 8, b"\xff"),
        "its device table is damaged",
    ),
    "device table's state damaged": (
        lambda r: overwrite(r.paths.arena, 8192 + 64, b"\xff"),
        "its device table is damaged",
    ),
    "device table's head damaged": (
        lambda r: overwrite(r.paths.arena, 8192, b"\xff"),
        "its device table is damaged",
    ),
    "device table's counter damaged": (
        lambda r: overwrite(r.paths.arena, 8192 + 8, b"\xff"),
        "its device table is damaged",
    ),
    "sidecar missing": (
        lambda r: r.paths.sidecar("g1").unlink(),
        r"g1\.json is missing, although shared memory holds the device g1",
    ),
    "sidecar empty": (lambda r: r.paths.sidecar("g1").write_bytes(b""), r"g1\.json is damaged"),
    "sidecar no JSON": (
        lambda r: r.paths.sidecar("g1").write_bytes(b"\xff\xfe{"),
        r"g1\.json is damaged",
    ),
    "sidecar a list": (lambda r: r.paths.sidecar("g1").write_text("[]"), r"g1\.json is damaged"),
    "sidecar a number": (lambda r: r.paths.sidecar("g1").write_text("1"), r"g1\.json is damaged"),
    "sidecar without a field": (
        lambda r: r.paths.sidecar("g1").write_text('{"format": 1, "name": "g1"}'),
        r"g1\.json is damaged",
    ),
    "sidecar's size a text": (lambda r: edit_sidecar(r, size="1M"), r"g1\.json is damaged"),
    "sidecar's flag a number": (lambda r: edit_sidecar(r, tmem_dirty=1), r"g1\.json is damaged"),
    "sidecar's size impossible": (lambda r: edit_sidecar(r, size=5), r"g1\.json is damaged"),
    "sidecar's codec unknown": (lambda r: edit_sidecar(r, compress="lzo"), r"g1\.json is damaged"),
    "sidecar a directory": (
        lambda r: instead(r.paths.sidecar("g1"), Path.mkdir),
        r"g1\.json cannot be read: Is a directory",
    ),
    "sidecar of another version": (
        lambda r: edit_sidecar(r, format=3),
        r"g1\.json was written by another version of preswapd",
    ),
    "sidecar of another device": (
        lambda r: edit_sidecar(r, name="g2"),
        r"g1\.json belongs to another device, g2",
    ),
    "sidecar of another type": (
        lambda r: edit_sidecar(r, type=9),
        r"g1\.json does not belong to the device g1",
    ),
    "sidecar of another size": (
        lambda r: edit_sidecar(r, size=2 * MIB),
        r"g1\.json does not belong to the device g1",
    ),
    "sidecar of another arena": (
        lambda r: edit_sidecar(r, arena="00"),
        r"g1\.json does not belong to the device g1",
    ),
    "map missing": (lambda r: r.paths.map("g1").unlink(), r"g1\.map is missing"),
    "map cut off": (lambda r: os.truncate(r.paths.map("g1"), 10), r"g1\.map is damaged"),
    "map with holes": (punch_map, r"g1\.map is damaged: it has holes"),
    "disk file missing": (
        lambda r: r.paths.disk_file("g1").unlink(),
        r"the disk file .*g1\.img is missing",
    ),
    "disk file of another size": (
        lambda r: os.truncate(r.paths.disk_file("g1"), 2 * MIB),
        r"the disk file .*g1\.img is 2M long, its device 1M",
    ),
    "disk file a pipe": (
        lambda r: instead(r.paths.disk_file("g1"), os.mkfifo),
        r"g1\.img is neither a file nor a block device",
    ),
    "disk file a directory": (
        lambda r: instead(r.paths.disk_file("g1"), Path.mkdir),
        r"g1\.img is neither a file nor a block device",
    ),
}


@pytest.fixture
def harmed(request: pytest.FixtureRequest, running: Running) -> Running:
    """Killed with a page in tmem and one on disk, and then something happened to its files."""
    running.open()
    connection = running.connect()
    connection.pwrite(page_of(1), PAGE)
    running.device.max_pages = 1
    connection.pwrite(page_of(2), 2 * PAGE)
    running.kill()
    harm: Harm = request.param
    harm(running)
    return running


@pytest.mark.parametrize(
    ("harmed", "sentence"), REFUSALS.values(), ids=REFUSALS.keys(), indirect=["harmed"]
)
def test_start_refused(harmed: Running, sentence: str) -> None:
    before = harmed.snapshot()
    with pytest.raises(RefusedError, match=sentence) as early:
        check(harmed.settings)
    with pytest.raises(RefusedError, match=sentence):
        harmed.open()
    assert "\n" not in str(early.value)
    assert harmed.snapshot() == before


def test_start_refused_pool_too_large(running: Running) -> None:
    running.settings = replace(running.settings, pool_size=LARGEST_POOL + 1)
    with pytest.raises(RefusedError, match="a pool must be at most 128G"):
        check(running.settings)


def test_first_start_refused_for_somebodys_disk_file(running: Running) -> None:
    new_image(running, 5 * PAGE)
    before = running.snapshot()
    with pytest.raises(RefusedError, match=r"g2\.img exists and belongs to no device: remove"):
        check(running.settings)
    assert running.snapshot() == before


def test_start_serves_what_it_has_beside_somebodys_disk_file(running: Running) -> None:
    running.open()
    running.connect().pwrite(page_of(1), PAGE)
    running.kill()
    new_image(running, 5 * PAGE)
    theirs = running.paths.disk_file("g2").read_bytes()
    check(running.settings)
    assert running.open().devices.keys() == {"g1"}
    assert read(running.connect(), PAGE, PAGE) == page_of(1)
    assert any("g2.img exists and belongs to no device" in line for line in running.log)
    assert running.paths.disk_file("g2").read_bytes() == theirs
    running.kill()
    running.paths.disk_file("g2").unlink()
    assert running.open().devices.keys() == {"g1", "g2"}


def test_start_clean_device_without_arena(running: Running) -> None:
    """Nothing of it was in shared memory, so nothing is lost."""
    running.open()
    running.connect().pwrite(page_of(1), PAGE, FLAG_FUA)
    running.stop()
    running.paths.arena.unlink()
    check(running.settings)


def test_start_takes_what_a_killed_creation_left(running: Running) -> None:
    new_image(running, 0)
    assert running.open().devices.keys() == {"g1", "g2"}
