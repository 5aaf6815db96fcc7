# SPDX-License-Identifier: BSD-3-Clause
"""The disk file fails: the guest gets the disk's error, what was there is served on."""

import errno
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nbd
import pytest

from preswapd.preswap.files.sidecar import Sidecar
from preswapd.preswap.files.zone import zone
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import Connect, answered, begun, discard
from tests.conftest import StartServer
from tests.faults.conftest import (
    MIB,
    NOISE,
    counters,
    error_of,
    mounted,
    page,
    place,
    places,
)
from tests.faults.injection import HOLD, Call, Injector
from tests.running import RunningServer, wait_until

FUA = nbd.CMD_FLAG_FUA
QUOTA = "preswap.default.g1.quota"
IMAGE = "/g1.img"
# NBD has few numbers: what it lacks is EPERM (a read-only file), ENOSPC or EIO.
ERRORS = [
    (errno.EIO, errno.EIO),
    (errno.EDQUOT, errno.ENOSPC),
    (errno.EROFS, errno.EPERM),
    (errno.ETIMEDOUT, errno.EIO),
]


@pytest.fixture
def client(faulty: RunningServer, connect: Connect) -> Any:
    """Pages 1 to 8 in tmem, 11 to 18 on disk."""
    return filled(connect(faulty))


@pytest.fixture
def shared(module_faulty: RunningServer, connect: Connect) -> Any:
    """The same, on a server that other tests use too."""
    return filled(connect(module_faulty))


def filled(client: Any) -> Any:
    client.pwrite(NOISE[PAGE : 9 * PAGE], place(1))
    client.pwrite(NOISE[11 * PAGE : 19 * PAGE], place(11), flags=FUA)
    return client


def check(client: Any, *numbers: int) -> None:
    for number in numbers:
        assert bytes(client.pread(PAGE, place(number))) == page(number)


# --- errors ---


@pytest.mark.parametrize(("error", "seen"), ERRORS, ids=lambda number: errno.errorcode[number])
def test_write_error_is_the_disks_and_the_old_pages_stay(
    shared: Any, injector: Injector, error: int, seen: int
) -> None:
    injector.fail(Call.WRITE, IMAGE, error)
    for number in (1, 11):
        assert error_of(shared.pwrite, page(99), place(number), flags=FUA) == seen
    check(shared, *range(1, 9), *range(11, 19))


def test_write_error_of_a_rejected_put(
    start_server: StartServer, injector: Injector, connect: Connect
) -> None:
    options = {"env": injector.env, "pool_size": "4M", "extra": ["--writeback-room=off"]}
    client = discard(connect(start_server(**options)))
    client.pwrite(NOISE[: 8 * MIB - PAGE], place(1))
    injector.fail(Call.WRITE, IMAGE, errno.EIO)
    assert error_of(client.pwrite, page(1), place(3000)) == errno.EIO
    assert bytes(client.pread(PAGE, place(3000))) == bytes(PAGE)
    assert bytes(client.pread(8 * MIB - PAGE, place(1))) == NOISE[: 8 * MIB - PAGE]


def test_write_error_of_one_page_concerns_no_other(shared: Any, injector: Injector) -> None:
    injector.fail(Call.WRITE, IMAGE, errno.EIO, pages=places(14, 15))
    assert error_of(shared.pwrite, page(99), place(14), flags=FUA) == errno.EIO
    for number in (13, 15):
        shared.pwrite(page(number), place(number), flags=FUA)
    check(shared, 13, 14, 15)


def test_read_error_of_one_page_concerns_no_other(shared: Any, injector: Injector) -> None:
    injector.fail(Call.READ, IMAGE, errno.EIO, pages=places(14, 15))
    assert error_of(shared.pread, PAGE, place(14)) == errno.EIO
    check(shared, *range(1, 9), 13, 15)


def test_read_error_loses_no_page(shared: Any, injector: Injector) -> None:
    injector.fail(Call.READ, IMAGE, errno.EIO)
    assert error_of(shared.pread, 8 * PAGE, place(11)) == errno.EIO
    assert error_of(shared.pwrite, b"part", place(12) + 5) == errno.EIO
    injector.end()
    check(shared, *range(11, 19))


