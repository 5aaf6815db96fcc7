# SPDX-License-Identifier: BSD-3-Clause
"""What a start makes of what it finds: stops, kills, reboots and other configurations."""

import errno
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from preswapd.errors import RefusedError
from preswapd.preswap.device._device import FLAG_FUA
from preswapd.preswap.device._table import Entry
from preswapd.preswap.files.disk_file import data_ranges
from preswapd.preswap.files.identity import ATTRIBUTE, identity_of
from preswapd.preswap.files.maps import LOST, UNKNOWN
from preswapd.preswap.files.saved_map import save_map
from preswapd.preswap.files.sidecar import Sidecar
from preswapd.preswap.instance import Instance
from preswapd.preswap.opening import check
from preswapd.preswap.record import Record
from preswapd.preswap.settings import DeviceSpec
from preswapd.preswap.survey import WITNESS
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.disk_model import page_of
from tests.preswap.running import MIB, Running, pages_read, read
from tests.preswap.zones import with_zone
from tests.running import PATIENCE

ZEROS = bytes(PAGE)
# Where the table of devices lies in the arena.
TABLE_AT = 8192


def start_dirty(running: Running) -> None:
    """With page 1 in tmem, page 2 and the header on disk, all others trimmed."""
    running.open()
    connection = running.connect()
    connection.pwrite(page_of(1), PAGE)
    connection.pwrite(page_of(2), 2 * PAGE, FLAG_FUA)


def text(pages: int) -> bytes:
    return b"".join(f"page {page:11}".encode() * 256 for page in range(pages))


@pytest.mark.parametrize(("codec", "raw"), [("lz4", 0), ("zstd", 0), ("none", 20)])
def test_what_was_to_be_compressed_is_after_a_kill(running: Running, codec: str, raw: int) -> None:
    running.open(DeviceSpec("g1", MIB, codec))
    running.instance.compress_later()
    running.connect().pwrite(text(20), PAGE)
    assert running.instance.host.stats()["huge_pages"] == 20
    running.kill()
    running.open()
    assert running.instance.host.stats()["huge_pages"] == 20
    running.instance.maintain()
    assert running.instance.host.stats()["huge_pages"] == raw
    assert read(running.connect(), PAGE, 20 * PAGE) == text(20)


# --- stops ---


def test_device_is_born_dirty(running: Running) -> None:
    """An older release must not take its holes for zeros."""
    running.open(known=False)
    sidecar = running.sidecar()
    assert (sidecar.clean, sidecar.tmem_dirty) == (False, True)


def test_stop_is_clean_whatever_is_in_memory(running: Running) -> None:
    start_dirty(running)
    running.stop()
    assert running.sidecar().clean
    running.open()
    assert not running.device.is_marked
    assert read(running.connect(), PAGE, 2 * PAGE) == page_of(1) + page_of(2)


@pytest.mark.parametrize("flags", [0, FLAG_FUA])
def test_first_change_marks_a_clean_device(running: Running, flags: int) -> None:
    start_dirty(running)
    running.stop()
    before = running.sidecar()
    running.open()
    connection = running.connect()
    read(connection, 0, 3 * PAGE)
    connection.flush()
    assert running.sidecar() == before
    connection.pwrite(page_of(5), 5 * PAGE, flags)
    after = running.sidecar()
    assert (after.clean, after.prev) == (False, before.token)
    assert after.token not in (0, before.token)
    assert identity_of(running.paths.disk_file("g1"), MIB).token == after.token


def test_maintenance_leaves_a_clean_device_alone(running: Running) -> None:
    """What an earlier process has left to punch can wait until something changes."""
    start_dirty(running)
    running.connect().trim(PAGE, 2 * PAGE)
    running.stop()
    running.open()
    before = running.sidecar()
    for _ in range(3):
        running.instance.maintain()
    assert running.sidecar() == before
    assert os.stat(running.paths.disk_file("g1")).st_ctime_ns == before.ctime
    running.connect().pwrite(page_of(5), 5 * PAGE)
    for _ in range(3):
        running.instance.maintain()
    with running.paths.disk_file("g1").open("rb") as file:
        assert list(data_ranges(file.fileno(), MIB)) == [(0, PAGE)]


def test_mark_that_cannot_be_written_is_an_error(running: Running) -> None:
    """And nothing has changed: the saved map holds."""
    start_dirty(running)
    running.stop()
    running.open()
    connection = running.connect()
    blocker = running.paths.state_dir / "g1.json.new"
    blocker.mkdir()
    for change in (
        lambda: connection.pwrite(page_of(9), 2 * PAGE),
        lambda: connection.pwrite(page_of(9), 2 * PAGE, FLAG_FUA),
        lambda: connection.pwrite(b"part", 2 * PAGE),
        lambda: connection.trim(PAGE, 2 * PAGE),
        lambda: connection.zero(PAGE, 2 * PAGE),
        lambda: running.instance.mkswap("g1", force=True),
        lambda: running.instance.swapoff("g1"),
    ):
        with pytest.raises(OSError, match="Input/output error"):
            change()
    assert not running.instance.shrink(0).complete
    assert read(connection, PAGE, 2 * PAGE) == page_of(1) + page_of(2)
    assert running.sidecar().clean
    blocker.rmdir()
    connection.pwrite(page_of(9), 2 * PAGE)
    assert not running.sidecar().clean


