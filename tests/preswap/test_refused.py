# SPDX-License-Identifier: BSD-3-Clause
"""A device whose files do not fit together is not served; the others are, and it can be mended."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from preswapd.errors import RefusedError
from preswapd.host.disk_locks import lock_disk_file
from preswapd.preswap.device._device import FLAG_FUA
from preswapd.preswap.opening import check
from preswapd.preswap.settings import DeviceSpec
from preswapd.preswap.survey import WITNESS
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.disk_model import page_of
from tests.preswap.running import MIB, Running, pages_read, read

TWO = [DeviceSpec("bad", MIB), DeviceSpec("good", MIB)]
Harm = Callable[[Running], object]


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def move_away(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}.away"))


def put_back(running: Running) -> None:
    """Whatever was moved away."""
    for folder in (running.paths.state_dir, running.paths.shm_dir):
        for path in folder.glob("*.away"):
            path.rename(path.with_suffix(""))


def write_aside(path: Path, content: bytes) -> None:
    move_away(path)
    path.write_bytes(content)


def pipe_aside(path: Path) -> None:
    move_away(path)
    os.mkfifo(path)


def older_sidecar(running: Running) -> None:
    path = running.paths.sidecar("bad")
    shutil.copy(path, path.with_name("bad.json.away"))
    sidecar = running.sidecar("bad")
    replace(sidecar, token=sidecar.token - 1, prev=sidecar.token - 1).write(path)


HARMS: dict[str, tuple[Harm, str]] = {
    "sidecar damaged": (
        lambda r: write_aside(r.paths.sidecar("bad"), b"?"),
        r"bad\.json is damaged",
    ),
    "sidecar missing": (
        lambda r: move_away(r.paths.sidecar("bad")),
        r"bad\.json is missing, although shared memory holds the device bad",
    ),
    "sidecar older": (older_sidecar, r"bad\.json is older than the device bad in shared memory"),
    "disk file missing": (
        lambda r: move_away(r.paths.disk_file("bad")),
        r"the disk file .*bad\.img is missing",
    ),
    "disk file another": (
        lambda r: write_aside(r.paths.disk_file("bad"), bytes(MIB)),
        r"bad\.img is not the disk file that bad had",
    ),
    "disk file a pipe": (
        lambda r: pipe_aside(r.paths.disk_file("bad")),
        r"bad\.img is neither a file nor a block device",
    ),
    "map missing": (lambda r: move_away(r.paths.map("bad")), r"the map .*bad\.map is missing"),
}


@pytest.fixture
def filled(running: Running) -> Running:
    """A page in memory and one on disk, of each."""
    running.open(*TWO)
    for number, spec in enumerate(TWO):
        connection = running.instance.devices[spec.name].connect()
        connection.pwrite(page_of(10 + number), PAGE)
        connection.pwrite(page_of(20 + number), 2 * PAGE, FLAG_FUA)
    return running


@pytest.fixture
def harmed(request: pytest.FixtureRequest, filled: Running) -> Running:
    filled.kill()
    harm: Harm = request.param
    harm(filled)
    return filled


def content(running: Running, name: str) -> bytes:
    return read(running.instance.devices[name].connect(), PAGE, 2 * PAGE)


@pytest.mark.parametrize(("harmed", "why"), HARMS.values(), ids=HARMS.keys(), indirect=["harmed"])
def test_refused_alone(harmed: Running, why: str) -> None:
    """It loses nothing by that: once its files are right it is served with all its pages."""
    before = {path: data for path, data in harmed.snapshot().items() if path.name[:4] == "bad."}
    check(harmed.settings)
    for _ in range(2):
        harmed.log.clear()
        instance = harmed.open(known=False)
        assert set(instance.devices) == {"good"}
        assert content(harmed, "good") == page_of(11) + page_of(21)
        assert list(instance.refused) == ["bad"]
        [line] = harmed.log
        assert line.startswith("bad is not served: ")
        assert "\n" not in line
        with pytest.raises(RefusedError, match=why):
            raise RefusedError(line)
        # It works meanwhile, and moves what is in memory.
        instance.maintain()
        assert instance.shrink(0).complete
        instance.devices["good"].connect().pwrite(page_of(11), PAGE)
        harmed.kill()
        after = {path: data for path, data in harmed.snapshot().items() if path.name[:4] == "bad."}
        assert after == before
    put_back(harmed)
    harmed.open()
    assert content(harmed, "bad") == page_of(10) + page_of(20)
    assert content(harmed, "good") == page_of(11) + page_of(21)


def test_refused_after_a_reboot(filled: Running) -> None:
    assert filled.instance.begin_sync().wait().complete
    filled.stop()
    filled.reboot()
    move_away(filled.paths.disk_file("bad"))
    filled.open(known=False)
    assert set(filled.instance.devices) == {"good"}
    assert content(filled, "good") == page_of(11) + page_of(21)
    filled.stop()
    put_back(filled)
    filled.open(known=False)
    # A file that was moved is one that was touched.
    assert "--accept-moved" in filled.log[-1]
    filled.stop()
    filled.open(known=False, accept_moved=True)
    assert content(filled, "bad") == page_of(10) + page_of(20)


def test_both_of_two_disk_files_that_were_swapped(running: Running) -> None:
    names = ["a", "b", "good"]
    running.open(*(DeviceSpec(name, MIB) for name in names))
    running.kill()
    swap(running.paths.disk_file("a"), running.paths.disk_file("b"))
    running.open()
    assert set(running.instance.devices) == {"good"}
    assert set(running.instance.refused) == {"a", "b"}


def test_nobody_takes_the_name_or_the_files_of_a_refused_one(filled: Running) -> None:
    filled.kill()
    move_away(filled.paths.sidecar("bad"))
    instance = filled.open(known=False)
    before = filled.snapshot()
    for change in (
        lambda: instance.create("bad", MIB),
        lambda: instance.remove("bad", force=True),
        lambda: instance.mkswap("bad", force=True),
        lambda: instance.swapoff("bad"),
        lambda: instance.trim("bad"),
        lambda: instance.begin_shrink(0, "bad"),
        lambda: instance.begin_sync("bad"),
    ):
        with pytest.raises(RefusedError, match=r"bad is not served: .*bad\.json is missing"):
            change()
    assert filled.snapshot() == before


def test_disk_file_of_a_refused_one_is_locked(filled: Running, tmp_path: Path) -> None:
    filled.kill()
    filled.paths.map("bad").unlink()
    filled.open(known=False)
    (tmp_path / "elsewhere").mkdir()
    with Running(tmp_path / "elsewhere", [DeviceSpec("bad", MIB)]) as other:
        os.link(filled.paths.disk_file("bad"), other.paths.disk_file("bad"))
        shutil.copy(filled.paths.sidecar("bad"), other.paths.sidecar("bad"))
        replace(other.sidecar("bad"), boot_id="the boot before").write(other.paths.sidecar("bad"))
        with pytest.raises(RefusedError, match=r"bad\.img is in use by another process"):
            other.open()


def test_disk_file_in_use_elsewhere(filled: Running) -> None:
    """Found only when it is to be served."""
    filled.kill()
    path = filled.paths.disk_file("bad")
    descriptor = os.open(path, os.O_RDWR)
    try:
        lock_disk_file(descriptor, path)
        filled.open(known=False)
        assert set(filled.instance.devices) == {"good"}
        assert "bad.img is in use by another process" in filled.log[-1]
        filled.kill()
    finally:
        os.close(descriptor)
    filled.open()
    assert content(filled, "bad") == page_of(10) + page_of(20)


def test_older_release_that_served_a_refused_one_in_between(filled: Running) -> None:
    """What tells of it outlives the starts at which nobody could look."""
    filled.instance.close()
    [witness] = filled.instance.maker.table.entries(WITNESS)
    witness.set_state("free")
    filled.kill()
    path = filled.paths.disk_file("bad")
    with path.open("r+b") as file:
        file.seek(2 * PAGE)
        file.write(page_of(7))
    move_away(path)
    filled.open(known=False)
    assert set(filled.instance.refused) == {"bad"}
    filled.kill()
    put_back(filled)
    filled.open(known=False)
    assert content(filled, "bad") == page_of(10) + page_of(7)
    assert not filled.sidecar("bad").clean
    assert filled.instance.maker.table.entries(WITNESS)


def test_sync_is_not_complete_without_a_refused_one(filled: Running) -> None:
    filled.kill()
    filled.paths.map("bad").unlink()
    filled.open(known=False)
    result = filled.instance.begin_sync().wait()
    assert not result.complete
    assert "bad is not served" in (result.reason or "")
    assert filled.sidecar("good").clean
    assert filled.instance.begin_sync("good").wait().complete


def test_settings_of_a_refused_one_are_kept(filled: Running) -> None:
    filled.paths.runtime_dir.mkdir(exist_ok=True)
    filled.instance.set("preswap.test.bad.quota", "7")
    filled.kill()
    move_away(filled.paths.disk_file("bad"))
    filled.open(known=False).set("preswap.test.good.quota", "9")
    assert not [line for line in filled.log if "ignored" in line]
    filled.kill()
    put_back(filled)
    values = filled.open(known=False).stats()["sysctl"]
    assert (values["preswap.test.bad.quota"], values["preswap.test.good.quota"]) == (7, 9)


def test_only_device_refused_refuses_the_start(running: Running) -> None:
    running.open()
    running.kill()
    running.paths.map("g1").unlink()
    before = running.snapshot()
    for devices in ([], [DeviceSpec("new", MIB)]):
        running.settings = replace(running.settings, devices=(*running.settings.devices, *devices))
        with pytest.raises(RefusedError, match=r"g1\.map is missing"):
            check(running.settings)
        with pytest.raises(RefusedError, match=r"g1\.map is missing"):
            running.open()
        assert running.snapshot() == before


def test_memory_that_is_gone_is_that_of_all(filled: Running) -> None:
    """Else a wrong directory of shared memory would cost the clean ones theirs."""
    filled.stop()
    filled.open(known=False)
    filled.instance.devices["bad"].connect().pwrite(page_of(1), PAGE)
    filled.kill()
    filled.paths.arena.unlink()
    with pytest.raises(RefusedError, match="the pages of bad that were in shared memory are gone"):
        filled.open()
    with suppress(FileNotFoundError):
        assert not filled.paths.arena.stat()


def test_refused_one_is_in_the_statistics(filled: Running) -> None:
    filled.kill()
    filled.paths.map("bad").unlink()
    stats = filled.open(known=False).stats()
    assert list(stats["devices"]) == ["good"]
    assert "bad.map is missing" in stats["refused"]["bad"]
    assert stats["tmem"]["stored_pages"] == 2
    assert pages_read(filled.instance.devices["good"].connect())[1] == page_of(11)
