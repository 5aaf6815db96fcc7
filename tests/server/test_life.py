# SPDX-License-Identifier: BSD-3-Clause
"""What a server takes itself to know of its pages: over ends, reboots, and hands on its files.

A page that it cannot vouch for is an I/O error until it is written or trimmed: never zeros, never
an older version, never another device's.
"""

import errno
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nbd
import pytest

from preswapd.preswap.files.zone import zone
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, Connect, clients, connected, discard
from tests.conftest import StartServer
from tests.running import RunningServer, run
from tests.tmem.arena_file import flip_bit, slots_of

MIB = 1 << 20
OLD = random.Random(1).randbytes(100 * PAGE)
NEW = random.Random(2).randbytes(100 * PAGE)
FUA = nbd.CMD_FLAG_FUA
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="a loop device needs root")


@pytest.fixture
def connect() -> Iterator[Connect]:
    with clients() as make:
        yield make


def place(number: int) -> int:
    """Of a hundred pages where guests swap."""
    return BEHIND_ZONE + number * PAGE


def states(client: Any) -> list[bytes | None]:
    """Each of the hundred pages; None for an I/O error."""
    found: list[bytes | None] = []
    for number in range(100):
        try:
            found.append(bytes(client.pread(PAGE, place(number))))
        except nbd.Error as error:
            assert error.errnum == errno.EIO  # noqa: PT017 - what it is read as
            found.append(None)
    return found


def pages(content: bytes) -> list[bytes | None]:
    return [content[at : at + PAGE] for at in range(0, len(content), PAGE)]


UNKNOWN: list[bytes | None] = [None] * 100
ZEROS: list[bytes | None] = [bytes(PAGE)] * 100


def check_mends(client: Any) -> None:
    """A write and a trim make pages known again, one by one."""
    client.pwrite(NEW[:PAGE], place(0))
    client.trim(PAGE, place(1))
    assert states(client)[:2] == [NEW[:PAGE], bytes(PAGE)]


def to_disk(server: RunningServer) -> None:
    server.ctl("shrink", "0")


def refused(server: RunningServer) -> str:
    """What the start says that is not to be, in one line."""
    done = run(server.command())
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    return done.stderr


def lose_memory(server: RunningServer) -> None:
    """Of a server that was stopped cleanly, and no reboot of the host."""
    for path in server.shm_dir.iterdir():
        path.unlink()


# --- a device begins ---


def test_device_of_another_server_is_not_taken_for_this_one(
    start_server: StartServer, connect: Connect
) -> None:
    """As when a guest was moved to another host, and its swap was not."""
    first, second = start_server(), start_server()
    connect(first).pwrite(OLD, place(0))
    arrived = connect(second)
    assert states(arrived) == UNKNOWN
    check_mends(arrived)


def test_fresh_guest_meets_no_error(server: RunningServer, connect: Connect) -> None:
    """What it reads before it writes: the scan zone, as the header left it."""
    client = connect(server)
    count = client.get_size() // PAGE
    for part in zone(count):
        found = bytes(client.pread(len(part) * PAGE, part.start * PAGE))
        assert not any(found[PAGE if part.start == 0 else 0 :])
    assert bytes(client.pread(10, PAGE - 10)) == b"SWAPSPACE2"


def discarded_state(server: RunningServer) -> None:
    server.stop()
    server.extra = ["--discard-state"]
    server.start()


def made_anew(server: RunningServer) -> None:
    server.ctl("remove", "g1", "--yes")
    server.ctl("create", "g1", "64M")


def swapped_off(server: RunningServer) -> None:
    server.ctl("swapoff", "g1", "--yes")


def header_written(server: RunningServer) -> None:
    server.ctl("mkswap", "g1", "--force")


@pytest.mark.parametrize("change", [discarded_state, made_anew, swapped_off, header_written])
def test_guest_that_was_there_before_meets_errors_and_no_zeros(
    server: RunningServer, connect: Connect, change: Callable[[RunningServer], None]
) -> None:
    client = connect(server)
    client.pwrite(OLD, place(0))
    to_disk(server)
    client.pwrite(NEW[: 50 * PAGE], place(0))
    client.shutdown()
    change(server)
    again = connect(server)
    assert states(again) == UNKNOWN
    assert server.json_stats()["devices"]["g1"]["unknown_reads"] == 100
    check_mends(again)
    assert states(discard(again)) == ZEROS


# --- the host is rebooted ---


def nothing(server: RunningServer) -> None:
    pass