def test_flush_error_is_the_disks(shared: Any, injector: Injector) -> None:
    injector.fail(Call.SYNC, IMAGE, errno.EIO)
    assert error_of(shared.flush) == errno.EIO
    assert error_of(shared.pwrite, page(99), place(11), flags=FUA) == errno.EIO


def test_sync_that_failed_in_the_page_cache_stays_failed(
    tmp_path: Path,
    injector: Injector,
    start_server: StartServer,
    connect: Connect,
    stack: ExitStack,
) -> None:
    """The kernel would say that all is well, and has lost what it could not write."""
    mounted(stack, tmp_path / "state", "-t", "ramfs", "-o", "mode=700", "none")  # no O_DIRECT there
    server = start_server(tmp=tmp_path, env=injector.env)
    client = filled(connect(server))
    injector.fail(Call.SYNC, IMAGE, errno.EIO)
    assert error_of(client.flush) == errno.EIO
    injector.end()
    assert error_of(client.flush) == errno.EIO
    assert error_of(client.pwrite, page(99), place(30), flags=FUA) == errno.EIO
    client.pwrite(page(20), place(20))
    check(client, *range(1, 9), *range(11, 19), 20)


@pytest.fixture
def workers(start_server: StartServer, injector: Injector) -> RunningServer:
    """It has four threads for each client, also where nbdkit has one if nobody asks."""
    return start_server(env=injector.env, extra=["--threads=4"])


def test_two_syncs_at_once_that_fail(
    workers: RunningServer, injector: Injector, connect: Connect
) -> None:
    """The kernel tells one of them only: so one waits for the other, and asks anew."""
    client = filled(connect(workers))
    injector.set(Call.SYNC, IMAGE, None, error=errno.EIO, hold=1)
    first = begun(client, page(30), place(30), FUA)
    injector.wait()
    second = begun(client, page(31), place(31), FUA)
    wait_for_write(client, workers, 31)
    client.poll(200)
    assert (first, second, injector.caught) == ([], [], 1)
    injector.put(HOLD, 0)
    assert answered(client, first) == errno.EIO
    assert answered(client, second) == errno.EIO
    assert injector.caught == 2


def test_syncs_that_wait_share_one(
    workers: RunningServer, injector: Injector, connect: Connect
) -> None:
    """Three that come while one is under way take fewer than three."""
    client = filled(connect(workers))
    injector.hold(Call.SYNC, IMAGE)
    answers = [begun(client, page(30), place(30), FUA)]
    injector.wait()
    for at in (31, 32, 33):
        answers.append(begun(client, page(at), place(at), FUA))
        wait_for_write(client, workers, at)
    client.poll(200)
    injector.put(HOLD, 0)
    assert [answered(client, each) for each in answers] == [0] * 4
    assert injector.caught < 4


def wait_for_write(client: Any, server: RunningServer, number: int) -> None:
    """Until the page lies in the disk file, synced or not."""

    def is_there() -> bool:
        client.poll(0)
        with (server.state_dir / "g1.img").open("rb") as file:
            return os.pread(file.fileno(), PAGE, place(number)) == page(number)

    wait_until(is_there, "the write")


def test_errors_are_counted_and_logged_once(
    client: Any, faulty: RunningServer, injector: Injector
) -> None:
    injector.fail(Call.READ | Call.WRITE, IMAGE, errno.EIO)
    for _ in range(3):
        error_of(client.pread, PAGE, place(11))
        error_of(client.pwrite, page(99), place(11), flags=FUA)
    assert counters(faulty)["disk_errors"] == 6
    faulty.wait_for_line("disk file of g1: Input/output error")
    error_of(client.pread, PAGE, place(11))
    faulty.stop()
    assert sum("disk file of g1" in line for line in faulty.lines) == 1


def test_doctor_tells_of_disk_errors(
    client: Any, faulty: RunningServer, injector: Injector
) -> None:
    injector.fail(Call.READ, IMAGE, errno.EIO)
    error_of(client.pread, PAGE, place(11))
    assert "1 reads or writes of its disk file failed" in faulty.ctl("doctor", check=False).stdout