def test_full_disk_keeps_no_server_from_a_clean_stop(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for the map was reserved, and the sidecar is written over."""
    start_dirty(running)

    def no_room(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("preswapd.preswap.files.durable.write_and_publish", no_room)
    running.stop()
    assert running.sidecar().clean


def no_room(*arguments: object) -> str:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("end", ["sync", "stop"])
def test_map_that_could_not_be_saved_is_saved_later(
    running: Running, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Though nothing has changed since: a sync that says it is complete has saved it."""
    start_dirty(running)
    with monkeypatch.context() as patched:
        patched.setattr("preswapd.preswap.record.save_map", no_room)
        assert not running.instance.begin_sync().wait().complete
    if end == "sync":
        assert running.instance.begin_sync().wait().complete
    else:
        running.stop()
    assert running.sidecar().clean
    running.reboot()
    running.open()
    assert read(running.connect(), PAGE, 2 * PAGE) == page_of(1) + page_of(2)


def test_map_that_was_damaged_is_saved_anew(running: Running) -> None:
    """Shared memory has it still."""
    start_dirty(running)
    assert running.instance.begin_sync().wait().complete
    running.stop()
    running.paths.saved_map("g1").unlink()
    running.open()
    assert running.instance.begin_sync().wait().complete
    running.reboot()
    running.open()
    assert read(running.connect(), PAGE, 2 * PAGE) == page_of(1) + page_of(2)


def test_stop_waits_for_a_sync_that_saves(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long its disk takes: else the process ends in the middle of it."""
    saving, may_end = threading.Event(), threading.Event()

    def slow(path: Path, pieces: Iterable[bytes]) -> str:
        saving.set()
        may_end.wait()
        return save_map(path, pieces)

    monkeypatch.setattr("preswapd.preswap.record.save_map", slow)
    monkeypatch.setattr("preswapd.preswap.instance.PARK_MILLISECONDS", 1)
    start_dirty(running)
    sync = running.instance.begin_sync()
    assert saving.wait(PATIENCE)
    was_clean = []

    def stop() -> None:
        running.instance.close()
        was_clean.append(running.sidecar().clean)

    stopping = threading.Thread(target=stop)
    stopping.start()
    stopping.join(0.2)
    may_end.set()
    stopping.join(PATIENCE)
    sync.wait()
    assert was_clean == [True]


# --- kills ---


def test_killed_pages_come_back(running: Running) -> None:
    start_dirty(running)
    running.kill()
    instance = running.open()
    assert instance.recovery.stored_pages == 1
    assert read(running.connect(), PAGE, 2 * PAGE) == page_of(1) + page_of(2)


def test_killed_pages_of_many_devices_come_back_each_to_its_own(running: Running) -> None:
    names = [f"d{number}" for number in range(9)]
    instance = running.open(*(DeviceSpec(name, MIB) for name in names))
    for number, name in enumerate(names):
        instance.devices[name].connect().pwrite(bytes([number + 1]) * PAGE, (number + 1) * PAGE)
    instance.remove("d4", force=True)
    running.kill()
    instance = running.open(*(DeviceSpec(name, MIB) for name in names))
    for number, name in enumerate(names):
        device = instance.devices[name]
        assert device.preswap_pages == (name != "d4")
        assert device.preswap_map.find(1) == (number + 1 if name != "d4" else -1)
        kept = bytes([number + 1]) if name != "d4" else b"\0"
        assert read(device.connect(), (number + 1) * PAGE, PAGE) == kept * PAGE


def test_killed_before_the_pool_was_made(running: Running) -> None:
    running.open()
    running.kill()
    with running.paths.arena.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(32))
    running.open()
    running.connect().pwrite(page_of(1), PAGE)
    assert running.device.preswap_pages == 1


def test_damaged_slot_is_lost_until_rewritten(running: Running) -> None:
    start_dirty(running)
    running.kill()
    damage_headers(running)
    instance = running.open()
    assert (instance.recovery.damaged_slots, instance.recovery.lost_pages) == (1, 1)
    connection = running.connect()
    with pytest.raises(OSError, match="Input/output error"):
        read(connection, PAGE, PAGE)
    assert running.device.state_bytes()[1] == LOST
    assert instance.stats()["tmem"]["checksum_errors"] == 1
    connection.pwrite(page_of(5), PAGE)
    assert read(connection, PAGE, PAGE) == page_of(5)
    check_coherence(instance)


def test_damaged_slot_trimmed_reads_zeros(running: Running) -> None:
    start_dirty(running)
    running.kill()
    damage_headers(running)
    running.open()
    connection = running.connect()
    connection.trim(PAGE, PAGE)
    assert read(connection, PAGE, PAGE) == ZEROS
    check_coherence(running.instance)


def damage_headers(running: Running) -> None:
    """Flips a bit in the object of every slot of the first slab."""
    with running.paths.arena.open("r+b") as file:
        file.seek(65536)
        slab = bytearray(file.read(65536))
        for at in range(32, 4096, 32):
            if slab[at + 7] == 0xA5:
                slab[at + 8] ^= 1
        file.seek(65536)
        file.write(slab)


def test_map_byte_that_is_none_is_lost(running: Running) -> None:
    start_dirty(running)
    running.kill()
    with running.paths.map("g1").open("r+b") as file:
        file.seek(2)
        file.write(b"\x33")
    assert running.open().recovery.lost_pages == 1
    check_coherence(running.instance)


def test_slot_beats_the_map(running: Running) -> None:
    start_dirty(running)
    running.kill()
    with running.paths.map("g1").open("r+b") as file:
        file.seek(1)
        file.write(b"\x0f")
    running.open()
    assert read(running.connect(), PAGE, PAGE) == page_of(1)
    check_coherence(running.instance)


# --- reboots ---


def pages_known(running: Running) -> dict[int, bytes]:
    """Those of the first ten that can be read and are no zeros."""
    found = enumerate(pages_read(running.connect())[:10])
    return {page: content for page, content in found if content and content != ZEROS}


def test_reboot_of_a_stopped_server_keeps_what_is_on_disk(running: Running) -> None:
    start_dirty(running)
    running.stop()
    running.reboot()
    running.open()
    pages = pages_read(running.connect())
    assert pages[1:4] == [None, page_of(2), ZEROS]
    assert running.device.stats()["unknown_pages"] == 1
    assert not running.device.is_marked
    check_coherence(running.instance)


def test_reboot_of_a_killed_server_keeps_the_zone(running: Running) -> None:
    start_dirty(running)
    header = read(running.connect(), 0, PAGE)
    running.reboot()
    running.open()
    pages = pages_read(running.connect())
    assert pages[0] == header
    assert set(pages[1:]) == {None}
    assert running.log == [
        "the pages of g1 were not saved before the host's reboot: reads fail until they are written"
        " or trimmed"
    ]


def test_reboot_after_a_sync_keeps_everything(running: Running) -> None:
    start_dirty(running)
    result = running.instance.begin_sync().wait()
    assert (result.complete, result.moved) == (True, 1)
    running.reboot()
    running.open()
    assert read(running.connect(), PAGE, 3 * PAGE) == page_of(1) + page_of(2) + ZEROS


def test_change_after_a_sync_is_not_forgotten(running: Running) -> None:
    start_dirty(running)
    assert running.instance.begin_sync().wait().complete
    running.connect().pwrite(page_of(9), 2 * PAGE)
    running.reboot()
    running.open()
    assert set(pages_read(running.connect())[1:]) == {None}


def test_maintenance_does_not_undo_a_sync(running: Running) -> None:
    """What is to be punched waits until a guest changes something."""
    start_dirty(running)
    running.connect().trim(PAGE, 2 * PAGE)
    assert running.instance.begin_sync().wait().complete
    running.instance.maintain()
    assert running.sidecar().clean
    running.connect().pwrite(page_of(3), 3 * PAGE)
    running.instance.maintain()
    assert running.device.stats()["stale_pages"] == 0


def test_sync_serves_on(running: Running) -> None:
    start_dirty(running)
    assert running.instance.begin_sync("g1").wait().complete
    assert not running.device.is_marked
    running.connect().pwrite(page_of(9), 2 * PAGE)
    assert read(running.connect(), 2 * PAGE, PAGE) == page_of(9)


def test_second_reboot_knows_as_much_as_the_first(running: Running) -> None:
    start_dirty(running)
    running.stop()
    for _ in range(3):
        running.reboot()
        running.open()
        assert pages_read(running.connect())[1:4] == [None, page_of(2), ZEROS]


def test_reboot_forgets_no_lost_page(running: Running) -> None:
    start_dirty(running)
    running.kill()
    damage_headers(running)
    running.open()
    running.stop()
    running.reboot()
    running.open()
    assert running.device.stats()["lost_pages"] == 1
    with pytest.raises(OSError, match="Input/output error"):
        read(running.connect(), PAGE, PAGE)
    assert running.instance.trim("g1") == 0
    assert running.device.stats()["lost_pages"] == 1


def test_zeros_that_were_acknowledged_stay_zeros(running: Running) -> None:
    """Also where nothing was punched yet."""
    start_dirty(running)
    connection = running.connect()
    connection.zero(PAGE, 2 * PAGE)
    connection.flush()
    running.stop()
    running.reboot()
    running.open()
    assert read(running.connect(), 2 * PAGE, PAGE) == ZEROS


def test_saved_map_that_is_damaged_is_not_believed(running: Running) -> None:
    start_dirty(running)
    running.stop()
    running.reboot()
    with running.paths.saved_map("g1").open("r+b") as file:
        file.seek(7)
        file.write(b"\x0f")
    running.open()
    assert set(pages_read(running.connect())[1:]) == {None}


# --- what nobody has written ---


def test_device_is_born_unknown(running: Running) -> None:
    running.open(known=False)
    pages = pages_read(running.connect())
    assert pages[0] is not None
    assert set(pages[1:]) == {None}
    stats = running.instance.stats()
    device = stats["devices"]["g1"]
    assert (device["unknown_pages"], device["unknown_reads"]) == (255, 255)
    assert (device["quarantined"], device["quarantined_reads"]) == (False, 0)
    assert stats["tmem"]["checksum_errors"] == 0


def test_reading_makes_nothing_known(running: Running) -> None:
    running.open(known=False)
    read(running.connect(), 0, PAGE)
    read(running.connect(), PAGE - 10, 10)
    running.connect().pwrite(page_of(9), 0)
    assert running.device.stats()["unknown_pages"] == 255


def test_part_of_an_unknown_page_cannot_be_written(running: Running) -> None:
    running.open(known=False)
    with pytest.raises(OSError, match="Input/output error"):
        running.connect().pwrite(b"part", 2 * PAGE)
    with pytest.raises(OSError, match="Input/output error"):
        running.connect().zero(100, 2 * PAGE)
    assert running.device.stats()["unknown_reads"] == 2


def test_guest_makes_pages_known(running: Running) -> None:
    running.open(known=False)
    connection = running.connect()
    connection.pwrite(page_of(1), PAGE)
    connection.pwrite(page_of(2), 2 * PAGE, FLAG_FUA)
    connection.trim(PAGE, 3 * PAGE)
    connection.zero(PAGE, 4 * PAGE)
    expected = page_of(1) + page_of(2) + ZEROS + ZEROS
    assert read(connection, PAGE, 4 * PAGE) == expected
    assert running.device.stats()["unknown_pages"] == 251
    running.kill()
    running.open()
    assert read(running.connect(), PAGE, 4 * PAGE) == expected
    check_coherence(running.instance)


def test_unknown_pages_are_no_holes(running: Running) -> None:
    running.open(known=False)
    assert running.connect().extents(MIB, 0) == [(0, MIB, False)]


@pytest.mark.parametrize("forget", ["swapoff", "mkswap"])
def test_operator_makes_pages_unknown(running: Running, forget: str) -> None:
    start_dirty(running)
    getattr(running.instance, forget)("g1")
    pages = pages_read(running.connect())
    assert pages[0] is not None
    assert set(pages[1:]) == {None}
    running.kill()
    running.open()
    assert set(pages_read(running.connect())[1:]) == {None}
    check_coherence(running.instance)


def test_trim_by_the_operator(running: Running) -> None:
    running.open(known=False)
    running.connect().pwrite(page_of(1), PAGE)
    assert running.instance.trim("g1") == 254
    assert read(running.connect(), PAGE) == page_of(1) + bytes(MIB - 2 * PAGE)


# --- the disk file is the one that was served ---


def copy_over(path: Path, other: Path) -> None:
    """As `rm` and `cp -a` do it."""
    other.unlink()
    shutil.copy2(path, other)


def kept_or_rebooted(running: Running, reboot: bool) -> None:
    if reboot:
        running.reboot()


@pytest.mark.parametrize("reboot", [False, True])
@pytest.mark.parametrize("stop", [False, True])
def test_disk_files_that_were_swapped_are_refused(
    running: Running, stop: bool, reboot: bool
) -> None:
    names = ["a", "b"]
    instance = running.open(*(DeviceSpec(name, MIB) for name in names))
    for name in names:
        instance.devices[name].connect().pwrite(page_of(1), PAGE, FLAG_FUA)
    if stop:
        running.stop()
    else:
        running.kill()
    kept_or_rebooted(running, reboot)
    a, b = (running.paths.disk_file(name) for name in names)
    a.rename(a.with_suffix(".tmp"))
    b.rename(a)
    a.with_suffix(".tmp").rename(b)
    for accept in (False, True):
        with pytest.raises(RefusedError, match=r"a\.img is the disk file of b, not that of a"):
            running.open(accept_moved=accept)


@pytest.mark.parametrize("reboot", [False, True])
@pytest.mark.parametrize("stop", [False, True])
def test_copy_of_a_disk_file_is_refused(running: Running, stop: bool, reboot: bool) -> None:
    start_dirty(running)
    if stop:
        running.stop()
    else:
        running.kill()
    kept_or_rebooted(running, reboot)
    path = running.paths.disk_file("g1")
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    path.rename(path.with_name("old"))
    copy.rename(path)
    with pytest.raises(RefusedError, match="is not the disk file that g1 had"):
        running.open()
    path.with_name("old").rename(path)
    running.open()


@pytest.mark.parametrize("reboot", [False, True])
def test_older_state_put_back_in_place(running: Running, reboot: bool) -> None:
    """With its inode: the token is older, or the time of its last change newer."""
    start_dirty(running)
    running.stop()
    path = running.paths.disk_file("g1")
    older = path.read_bytes()
    running.open()
    running.connect().pwrite(page_of(8), 2 * PAGE, FLAG_FUA)
    running.stop()
    path.write_bytes(older)
    kept_or_rebooted(running, reboot)
    running.open()
    assert pages_read(running.connect())[2] is None
    assert any("was changed while no server ran" in line for line in running.log)
    check_coherence(running.instance)


@pytest.mark.parametrize("reboot", [False, True])
@pytest.mark.parametrize("stop", [False, True])
def test_disk_file_that_was_cut_and_lengthened(running: Running, stop: bool, reboot: bool) -> None:
    start_dirty(running)
    if stop:
        running.stop()
    else:
        running.kill()
    path = running.paths.disk_file("g1")
    os.truncate(path, 2 * PAGE)
    os.truncate(path, MIB)
    kept_or_rebooted(running, reboot)
    running.open()
    assert pages_read(running.connect())[2] is None
    check_coherence(running.instance)


def test_older_sidecar_is_refused_on_the_same_boot(running: Running) -> None:
    start_dirty(running)
    running.stop()
    path = running.paths.sidecar("g1")
    older = path.read_bytes()
    running.open()
    running.connect().pwrite(page_of(8), 2 * PAGE)
    running.kill()
    path.write_bytes(older)
    with pytest.raises(RefusedError, match="is older than the device g1 in shared memory"):
        running.open()


@pytest.mark.parametrize("reboot", [False, True])
def test_touched_disk_file_costs_the_map_unless_accepted(running: Running, reboot: bool) -> None:
    start_dirty(running)
    running.instance.shrink(0)
    running.stop()
    kept_or_rebooted(running, reboot)
    running.paths.disk_file("g1").chmod(0o640)
    running.open()
    assert pages_read(running.connect())[1:3] == [None, None]
    assert any("--accept-moved" in line for line in running.log)


@pytest.mark.parametrize("reboot", [False, True])
def test_touched_disk_file_is_accepted_later_if_nothing_has_changed(
    running: Running, reboot: bool
) -> None:
    start_dirty(running)
    running.instance.shrink(0)
    running.stop()
    kept_or_rebooted(running, reboot)
    running.paths.disk_file("g1").chmod(0o640)
    for _ in range(2):  # an operator who has not read the log starts it once more
        running.open()
        assert pages_read(running.connect())[1:3] == [None, None]
        running.stop()
    running.open(accept_moved=True)
    expected = page_of(1) + page_of(2) + ZEROS
    assert read(running.connect(), PAGE, 3 * PAGE) == expected
    # Believed once, and right from then on.
    running.stop()
    running.reboot()
    running.open()
    assert read(running.connect(), PAGE, 3 * PAGE) == expected


@pytest.mark.parametrize("reboot", [False, True])
@pytest.mark.parametrize("stop", [False, True])
def test_moved_disk_file_is_accepted(running: Running, stop: bool, reboot: bool) -> None:
    start_dirty(running)
    assert running.instance.begin_sync().wait().complete
    if stop:
        running.stop()
    else:
        running.kill()
    kept_or_rebooted(running, reboot)
    path = running.paths.disk_file("g1")
    shutil.copyfile(path, path.with_name("moved"))
    path.unlink()
    path.with_name("moved").rename(path)
    running.open(accept_moved=True)
    expected = page_of(1) + page_of(2)
    assert read(running.connect(), PAGE, 2 * PAGE) == expected
    running.stop()
    running.open()
    assert read(running.connect(), PAGE, 2 * PAGE) == expected


@pytest.mark.parametrize("reboot", [False, True])
@pytest.mark.parametrize("stop", [False, True])
def test_pages_of_zeros_outlive_a_move(running: Running, stop: bool, reboot: bool) -> None:
    """cp leaves them out of the copy; a page on disk without a block would be lost."""
    start_dirty(running)
    running.connect().pwrite(ZEROS, 3 * PAGE, FLAG_FUA)
    assert running.instance.begin_sync().wait().complete
    if stop:
        running.stop()
    else:
        running.kill()
    kept_or_rebooted(running, reboot)
    path = running.paths.disk_file("g1")
    command = ["cp", "--archive", "--sparse=always", str(path), str(path.with_name("moved"))]
    subprocess.run(command, check=True)
    path.with_name("moved").rename(path)
    running.open(accept_moved=True)
    for _ in range(2):
        assert read(running.connect(), PAGE, 3 * PAGE) == page_of(1) + page_of(2) + ZEROS
        running.kill()
        running.open()


@pytest.mark.parametrize("reboot", [False, True])
def test_cut_disk_file_that_is_accepted_has_no_zeros(running: Running, reboot: bool) -> None:
    start_dirty(running)
    assert running.instance.begin_sync().wait().complete
    running.stop()
    kept_or_rebooted(running, reboot)
    path = running.paths.disk_file("g1")
    os.truncate(path, 2 * PAGE)
    os.truncate(path, MIB)
    running.open(accept_moved=True)
    for _ in range(2):
        assert pages_read(running.connect())[1:4] == [page_of(1), None, ZEROS]
        running.kill()
        running.open()


class KilledError(BaseException):
    """As if the process had ended here."""


def open_killed_at_new_token(
    running: Running, monkeypatch: pytest.MonkeyPatch, *, accept_moved: bool = False
) -> None:
    """Killed when the sidecar has a new token, and disk file and arena do not yet."""

    def renew(record: Record, sidecar: Sidecar) -> None:
        record.write(sidecar)
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(Record, "renew", renew)
        with pytest.raises(KilledError):
            running.open(accept_moved=accept_moved)


def test_killed_while_a_moved_disk_file_is_accepted(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_dirty(running)
    running.kill()
    path = running.paths.disk_file("g1")
    shutil.copyfile(path, path.with_name("moved"))
    path.with_name("moved").rename(path)
    open_killed_at_new_token(running, monkeypatch, accept_moved=True)
    running.open()
    assert read(running.connect(), PAGE, 2 * PAGE) == page_of(1) + page_of(2)


def test_killed_while_lost_pages_are_noted_on_a_file_system_without_attributes(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*arguments: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    for call in ("getxattr", "setxattr"):
        monkeypatch.setattr(os, call, unsupported)
    start_dirty(running)
    running.stop()
    path = running.paths.disk_file("g1")
    os.truncate(path, PAGE)
    os.truncate(path, MIB)
    running.paths.saved_map("g1").unlink()
    open_killed_at_new_token(running, monkeypatch)
    running.open()
    assert pages_read(running.connect())[1:3] == [page_of(1), None]


def test_hard_link_to_a_disk_file_that_is_served(running: Running, tmp_path: Path) -> None:
    start_dirty(running)
    with Running(tmp_path / "other") as other:
        os.link(running.paths.disk_file("g1"), other.paths.disk_file("g1"))
        shutil.copy(running.paths.sidecar("g1"), other.paths.sidecar("g1"))
        replace(other.sidecar(), boot_id="the boot before").write(other.paths.sidecar("g1"))
        with pytest.raises(RefusedError, match=r"g1\.img is in use by another process"):
            other.open()


@pytest.mark.skipif(shutil.which("qemu-io") is None, reason="qemu-utils is not installed")
def test_qemu_tools_find_a_disk_file_that_is_served_in_use(running: Running) -> None:
    start_dirty(running)
    path = str(running.paths.disk_file("g1"))
    command = ["qemu-io", "-f", "raw", "-c", "write 0 4k", path]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "lock" in refused.stdout + refused.stderr
    running.kill()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


# --- what an older release has left ---


def as_left_by_older_release(running: Running, **changes: object) -> None:
    """A sidecar without a token, a disk file that bears none, an arena that knows none."""
    path = running.paths.sidecar("g1")
    body = json.loads(path.read_text())
    for key in ("token", "prev", "inode", "clean", "ctime", "map"):
        del body[key]
    path.write_text(json.dumps(body | changes))
    running.paths.saved_map("g1").unlink()
    os.removexattr(running.paths.disk_file("g1"), ATTRIBUTE)


def test_upgrade_on_the_same_boot_keeps_everything(running: Running) -> None:
    start_dirty(running)
    running.kill()
    as_left_by_older_release(running)
    running.open()
    assert read(running.connect(), PAGE, 3 * PAGE) == page_of(1) + page_of(2) + ZEROS
    sidecar = running.sidecar()
    assert sidecar.token == identity_of(running.paths.disk_file("g1"), MIB).token != 0
    running.instance.begin_sync().wait()
    running.reboot()
    running.open()
    assert read(running.connect(), PAGE, 3 * PAGE) == page_of(1) + page_of(2) + ZEROS


@pytest.mark.parametrize("dirty", [False, True])
def test_upgrade_after_a_reboot_believes_no_holes(running: Running, dirty: bool) -> None:
    """That release was wrong about block devices, lost pages and cut disk files."""
    start_dirty(running)
    running.kill()
    as_left_by_older_release(running, tmem_dirty=dirty, boot_id="the boot before")
    shutil.rmtree(running.paths.shm_dir)
    running.paths.shm_dir.mkdir()
    running.open()
    pages = pages_read(running.connect())
    assert pages[0] is not None
    assert set(pages[1:]) == {None}


def test_zone_of_an_older_release_goes_to_disk(running: Running) -> None:
    """It kept those pages in memory, and trimmed ones in its map."""
    size = 16 * MIB
    with with_zone(lambda pages: (range(1),)):
        running.open(DeviceSpec("g1", size))
        connection = running.connect()
        connection.pwrite(page_of(1), PAGE)
        connection.pwrite(page_of(2), size - PAGE)
        connection.pwrite(page_of(3), 2 * PAGE, FLAG_FUA)
        connection.trim(PAGE, 2 * PAGE)
        running.kill()
        as_left_by_older_release(running)
    running.open()
    connection = running.connect()
    assert read(connection, PAGE, 2 * PAGE) == page_of(1) + ZEROS
    assert read(connection, size - PAGE, PAGE) == page_of(2)
    check_coherence(running.instance)
    running.reboot()
    running.open()
    connection = running.connect()
    assert read(connection, PAGE, 2 * PAGE) == page_of(1) + ZEROS
    assert read(connection, size - PAGE, PAGE) == page_of(2)


def test_device_that_an_older_release_had_quarantined(running: Running) -> None:
    """Only what is in memory was written since."""
    start_dirty(running)
    number = running.instance.served["g1"].entry.number
    running.kill()
    as_left_by_older_release(running)
    set_quarantine_word(running, number)
    running.open()
    pages = pages_read(running.connect())
    assert pages[1:4] == [page_of(1), None, None]
    running.kill()
    running.open()
    running.connect().trim(PAGE, 3 * PAGE)
    assert pages_read(running.connect())[3] == ZEROS


def set_quarantine_word(running: Running, number: int) -> None:
    """The seventh word of its entry; entries are 64 bytes."""
    with running.paths.arena.open("r+b") as file:
        file.seek(TABLE_AT + number * 64 + 48)
        file.write((1).to_bytes(8, "little"))


def test_older_release_that_served_it_in_between(running: Running) -> None:
    """It left the clean sidecar alone, made unknown pages lost, and wrote to disk."""
    running.open(known=False)
    running.connect().pwrite(page_of(1), PAGE, FLAG_FUA)
    running.stop()
    with running.paths.map("g1").open("r+b") as file:
        states = file.read()
        file.seek(0)
        file.write(states.replace(bytes([UNKNOWN]), bytes([LOST])))
    with running.paths.disk_file("g1").open("r+b") as file:
        file.seek(PAGE)
        file.write(page_of(7))
    running.log.clear()
    running.open()
    assert read(running.connect(), PAGE, PAGE) == page_of(7)
    assert not running.sidecar().clean
    assert running.log == []  # nobody else has changed the disk file


def test_older_release_that_has_changed_no_state_of_a_page(running: Running) -> None:
    """All pages are known, as a guest's `swapon --discard` makes them, and it wrote to disk where
    pages were on disk.  It frees the entry of what it takes for an adoption."""
    start_dirty(running)
    running.instance.close()
    [witness] = running.instance.maker.table.entries(WITNESS)
    assert witness.state == "adopting"
    witness.set_state("free")
    running.kill()
    with running.paths.disk_file("g1").open("r+b") as file:
        file.seek(2 * PAGE)
        file.write(page_of(7))
    running.log.clear()
    running.open()
    assert read(running.connect(), PAGE, 2 * PAGE) == page_of(1) + page_of(7)
    assert not running.sidecar().clean
    assert running.log == []
    assert running.instance.maker.table.entries(WITNESS)


def test_last_device_takes_the_place_of_the_witness(running: Running) -> None:
    running.open()
    table = running.instance.maker.table
    add, left = table.add, [1]

    def full(name: str, size: int, state: str) -> Entry:
        if left and left.pop():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return add(name, size, state)

    with patch.object(running.instance.maker, "table", wraps=table) as wrapped:
        wrapped.add = full
        running.instance.create("g2", MIB)
    assert table.entries(WITNESS) == []
    running.kill()
    running.open()
    assert set(running.instance.devices) == {"g1", "g2"}


def test_older_release_that_served_it_in_between_and_lost_a_page(running: Running) -> None:
    """What was saved of the page is older than what it lost."""
    running.open(known=False)
    running.connect().pwrite(page_of(1) + page_of(2), PAGE, FLAG_FUA)
    running.stop()
    with running.paths.map("g1").open("r+b") as file:
        states = file.read()
        file.seek(0)
        file.write(states.replace(bytes([UNKNOWN]), bytes([LOST])))
        file.seek(1)
        file.write(bytes([LOST]))
    running.paths.disk_file("g1").touch()
    running.open(accept_moved=True)
    assert pages_read(running.connect())[1:3] == [None, page_of(2)]


# --- several devices, other configurations ---


def test_devices_that_swap_places_keep_their_data(running: Running) -> None:
    one, two = DeviceSpec("a", MIB), DeviceSpec("b", MIB)
    for name, tag in (("a", 1), ("b", 2)):
        instance = running.open(one, two)
        instance.devices[name].connect().pwrite(page_of(tag), PAGE)
        running.kill()
    instance = running.open(two, one)
    assert [read(instance.devices[n].connect(), PAGE, PAGE) for n in "ab"] == [
        page_of(1),
        page_of(2),
    ]


def test_device_that_is_not_configured_stays(running: Running) -> None:
    start_dirty(running)
    running.kill()
    instance = running.open(DeviceSpec("other", MIB))
    assert instance.devices.keys() == {"g1", "other"}
    assert read(running.connect(), PAGE, PAGE) == page_of(1)


def test_type_is_never_used_again(running: Running) -> None:
    instance = running.open()
    first = running.device.type
    instance.remove("g1")
    instance.create("g1", MIB)
    assert instance.devices["g1"].type > first


def test_removed_but_configured_comes_back_empty(running: Running) -> None:
    start_dirty(running)
    running.instance.remove("g1")
    assert not list(running.paths.state_dir.iterdir())
    running.kill()
    running.open()
    assert read(running.connect(), PAGE, MIB - PAGE) == bytes(MIB - PAGE)


def test_created_device_stays(running: Running) -> None:
    running.open().create("more", MIB, "zstd")
    running.kill()
    assert running.open().devices["more"].compress == "zstd"


def test_create_refused_leaves_nothing(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(sidecar: Sidecar) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    instance = running.open()
    before = running.snapshot().keys()
    with monkeypatch.context() as patched:
        patched.setattr(Sidecar, "content", write)
        with pytest.raises(RefusedError, match="the device more cannot be made: No space left"):
            instance.create("more", MIB)
    assert running.snapshot().keys() == before
    instance.create("more", MIB)


def test_create_after_a_removal_that_failed(running: Running) -> None:
    """With another size, too: what is left of it is removed first."""
    instance = running.open()
    running.paths.map("g1").unlink()
    running.paths.map("g1").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        instance.remove("g1")
    with pytest.raises(RefusedError, match=r"the device g1 cannot be made: .*g1\.map"):
        instance.create("g1", MIB)
    running.paths.map("g1").rmdir()
    instance.create("g1", 2 * MIB)
    assert running.paths.disk_file("g1").stat().st_size == 2 * MIB


def test_too_many_devices_are_refused(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preswapd.preswap.settings.MOST_DEVICES", 2)
    running.open().create("more", MIB)
    with pytest.raises(RefusedError, match="at most 2 devices"):
        running.instance.create("toomany", MIB)
    assert set(running.instance.devices) == {"g1", "more"}


def test_too_many_configured_devices_change_nothing(running: Running) -> None:
    specs = [DeviceSpec(f"d{number}", MIB) for number in range(512)]
    with pytest.raises(RefusedError, match="at most 511 devices"):
        running.open(*specs)
    assert not running.snapshot()


def test_open_failed_names_the_file(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    running.open()
    running.kill()
    disk_file = str(running.paths.disk_file("g1"))

    def open_disk_file(path: Path) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr("preswapd.preswap.creation.open_disk_file", open_disk_file)
    with pytest.raises(RefusedError, match=f"Read-only file system .{disk_file}"):
        running.open()


def test_create_refused_over_somebodys_file(running: Running) -> None:
    instance = running.open()
    running.paths.disk_file("more").write_bytes(bytes(MIB - 1) + b"x")
    with pytest.raises(RefusedError, match="belongs to no device"):
        instance.create("more", MIB)
    assert running.paths.disk_file("more").stat().st_size == MIB


def test_write_after_remove_leaves_no_sidecar(running: Running) -> None:
    """The client of a device that was removed has not noticed."""
    instance = running.open()
    connection = running.connect()
    instance.remove("g1", force=True)
    with pytest.raises(OSError, match="transport endpoint shutdown"):
        connection.pwrite(page_of(1), PAGE)
    assert not running.paths.sidecar("g1").exists()


# --- discard ---


def test_discard_empties_everything(running: Running) -> None:
    start_dirty(running)
    running.kill()
    running.paths.arena.unlink()
    running.open(discard=True)
    connection = running.connect()
    assert read(connection, 0, PAGE).endswith(b"SWAPSPACE2")
    assert read(connection, PAGE) == bytes(MIB - PAGE)


def test_discard_is_not_complained_of(running: Running) -> None:
    start_dirty(running)
    running.kill()
    running.open(discard=True)
    assert running.log == []


def test_discard_knows_nothing(running: Running) -> None:
    start_dirty(running)
    running.kill()
    running.settings = replace(running.settings, discard_state=True)
    running.opened = Instance(running.settings, lambda level, text: None)
    assert set(pages_read(running.connect())[1:]) == {None}


def test_discard_keeps_devices(running: Running) -> None:
    running.open().create("more", 2 * MIB)
    running.kill()
    assert running.open(discard=True).devices["more"].size == 2 * MIB


def test_discard_takes_damaged_sidecars(running: Running) -> None:
    start_dirty(running)
    running.kill()
    running.paths.sidecar("g1").write_bytes(b"?")
    assert running.open(discard=True).devices.keys() == {"g1"}


def test_discard_checks_nothing_of_what_it_discards(running: Running) -> None:
    start_dirty(running)
    running.kill()
    running.paths.arena.write_bytes(b"?")
    check(replace(running.settings, discard_state=True))