def page_zero(server: RunningServer) -> None:
    connected(server).pread(PAGE, 0)


def page_zero_hibernated(server: RunningServer) -> None:
    """The guest's image lies on this disk."""
    client = connected(server)
    client.pwrite(b"S1SUSPEND\0", PAGE - 10, flags=FUA)
    client.pread(PAGE, 0)


def nbdinfo(server: RunningServer) -> None:
    assert run(["nbdinfo", server.nbd_uri()]).returncode == 0


def nbdcopy(server: RunningServer) -> None:
    copy = server.base / "copy"
    assert run(["nbdcopy", server.nbd_uri(), str(copy)]).returncode == 1


def qemu_io(server: RunningServer) -> None:
    done = run(["qemu-io", "-r", "-f", "raw", server.nbd_uri(), "-c", "read 0 4k"])
    assert done.returncode == 0


def partition_scan(server: RunningServer) -> None:
    client = connected(server)
    for part in zone(client.get_size() // PAGE):
        client.pread(len(part) * PAGE, part.start * PAGE)


@pytest.mark.parametrize(
    "look",
    [nothing, page_zero, page_zero_hibernated, nbdinfo, nbdcopy, qemu_io, partition_scan],
)
def test_no_look_at_the_disk_makes_it_known_after_a_reboot(
    server: RunningServer, connect: Connect, look: Callable[[RunningServer], None]
) -> None:
    """On disk there are older versions of half of the pages, and zeros of the others."""
    client = connect(server)
    client.pwrite(OLD[: 50 * PAGE], place(0))
    to_disk(server)
    client.pwrite(NEW, place(0))
    server.kill()
    server.reboot()
    server.start()
    server.wait_for_line("the pages of g1 were not saved before the host's reboot")
    look(server)
    again = connect(server)
    assert states(again) == UNKNOWN
    check_mends(again)


def test_scan_zone_outlives_a_kill_and_a_reboot(server: RunningServer, connect: Connect) -> None:
    client = connect(server)
    client.pwrite(OLD, PAGE)
    client.trim(10 * PAGE, 5 * PAGE)
    client.flush()
    server.kill()
    server.reboot()
    server.start()
    found = bytes(connect(server).pread(len(OLD), PAGE))
    assert found == OLD[: 4 * PAGE] + bytes(10 * PAGE) + OLD[14 * PAGE :]


@pytest.mark.parametrize("after", [lose_memory, RunningServer.reboot])
def test_clean_stop_keeps_what_is_on_disk_and_what_is_zeros(
    server: RunningServer, connect: Connect, after: Callable[[RunningServer], None]
) -> None:
    """What was in memory only is unknown; what no guest has written stays so."""
    client = connect(server)
    client.pwrite(OLD[: 40 * PAGE], place(0), flags=FUA)
    client.trim(20 * PAGE, place(20))
    client.pwrite(NEW[: 30 * PAGE], place(50))
    expected = states(client)
    expected[50:80] = [None] * 30
    assert server.stop() == 0
    after(server)
    server.start()
    assert states(connect(server)) == expected
    # Read only: a second reboot finds the same.
    assert server.stop() == 0
    server.reboot()
    server.start()
    assert states(connect(server)) == expected
    # Ended in any way: nothing has changed since.
    server.kill()
    server.reboot()
    server.start()
    assert states(connect(server)) == expected


def test_first_change_after_a_clean_stop_ends_what_was_saved(
    server: RunningServer, connect: Connect
) -> None:
    connect(server).pwrite(OLD, place(0), flags=FUA)
    server.restart()
    connect(server).pwrite(NEW[:PAGE], place(7))
    server.kill()
    server.reboot()
    server.start()
    page_zero(server)
    assert states(connect(server)) == UNKNOWN


@pytest.mark.parametrize("change", [swapped_off, header_written, to_disk])
def test_operators_change_of_a_clean_device_ends_what_was_saved(
    server: RunningServer, connect: Connect, change: Callable[[RunningServer], None]
) -> None:
    client = connect(server)
    client.pwrite(OLD, place(0))
    to_disk(server)
    client.pwrite(NEW[: 50 * PAGE], place(0))
    client.shutdown()
    server.restart()
    change(server)
    server.kill()
    server.reboot()
    server.start()
    page_zero(server)
    assert states(connect(server)) == UNKNOWN


@pytest.mark.parametrize("change", [swapped_off, header_written])
def test_what_an_operator_forgot_stays_forgotten(
    server: RunningServer, connect: Connect, change: Callable[[RunningServer], None]
) -> None:
    """Through clean stops, with shared memory and without."""
    connect(server).pwrite(OLD, place(0), flags=FUA)
    server.restart()
    change(server)
    server.restart()
    assert states(connect(server)) == UNKNOWN
    server.stop()
    server.reboot()
    server.start()
    assert states(connect(server)) == UNKNOWN


@pytest.mark.parametrize("request_name", ["zero", "trim"])
def test_zeros_that_were_answered_before_a_clean_stop_stay_zeros(
    server: RunningServer, connect: Connect, request_name: str
) -> None:
    """Of a clean device, and at once: the blocks of the disk file are not given back yet."""
    connect(server).pwrite(OLD, place(0), flags=FUA)
    server.restart()
    client = connect(server)
    getattr(client, request_name)(100 * PAGE, place(0))
    client.flush()
    server.stop()
    server.reboot()
    server.start()
    assert states(connect(server)) == ZEROS


def test_lost_page_stays_lost(server: RunningServer, connect: Connect) -> None:
    client = connect(server)
    client.pwrite(OLD, place(0))
    server.settled_stats()
    (slot,) = (slot for slot in slots_of(server.arena) if slot.page == OLD[5 * PAGE : 6 * PAGE])
    flip_bit(server.arena, slot.payload_at + 1000, 3)
    assert states(client)[5] is None
    to_disk(server)
    expected = pages(OLD)
    expected[5] = None
    for _ in range(2):
        assert server.stop() == 0
        server.reboot()
        server.start()
        again = connect(server)
        assert states(again) == expected
        assert server.json_stats()["devices"]["g1"]["lost_pages"] == 1
    again.trim(PAGE, place(5))
    assert states(again)[5] == bytes(PAGE)


# --- on a block device ---


@pytest.fixture
def on_block_device(tmp_path: Path, start_server: StartServer) -> Iterator[Callable[..., Any]]:
    """Starts a server whose g1 lies on a loop device so many bytes longer than it."""
    with ExitStack() as stack:

        def start(longer: int) -> RunningServer:
            backing = tmp_path / "backing"
            with backing.open("wb") as file:
                file.write(b"its last user's bytes".ljust(32) * (4 * MIB // 32))
                file.truncate(64 * MIB + longer)
            made = run(["losetup", "--find", "--show", str(backing)])
            if made.returncode:
                pytest.skip(f"no loop device: {made.stderr.strip()}")
            disk = made.stdout.strip()
            stack.callback(subprocess.run, ["losetup", "--detach", disk], check=True)
            server = start_server(tmp=tmp_path, start=False)
            server.state_dir.mkdir(mode=0o700)
            server.paths.disk_file("g1").symlink_to(disk)
            server.start()
            stack.callback(server.kill)
            return server

        yield start


@NEEDS_ROOT
@pytest.mark.skipif(shutil.which("losetup") is None, reason="there is no losetup")
@pytest.mark.xdist_group("block-devices")
@pytest.mark.parametrize("after", [lose_memory, RunningServer.reboot])
@pytest.mark.parametrize("longer", [0, MIB])
def test_clean_stop_on_a_block_device(
    on_block_device: Callable[..., Any],
    connect: Connect,
    longer: int,
    after: Callable[[RunningServer], None],
) -> None:
    """Where it has room for a token its pages are known; else another disk might have been put in
    its place, and they are errors."""
    server = on_block_device(longer)
    client = connect(server)
    assert not any(client.pread(100 * PAGE, PAGE))
    client.pwrite(OLD, place(0))
    server.ctl("sysctl", "vm.preswap=0")
    assert server.stop() == 0
    after(server)
    server.start()
    assert states(connect(server)) == (pages(OLD) if longer else UNKNOWN)


# --- hands on the files, while no server runs ---


@pytest.mark.parametrize("is_rebooted", [False, True])
def test_disk_file_that_was_cut_and_lengthened_again(
    server: RunningServer, connect: Connect, is_rebooted: bool
) -> None:
    connect(server).pwrite(OLD[: 50 * PAGE], place(0), flags=FUA)
    connect(server).pwrite(NEW[: 50 * PAGE], place(50))
    server.stop()
    image = server.paths.disk_file("g1")
    size = image.stat().st_size
    os.truncate(image, place(20) + 100)
    os.truncate(image, size)
    if is_rebooted:
        server.reboot()
    server.start()
    server.wait_for_line(f"{image} was changed while no server ran")
    in_memory = [None] * 50 if is_rebooted else pages(NEW)[:50]
    assert states(connect(server)) == [None] * 50 + in_memory


def test_disk_file_that_was_cut_under_a_killed_server(
    server: RunningServer, connect: Connect
) -> None:
    """What lacks its blocks is lost.  The page cut through cannot be told: it is no whole page."""
    connect(server).pwrite(OLD, place(0), flags=FUA)
    server.kill()
    image = server.paths.disk_file("g1")
    size = image.stat().st_size
    os.truncate(image, place(20))
    os.truncate(image, size)
    server.start()
    assert states(connect(server)) == pages(OLD)[:20] + [None] * 80


@pytest.fixture
def pair(start_server: StartServer, connect: Connect) -> RunningServer:
    """Two devices of one size, one with OLD and one with NEW on disk."""
    server = start_server(devices={"g1": "64M", "g2": "64M"})
    connect(server, "g1").pwrite(OLD, place(0), flags=FUA)
    connect(server, "g2").pwrite(NEW, place(0), flags=FUA)
    return server


@pytest.mark.parametrize("is_rebooted", [False, True])
@pytest.mark.parametrize("is_killed", [False, True])
def test_disk_files_that_were_swapped_are_refused(
    pair: RunningServer, connect: Connect, is_killed: bool, is_rebooted: bool
) -> None:
    one, other = pair.paths.disk_file("g1"), pair.paths.disk_file("g2")
    if is_killed:
        pair.kill()
    else:
        pair.stop()
    if is_rebooted:
        pair.reboot()
    swap(one, other)
    assert f"{one} is the disk file of g2, not that of g1" in refused(pair)
    swap(one, other)
    pair.start()
    if is_killed and not is_rebooted:
        assert states(connect(pair, "g1")) == pages(OLD)
        assert states(connect(pair, "g2")) == pages(NEW)


def swap(one: Path, other: Path) -> None:
    aside = one.with_suffix(".aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def test_copy_of_the_disk_file_is_refused(server: RunningServer, connect: Connect) -> None:
    """With all its attributes, as a restored backup has them."""
    connect(server).pwrite(OLD, place(0), flags=FUA)
    server.stop()
    image = server.paths.disk_file("g1")
    copied = run(["cp", "-a", str(image), f"{image}.copy"])
    assert copied.returncode == 0
    Path(f"{image}.copy").replace(image)
    assert f"{image} is not the disk file that g1 had" in refused(server)


@pytest.mark.parametrize("is_rebooted", [False, True])
@pytest.mark.parametrize("what", ["*", "*.json", "*.map"])
def test_older_copy_of_the_state_directory_is_not_believed(
    server: RunningServer, connect: Connect, what: str, is_rebooted: bool
) -> None:
    """All of it, or a part; the copy is of a clean stop, so that it fits together."""
    connect(server).pwrite(OLD, place(0), flags=FUA)
    server.stop()
    backup = server.base / "backup"
    assert run(["cp", "-a", str(server.state_dir), str(backup)]).returncode == 0
    server.start()
    connect(server).pwrite(NEW[: 99 * PAGE], place(0), flags=FUA)
    connect(server).trim(PAGE, place(99))
    server.stop()
    newer = server.state_dir.with_name("newer")
    newer.mkdir()
    for path in backup.glob(what):
        # Moved away first, so that the copy does not get its inode.
        (server.state_dir / path.name).rename(newer / path.name)
        assert run(["cp", "-a", str(path), str(server.state_dir)]).returncode == 0
    if is_rebooted:
        server.reboot()
    if what == "*.map":
        server.start()
        server.wait_for_line(f"{server.paths.saved_map('g1')} is damaged or missing")
        newest = [*pages(NEW)[:99], bytes(PAGE)]
        assert states(connect(server)) == (UNKNOWN if is_rebooted else newest)
    elif is_rebooted:
        assert "g1.img is not the disk file that g1 had" in refused(server)
    else:
        assert "is older than the device g1 in shared memory" in refused(server)


@pytest.mark.skipif(shutil.which("qemu-io") is None, reason="qemu-io is not installed")
def test_disk_file_is_locked_against_qemus_tools(server: RunningServer) -> None:
    image = str(server.paths.disk_file("g1"))
    done = run(["qemu-io", "-f", "raw", image, "-c", "write 8M 4k"])
    assert done.returncode == 1
    assert "lock" in done.stderr