def test_trim_while_the_disk_fails_is_punched_later(
    client: Any, faulty: RunningServer, injector: Injector
) -> None:
    injector.fail(Call.PUNCH, IMAGE, errno.EIO)
    client.trim(8 * PAGE, place(11))
    injector.wait(2)
    assert bytes(client.pread(8 * PAGE, place(11))) == bytes(8 * PAGE)
    injector.end()
    wait_until(lambda: counters(faulty)["punched_pages"] >= 8, "the pages to be punched")


# --- shrinks ---


def test_shrink_that_finds_the_disk_full_goes_on_when_run_again(
    faulty: RunningServer, injector: Injector, connect: Connect
) -> None:
    client = connect(faulty)
    client.pwrite(NOISE[PAGE : 8 * MIB], place(1))
    injector.fail(Call.WRITE, IMAGE, errno.ENOSPC, pages=places(1024, 16384))
    done = faulty.ctl("shrink", "0", check=False)
    assert done.returncode == 5
    assert "g1: No space left on device" in done.stderr
    assert counters(faulty)["preswap_pages"] == 1024
    injector.end()
    assert faulty.ctl("shrink", "0").returncode == 0
    assert bytes(client.pread(8 * MIB - PAGE, place(1))) == NOISE[PAGE : 8 * MIB]


@pytest.mark.parametrize("target", ["0", "100"])
def test_shrink_passes_over_what_the_disk_does_not_take(
    faulty: RunningServer, injector: Injector, connect: Connect, target: str
) -> None:
    client = connect(faulty)
    client.pwrite(NOISE[PAGE : 8 * MIB], place(1))
    injector.fail(Call.WRITE, IMAGE, errno.EIO, pages=places(300, 301))
    done = faulty.ctl("shrink", target, check=False)
    assert done.returncode == 5
    assert "g1: Input/output error" in done.stderr
    assert counters(faulty)["preswap_pages"] == 256
    assert bytes(client.pread(8 * MIB - PAGE, place(1))) == NOISE[PAGE : 8 * MIB]


@pytest.mark.parametrize("taken", [True, False], ids=["all of them", "one not"])
def test_shrink_of_pages_that_lie_apart_keeps_what_the_disk_does_not_take(
    faulty: RunningServer, injector: Injector, connect: Connect, taken: bool
) -> None:
    """They are written several at once, and one by one where that does not go."""
    client = connect(faulty)
    client.pwrite(NOISE[PAGE : 60 * PAGE], place(1))
    apart = range(1, 60, 2)
    for number in range(2, 60, 2):
        client.trim(PAGE, place(number))
    file = "another" if taken else IMAGE
    injector.fail(Call.WRITE, file, errno.EIO, pages=places(21, 22))
    assert faulty.ctl("shrink", "0", check=False).returncode == (0 if taken else 5)
    assert counters(faulty)["written_back_pages"] == (len(apart) if taken else 10)
    check(client, *apart)
    injector.end()
    assert faulty.ctl("shrink", "0").returncode == 0
    assert counters(faulty)["preswap_pages"] == 0
    check(client, *apart)


def test_shrink_gives_up_on_a_disk_that_takes_nothing(
    faulty: RunningServer, injector: Injector, connect: Connect
) -> None:
    connect(faulty).pwrite(NOISE, place(1))
    injector.fail(Call.WRITE, IMAGE, errno.EIO)
    assert faulty.ctl("shrink", "0", check=False).returncode == 5
    assert counters(faulty)["disk_errors"] == 8
    assert counters(faulty)["preswap_pages"] == 4096


