# SPDX-License-Identifier: BSD-3-Clause
"""What a start makes of what it finds: stops, kills, reboots and other configurations."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from preswapd.errors import RefusedError
from preswapd.preswap.device._device import FLAG_FUA
from preswapd.preswap.files.sidecar import Sidecar
from preswapd.preswap.opening import check
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import LOST, check_coherence
from tests.preswap.disk_model import page_of
from tests.preswap.running import MIB, Running, read

ZEROS = bytes(PAGE)


def start_dirty(running: Running) -> None:
    """With page 1 in tmem, page 2 and the header on disk."""
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


def test_sidecar_dirty_from_the_first_put(running: Running) -> None:
    running.open()
    running.connect().pwrite(page_of(1), PAGE, FLAG_FUA)
    assert not running.sidecar().tmem_dirty
    running.connect().pwrite(page_of(1), PAGE)
    assert running.sidecar().tmem_dirty


def test_stop_with_pages_stays_dirty(running: Running) -> None:
    start_dirty(running)
    running.stop()
    assert running.sidecar().tmem_dirty


def test_stop_empty_is_clean(running: Running) -> None:
    start_dirty(running)
    running.instance.shrink(0)
    running.stop()
    assert not running.sidecar().tmem_dirty


def test_stop_empty_after_restart_is_clean(running: Running) -> None:
    start_dirty(running)
    running.kill()
    running.open()
    running.connect().trim(2 * PAGE, PAGE)
    running.stop()
    assert not running.sidecar().tmem_dirty


def test_dirty_sidecar_that_cannot_be_written_keeps_tmem_closed(running: Running) -> None:
    running.open()
    blocker = running.paths.state_dir / "g1.json.new"
    blocker.mkdir()
    connection = running.connect()
    connection.pwrite(page_of(1), PAGE)
    assert (running.device.preswap_pages, running.device.disk_pages) == (0, 2)
    blocker.rmdir()
    connection.pwrite(page_of(2), PAGE)
    assert running.device.preswap_pages == 1


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


def test_reboot_keeps_page_zero_and_fua(running: Running) -> None:
    start_dirty(running)
    running.reboot()
    running.open()
    connection = running.connect()
    assert read(connection, 0, PAGE).endswith(b"SWAPSPACE2")
    assert read(connection, 2 * PAGE, PAGE) == page_of(2)


def test_reboot_drops_tmem(running: Running) -> None:
    start_dirty(running)
    running.reboot()
    running.open()
    connection = running.connect()
    read(connection, 0, PAGE)
    assert read(connection, PAGE, PAGE) == ZEROS


def test_reboot_clean_device_serves_at_once(running: Running) -> None:
    start_dirty(running)
    running.instance.shrink(0)
    running.stop()
    running.reboot()
    running.open()
    assert not running.device.quarantined
    assert read(running.connect(), PAGE, 2 * PAGE) == page_of(1) + page_of(2)


def test_reboot_clean_device_has_no_trimmed_page(running: Running) -> None:
    """Not even one that went to disk, back to tmem and was trimmed there."""
    start_dirty(running)
    connection = running.connect()
    connection.pwrite(page_of(3), 2 * PAGE)
    connection.trim(2 * PAGE, PAGE)
    running.stop()
    running.reboot()
    running.open()
    assert read(running.connect(), PAGE, 2 * PAGE) == 2 * ZEROS


def test_reboot_clean_device_has_no_page_trimmed_before_a_kill(running: Running) -> None:
    start_dirty(running)
    running.connect().trim(2 * PAGE, PAGE)
    running.kill()
    running.open()
    running.stop()
    running.reboot()
    running.open()
    assert read(running.connect(), PAGE, 2 * PAGE) == 2 * ZEROS


# --- quarantine ---


@pytest.fixture
def rebooted(running: Running) -> Running:
    start_dirty(running)
    running.reboot()
    running.open()
    return running


def is_refused(running: Running) -> bool:
    try:
        read(running.connect(), 2 * PAGE, PAGE)
    except OSError as error:
        return error.errno == errno.EIO
    return False


def test_quarantine_refuses_reads(rebooted: Running) -> None:
    assert rebooted.device.quarantined
    assert is_refused(rebooted)


def test_quarantine_is_no_damage(rebooted: Running) -> None:
    assert is_refused(rebooted)
    with pytest.raises(OSError, match="Input/output error"):
        rebooted.connect().pwrite(b"part", 2 * PAGE)
    stats = rebooted.instance.stats()
    assert stats["tmem"]["checksum_errors"] == 0
    assert stats["devices"]["g1"]["quarantined_reads"] == 2


def test_quarantine_not_lifted_by_the_first_sector(rebooted: Running) -> None:
    """QEMU reads it at every start."""
    read(rebooted.connect(), 0, 512)
    assert is_refused(rebooted)


def test_quarantine_not_lifted_short_of_the_signature(rebooted: Running) -> None:
    read(rebooted.connect(), 0, PAGE - 1)
    assert is_refused(rebooted)


def test_quarantine_lifted_by_the_signature(rebooted: Running) -> None:
    read(rebooted.connect(), PAGE - 10, 10)
    assert not is_refused(rebooted)


def test_quarantine_lifted_by_a_write_to_page_zero(rebooted: Running) -> None:
    rebooted.connect().pwrite(page_of(9), 0)
    assert not is_refused(rebooted)


def test_quarantine_lifted_by_mkswap(rebooted: Running) -> None:
    rebooted.instance.mkswap("g1")
    assert not is_refused(rebooted)


def test_quarantine_not_lifted_by_other_writes(rebooted: Running) -> None:
    rebooted.connect().pwrite(page_of(9), PAGE)
    assert is_refused(rebooted)


def test_quarantine_refuses_the_rest_of_a_page(rebooted: Running) -> None:
    """A part of a page can't be written without reading the rest."""
    with pytest.raises(OSError, match="Input/output error"):
        rebooted.connect().pwrite(b"part", 2 * PAGE)
    assert is_refused(rebooted)


def test_quarantine_has_no_holes(rebooted: Running) -> None:
    extents = rebooted.connect().extents(MIB, 0)
    assert extents == [(0, MIB, False)]


def test_quarantine_survives_a_kill(rebooted: Running) -> None:
    rebooted.kill()
    rebooted.open()
    assert is_refused(rebooted)


def test_quarantine_survives_a_stop(rebooted: Running) -> None:
    rebooted.stop()
    assert rebooted.sidecar().tmem_dirty
    rebooted.open()
    assert is_refused(rebooted)


def test_quarantine_lifted_stays_lifted(rebooted: Running) -> None:
    read(rebooted.connect(), 0, PAGE)
    rebooted.kill()
    rebooted.open()
    assert not is_refused(rebooted)


def test_quarantine_survives_another_reboot(rebooted: Running) -> None:
    rebooted.reboot()
    rebooted.open()
    assert is_refused(rebooted)


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
    def write(sidecar: Sidecar, path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    instance = running.open()
    before = running.snapshot().keys()
    with monkeypatch.context() as patched:
        patched.setattr(Sidecar, "write", write)
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
    assert not running.device.quarantined


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
