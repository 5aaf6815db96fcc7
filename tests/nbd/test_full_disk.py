# SPDX-License-Identifier: BSD-3-Clause
"""A disk, or shared memory, without room: an error to whom it concerns, and nothing lost."""

import errno
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbd
import pytest

from preswapd.preswap.files.sidecar import Sidecar
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, Connect, discard
from tests.conftest import StartServer
from tests.nbd.conftest import MIB
from tests.running import RunningServer, run

pytestmark = [
    pytest.mark.xdist_group("nbd-full-disk"),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root"),
]

# Pages of a twentieth of the pool.
ROOM = 4 * MIB // 20 // PAGE
NOISE = random.Random(7).randbytes(16 * MIB)

Mount = Callable[[Path, str], None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts a file system of that size; unmounts it after the test."""
    with ExitStack() as stack:

        def make(path: Path, size: str) -> None:
            path.mkdir(parents=True, mode=0o700)
            command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(path)]
            done = run(command)
            if done.returncode:
                pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
            # Lazily: it ends when the server, which is stopped later, has closed its files.
            stack.callback(subprocess.run, ["umount", "--lazy", str(path)], check=True)

        yield make


@pytest.fixture
def cramped(mount: Mount, start_server: StartServer, tmp_path: Path) -> RunningServer:
    """Neither its pool of 4M nor its disk of 4M holds what is written below."""
    mount(tmp_path / "state", "4M")
    return start_server(tmp=tmp_path, pool_size="4M")


def fill(client: Any) -> dict[int, bytes]:
    """Writes until nothing fits any more; what was acknowledged, by page."""
    written: dict[int, bytes] = {}
    for page in range(1, len(NOISE) // PAGE):
        content = NOISE[page * PAGE : (page + 1) * PAGE]
        try:
            client.pwrite(content, page * PAGE)
        except nbd.Error as error:
            assert error.errnum == errno.ENOSPC  # noqa: PT017 - the loop ends with it
            return written
        written[page] = content
    raise AssertionError("all of it fits")


def check(client: Any, written: dict[int, bytes]) -> None:
    for page, content in written.items():
        assert bytes(client.pread(PAGE, page * PAGE)) == content


def test_page_that_fits_nowhere_is_an_error_and_harms_no_other(
    cramped: RunningServer, connect: Connect
) -> None:
    client = discard(connect(cramped))
    written = fill(client)
    assert bytes(client.pread(PAGE, (len(written) + 1) * PAGE)) == bytes(PAGE)
    check(client, written)
    assert cramped.json_stats()["devices"]["g1"]["disk_errors"] > 0


def test_trim_makes_room(cramped: RunningServer, connect: Connect) -> None:
    client = connect(cramped)
    written = fill(client)
    client.trim(len(written) * PAGE, PAGE, flags=nbd.CMD_FLAG_FUA)
    # The pool may have its room free when the disk is full, or not.
    assert abs(len(fill(client)) - len(written)) <= ROOM


def test_overwriting_needs_no_room(cramped: RunningServer, connect: Connect) -> None:
    client = connect(cramped)
    written = dict.fromkeys(fill(client), NOISE[:PAGE])
    for page, content in written.items():
        client.pwrite(content, page * PAGE)
    check(client, written)


def test_disk_errors_are_logged_once(cramped: RunningServer, connect: Connect) -> None:
    client = connect(cramped)
    for _ in range(5):
        fill(client)
    cramped.wait_for_line("disk file of g1: No space left on device")
    assert sum("No space left" in line for line in cramped.lines) == 1


@pytest.mark.parametrize("kill", [True, False], ids=["kill", "stop"])
def test_restart_needs_no_disk_space(cramped: RunningServer, connect: Connect, kill: bool) -> None:
    written = fill(connect(cramped))
    if kill:
        cramped.kill()
    else:
        cramped.stop()
    cramped.start()
    check(connect(cramped), written)


def test_full_disk_does_not_close_tmem(cramped: RunningServer, connect: Connect) -> None:
    """After a clean stop its first page has to be noted on disk."""
    cramped.stop()
    stuff(cramped.state_dir)
    cramped.start()
    client = connect(cramped)
    client.pwrite(NOISE[: 64 * PAGE], BEHIND_ZONE)
    assert cramped.json_stats()["devices"]["g1"]["preswap_pages"] == 64


def test_clean_stop_on_a_full_disk(cramped: RunningServer, connect: Connect) -> None:
    """Room for its map was set aside when the device was made."""
    connect(cramped).pwrite(NOISE[: 64 * PAGE], BEHIND_ZONE, flags=nbd.CMD_FLAG_FUA)
    stuff(cramped.state_dir)
    assert cramped.stop() == 0
    assert Sidecar.read(cramped.paths.sidecar("g1")).clean
    cramped.reboot()
    cramped.start()
    assert bytes(connect(cramped).pread(64 * PAGE, BEHIND_ZONE)) == NOISE[: 64 * PAGE]


def stuff(directory: Path) -> None:
    """Leaves no room there."""
    with (directory / "stuffing").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(PAGE))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - the loop ends with it


def test_shrink_on_a_full_disk_stops_and_loses_nothing(
    cramped: RunningServer, connect: Connect
) -> None:
    client = connect(cramped)
    written = fill(client)
    done = cramped.ctl("shrink", "0", check=False)
    assert done.returncode == 5
    assert "No space left on device" in done.stderr
    check(client, written)


def test_status_of_a_shrink_that_filled_the_disk_has_its_last_pages(
    cramped: RunningServer, connect: Connect
) -> None:
    """They are not neighbours: of an extent some fit, and of those written together too."""
    client = connect(cramped)
    apart = range(1, 256, 2)
    for page in apart:
        client.pwrite(NOISE[page * PAGE : (page + 1) * PAGE], BEHIND_ZONE + page * PAGE)
    stuff(cramped.state_dir)
    with (cramped.state_dir / "stuffing").open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 40 * PAGE)
    cramped.ctl("shrink", "0", check=False)
    shown = cramped.client.shrink_status()
    assert shown.result is not None
    assert 0 < shown.moved == shown.result["moved"]
    assert shown.left == shown.result["left"] == len(apart) - shown.moved
    for page in apart:
        found = client.pread(PAGE, BEHIND_ZONE + page * PAGE)
        assert bytes(found) == NOISE[page * PAGE : (page + 1) * PAGE]


def test_device_that_does_not_fit_is_refused(cramped: RunningServer) -> None:
    stuff(cramped.state_dir)
    done = cramped.ctl("create", "g2", "1M", check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert "No space left on device" in done.stderr
    assert not list(cramped.state_dir.glob("g2*"))
    assert not list(cramped.shm_dir.glob("g2*"))


def test_first_start_on_a_full_disk_is_refused(
    mount: Mount, start_server: StartServer, tmp_path: Path
) -> None:
    mount(tmp_path / "state", "64K")
    stuff(tmp_path / "state")
    server = start_server(tmp=tmp_path, start=False)
    done = run(server.command())
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


def test_start_with_a_new_device_on_a_full_disk_serves_the_others(
    cramped: RunningServer, connect: Connect
) -> None:
    written = fill(connect(cramped))
    cramped.kill()
    # What was on its way to the disk when nothing fitted any more may have left room.
    stuff(cramped.state_dir)
    cramped.devices["g2"] = "1M"
    cramped.start()
    cramped.wait_for_line("the device g2 cannot be made: No space left on device")
    check(connect(cramped, "g1"), written)
    assert cramped.json_stats()["devices"].keys() == {"g1"}
    assert not list(cramped.state_dir.glob("g2*"))
    cramped.ctl("swapoff", "g1", "--yes")
    cramped.restart()
    assert cramped.json_stats()["devices"].keys() == {"g1", "g2"}


def test_restart_on_full_shared_memory(
    mount: Mount, start_server: StartServer, tmp_path: Path, connect: Connect
) -> None:
    server = start_server(start=False, pool_size="8M")
    server.paths = replace(server.paths, shm_dir=tmp_path / "shm")
    mount(server.shm_dir, "9M")
    server.start()
    connect(server).pwrite(NOISE, PAGE)
    stuff(server.shm_dir)
    server.kill()
    server.start()
    assert bytes(connect(server).pread(len(NOISE), PAGE)) == NOISE


def test_full_shared_memory_is_a_rejected_put(
    mount: Mount, start_server: StartServer, tmp_path: Path, connect: Connect
) -> None:
    server = start_server(start=False, pool_size="8M")
    server.paths = replace(server.paths, shm_dir=tmp_path / "shm")
    mount(server.shm_dir, "9M")
    server.start()
    stuff(server.shm_dir)
    client = connect(server)
    client.pwrite(NOISE, PAGE)
    assert bytes(client.pread(len(NOISE), PAGE)) == NOISE
    assert server.json_stats()["tmem"]["reject_alloc_fail"] > 0


TOUCH = """
import mmap, sys
with open(sys.argv[1], "w+b") as file:
    file.truncate(32 << 20)
    with mmap.mmap(file.fileno(), 0) as memory:
        for at in range(0, len(memory), 4096):
            memory[at] = 1
"""


@pytest.mark.parametrize(("reserve", "ending"), [("34M", 0), ("0", -signal.SIGBUS)])
def test_other_programs_touch_what_the_reserve_leaves_them(
    mount: Mount,
    start_server: StartServer,
    tmp_path: Path,
    connect: Connect,
    reserve: str,
    ending: int,
) -> None:
    """Of files there that they have made, and not filled yet."""
    server = start_server(start=False, pool_size="40M", extra=[f"--shm-reserve={reserve}"])
    mount(tmp_path / "shm", "48M")
    server.paths = replace(server.paths, shm_dir=tmp_path / "shm" / "vm1")
    server.start()
    client = connect(server)
    for number in range(3):
        client.pwrite(NOISE, PAGE + number * len(NOISE))
    assert run([sys.executable, "-c", TOUCH, str(tmp_path / "shm" / "theirs")]).returncode == ending
    for number in range(3):
        assert bytes(client.pread(len(NOISE), PAGE + number * len(NOISE))) == NOISE


def test_new_device_on_full_shared_memory_is_refused(
    mount: Mount, start_server: StartServer, tmp_path: Path
) -> None:
    """Its map must be there in full: a hole in it would be a SIGBUS."""
    server = start_server(start=False, pool_size="8M")
    server.paths = replace(server.paths, shm_dir=tmp_path / "shm")
    mount(server.shm_dir, "9M")
    server.start()
    stuff(server.shm_dir)
    done = server.ctl("create", "g2", "1G", check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert server.json_stats()["devices"].keys() == {"g1"}