def test_lowered_limit_that_finds_the_disk_full_is_set_and_goes_on_when_set_again(
    faulty: RunningServer, injector: Injector, connect: Connect
) -> None:
    client = connect(faulty)
    client.pwrite(NOISE[PAGE : 8 * MIB], place(1))
    injector.fail(Call.WRITE, IMAGE, errno.ENOSPC, pages=places(1024, 16384))
    done = faulty.ctl("sysctl", QUOTA + "=100", check=False)
    assert (done.returncode, done.stdout) == (5, "")
    assert "g1: No space left on device" in done.stderr
    assert faulty.ctl("sysctl", "-n", QUOTA).stdout == "100\n"
    assert counters(faulty)["preswap_pages"] == 1024
    assert injector.caught < 10, "it is tried again at once"
    injector.end()
    assert faulty.ctl("sysctl", QUOTA + "=100").stdout == f"{QUOTA} = 100\n"
    assert counters(faulty)["preswap_pages"] <= 100
    assert bytes(client.pread(8 * MIB - PAGE, place(1))) == NOISE[PAGE : 8 * MIB]


def test_lowered_limit_that_found_the_disk_full_goes_on_after_a_restart(
    faulty: RunningServer, injector: Injector, connect: Connect
) -> None:
    connect(faulty).pwrite(NOISE[PAGE : 8 * MIB], place(1))
    injector.fail(Call.WRITE, IMAGE, errno.ENOSPC)
    assert faulty.ctl("sysctl", QUOTA + "=100", check=False).returncode == 5
    injector.end()
    faulty.kill()
    faulty.start()
    # Room is kept, too: 93 soon after, or fewer where that was made as the shrink began.
    wait_until(lambda: counters(faulty)["preswap_pages"] <= 100, "the quota to be kept")
    assert bytes(connect(faulty).pread(8 * MIB - PAGE, place(1))) == NOISE[PAGE : 8 * MIB]


def test_stop_while_one_disk_fails_leaves_the_other_devices_clean(
    start_server: StartServer, injector: Injector, connect: Connect
) -> None:
    server = start_server(env=injector.env, devices={"g1": "1M", "g2": "1M"})
    for name in server.devices:
        connect(server, name).pwrite(page(1), PAGE)
    server.ctl("shrink", "0")
    injector.fail(Call.SYNC, IMAGE, errno.EIO)
    assert server.stop() == 0
    assert server.lines[-1] == "g1 was not left clean: Input/output error"
    sidecars = [Sidecar.read(server.paths.sidecar(name)) for name in server.devices]
    assert [sidecar.clean for sidecar in sidecars] == [False, True]


# --- the first change after a clean stop ---


def test_change_of_a_clean_device_that_cannot_be_noted_is_an_error_and_changes_nothing(
    client: Any, faulty: RunningServer, injector: Injector, connect: Connect
) -> None:
    """Else a start after a reboot would believe the map that was saved before it."""
    client.shutdown()
    faulty.restart()
    again = connect(faulty)
    injector.fail(Call.RENAME, "/g1.json", errno.EIO)
    for _ in range(2):
        assert error_of(again.pwrite, page(99), place(1)) == errno.EIO
        assert error_of(again.pwrite, page(99), place(11), flags=FUA) == errno.EIO
        assert error_of(again.pwrite, b"part", place(12) + 7) == errno.EIO
        assert error_of(again.pwrite, page(99), PAGE) == errno.EIO
        assert error_of(again.trim, 20 * PAGE, place(1)) == errno.EIO
        assert error_of(again.zero, 20 * PAGE, place(1)) == errno.EIO
    assert faulty.ctl("shrink", "0", check=False).returncode == 5
    check(again, *range(1, 9), *range(11, 19))
    faulty.kill()
    faulty.reboot()
    injector.end()
    faulty.start()
    rebooted = connect(faulty)
    check(rebooted, *range(11, 19))
    assert error_of(rebooted.pread, PAGE, place(1)) == errno.EIO
    rebooted.pwrite(page(1), place(1))
    check(rebooted, 1, *range(11, 19))


# --- a slow disk ---


def on_one_connection(client: Any, *numbers: int) -> list[Any]:
    """Reads of these pages, all in flight at once."""
    buffers = [nbd.Buffer(PAGE) for _ in numbers]
    for number, buffer in zip(numbers, buffers, strict=True):
        client.aio_pread(buffer, place(number))
    return buffers


def test_slow_disk_with_several_threads_holds_no_tmem_hit_up(
    start_server: StartServer, injector: Injector, connect: Connect
) -> None:
    server = start_server(env=injector.env, extra=["--threads=4"])
    client = connect(server)
    client.pwrite(page(1), place(1))
    client.pwrite(page(11), place(11), flags=FUA)
    injector.hold(Call.READ, IMAGE)
    slow, fast = on_one_connection(client, 11, 1)
    injector.wait()
    while client.aio_in_flight() > 1:
        client.poll(-1)
    assert bytes(fast.to_bytearray()) == page(1)
    injector.end()
    while client.aio_in_flight():
        client.poll(-1)
    assert bytes(slow.to_bytearray()) == page(11)


def test_slow_disk_with_one_thread_holds_its_own_connection_up_only(
    start_server: StartServer, injector: Injector, connect: Connect
) -> None:
    server = start_server(env=injector.env, extra=["--threads=1"])
    client, other = connect(server), connect(server)
    client.pwrite(page(1), place(1))
    client.pwrite(page(11), place(11), flags=FUA)
    injector.hold(Call.READ, IMAGE)
    buffers = on_one_connection(client, 11, 1)
    injector.wait()
    assert bytes(other.pread(PAGE, place(1))) == page(1)
    assert client.poll(0) == 0
    injector.end()
    while client.aio_in_flight():
        client.poll(-1)
    assert [bytes(buffer.to_bytearray()) for buffer in buffers] == [page(11), page(1)]


def test_slow_disk_holds_no_operator_up(
    client: Any, faulty: RunningServer, injector: Injector
) -> None:
    injector.hold(Call.READ, IMAGE)
    (buffer,) = on_one_connection(client, 11)
    injector.wait()
    assert counters(faulty)["preswap_pages"] == 8
    injector.end()
    while client.aio_in_flight():
        client.poll(-1)
    assert bytes(buffer.to_bytearray()) == page(11)


# --- the disk file goes ---


def test_deleted_disk_file_is_served_on(client: Any, faulty: RunningServer) -> None:
    (faulty.state_dir / "g1.img").unlink()
    client.pwrite(page(20), place(20), flags=FUA)
    check(client, *range(1, 9), *range(11, 19), 20)
    assert faulty.ctl("shrink", "0").returncode == 0
    check(client, *range(1, 9))


def test_deleted_disk_file_swapoff_and_stop_are_clean(client: Any, faulty: RunningServer) -> None:
    (faulty.state_dir / "g1.img").unlink()
    faulty.ctl("swapoff", "g1", "--yes")
    assert error_of(client.pread, 8 * PAGE, place(11)) == errno.EIO
    discard(client)
    assert bytes(client.pread(8 * PAGE, place(11))) == bytes(8 * PAGE)
    assert faulty.stop() == 0


def test_deleted_disk_file_keeps_the_next_start_from_serving(
    client: Any, faulty: RunningServer
) -> None:
    (faulty.state_dir / "g1.img").unlink()
    faulty.kill()
    done = subprocess.run(faulty.command(), capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert f"the disk file {faulty.state_dir / 'g1.img'} is missing" in done.stderr


def test_doctor_tells_of_deleted_files(client: Any, faulty: RunningServer) -> None:
    (faulty.state_dir / "g1.img").unlink()
    done = faulty.ctl("doctor", check=False)
    assert done.returncode == 1
    assert f"{faulty.state_dir / 'g1.img'} is missing" in done.stdout


def test_truncated_disk_file_is_errors_and_never_zeros(client: Any, faulty: RunningServer) -> None:
    os.truncate(faulty.state_dir / "g1.img", place(15))
    behind = sum(len(part) for part in zone(16384) if part.start * PAGE > place(15))
    faulty.wait_for_line(f"disk file of g1 was cut off: {4 + behind} pages are lost")
    assert error_of(client.pread, PAGE, 64 * MIB - PAGE) == errno.EIO
    assert error_of(client.pread, PAGE, place(15)) == errno.EIO
    client.pwrite(page(18), place(18), flags=FUA)
    assert error_of(client.pread, PAGE, place(17)) == errno.EIO
    check(client, *range(1, 9), *range(11, 15), 18)
    assert faulty.json_stats()["tmem"]["checksum_errors"] == 3
