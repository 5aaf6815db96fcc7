# SPDX-License-Identifier: BSD-3-Clause
"""A writable image whose file fails, or is slow: what its client is told is true."""

import errno
import random
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import nbd
import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import Connect, answered, begun, connected
from tests.faults.conftest import MIB, error_of, mounted
from tests.faults.injection import HOLD, Call, Injector
from tests.precache.running import check_either, content
from tests.running import RunningServer, wait_for

SIZE = 4 * MIB + 512
CONTENT = content(SIZE)
NEW = content(SIZE, seed=2)
FILE = "/disk.raw"
FUA = nbd.CMD_FLAG_FUA


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "disk.raw"
    made.write_bytes(CONTENT)
    return made


@pytest.fixture
def server(
    tmp_path: Path, path: Path, injector: Injector, request: pytest.FixtureRequest
) -> Iterator[RunningServer]:
    """Its image's system calls obey the injector; all of the image is cached."""
    options = [f"--image=disk={path}", "--writable=disk", *getattr(request, "param", ())]
    with RunningServer(tmp_path, {"g1": "64M"}, "32M", options, env=injector.env) as made:
        wait_for(lambda: made.image("disk")["cached"], bool)
        client = connected(made, "disk")
        client.pread(SIZE, 0)
        client.shutdown()
        yield made


def sent_and_caught(client: Any, injector: Injector) -> int:
    client.poll(0)
    return injector.caught


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_write_that_fails(
    server: RunningServer, connect: Connect, injector: Injector, path: Path, error: int
) -> None:
    """What was there is read from the file, as nobody knows how far it came."""
    client = connect(server, "disk")
    injector.fail(Call.WRITE, FILE, error, (8, 16))
    assert error_of(client.pwrite, NEW[: 2 * PAGE], 7 * PAGE) == error
    injector.end()
    before = server.image("disk")["disk_reads"]
    assert bytes(client.pread(SIZE, 0)) == path.read_bytes()
    assert server.image("disk")["disk_reads"] > before
    assert server.image("disk")["disk_errors"] == 1
    wait_for(lambda: "image disk: " in server.log, bool)
    client.pwrite(NEW[: 2 * PAGE], 7 * PAGE)
    assert bytes(client.pread(2 * PAGE, 7 * PAGE)) == NEW[: 2 * PAGE]


def test_part_of_a_page_that_cannot_be_read(
    server: RunningServer, connect: Connect, injector: Injector, path: Path
) -> None:
    client = connect(server, "disk")
    server.ctl("shrink", "0")  # of all devices: nothing is cached any more
    injector.fail(Call.READ, FILE, errno.EIO)
    assert error_of(client.pwrite, b"part", 10) == errno.EIO
    injector.end()
    assert path.read_bytes() == CONTENT


def test_what_nobody_asked_for_fails_nobody(
    server: RunningServer, connect: Connect, injector: Injector
) -> None:
    """A client that reads on has pages read that lie behind its own."""
    client = connect(server, "disk")
    server.ctl("shrink", "0")
    injector.fail(Call.READ, FILE, errno.EIO, (20, 21))
    for page in range(20):
        assert bytes(client.pread(PAGE, page * PAGE)) == CONTENT[page * PAGE : (page + 1) * PAGE]
    assert error_of(client.pread, PAGE, 20 * PAGE) == errno.EIO
    assert bytes(client.pread(PAGE, 21 * PAGE)) == CONTENT[21 * PAGE : 22 * PAGE]


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_sync_that_fails(
    server: RunningServer, connect: Connect, injector: Injector, path: Path, error: int
) -> None:
    client = connect(server, "disk")
    injector.fail(Call.SYNC, FILE, error)
    assert error_of(client.flush) == error
    assert server.image("disk")["cached_pages"] == 0
    assert error_of(client.pwrite, NEW[:PAGE], 0, flags=FUA) == error
    assert error_of(client.trim, PAGE, 0, flags=FUA) == error
    assert error_of(client.zero, PAGE, 0, flags=FUA) == error
    client.pwrite(NEW[:PAGE], PAGE)
    injector.end()
    assert bytes(client.pread(SIZE, 0)) == path.read_bytes()
    client.flush()
    assert bytes(client.pread(PAGE, PAGE)) == NEW[:PAGE]


def test_sync_that_failed_in_the_page_cache_stays_failed(
    tmp_path: Path, injector: Injector, connect: Connect, stack: ExitStack
) -> None:
    """The kernel would say that all is well, and has lost what it could not write."""
    folder = tmp_path / "ramfs"
    mounted(stack, folder, "-t", "ramfs", "none")  # it knows no O_DIRECT, and no holes either
    path = folder / "disk.raw"
    path.write_bytes(CONTENT)
    options = [f"--image=disk={path}", "--writable=disk"]
    with RunningServer(tmp_path, {}, "32M", options, env=injector.env) as server:
        client = connect(server, "disk")
        client.pwrite(NEW[:PAGE], 0)
        client.flush()
        injector.fail(Call.SYNC, FILE, errno.EIO)
        assert error_of(client.flush) == errno.EIO
        injector.end()
        assert error_of(client.flush) == errno.EIO
        assert error_of(client.pwrite, NEW[:PAGE], 0, flags=FUA) == errno.EIO
        assert bytes(client.pread(SIZE, 0)) == NEW[:PAGE] + CONTENT[PAGE:]
        client.shutdown()
        server.kill()
        server.start()
        connect(server, "disk").flush()


@pytest.mark.parametrize("server", [["--threads=4"]], indirect=True, ids=["threads"])
def test_two_syncs_at_once_that_fail(
    server: RunningServer, connect: Connect, injector: Injector
) -> None:
    """The kernel tells one of them only: so one waits for the other, and asks anew."""
    client = connect(server, "disk")
    injector.set(Call.SYNC, FILE, None, error=errno.EIO, hold=1)
    first = begun(client, NEW[:PAGE], 0, FUA)
    injector.wait(1)
    second = begun(client, NEW[:PAGE], 100 * PAGE, FUA)
    wait_for(
        lambda: (client.poll(0), server.image("disk")["disk_writes"])[1], lambda pages: pages == 2
    )
    assert (first, second, injector.caught) == ([], [], 1)
    injector.put(HOLD, 0)
    assert answered(client, first) == errno.EIO
    assert answered(client, second) == errno.EIO
    assert injector.caught == 2


@pytest.mark.parametrize("call", [Call.WRITE, Call.SYNC])
def test_fua_is_answered_when_it_is_on_disk(
    server: RunningServer, connect: Connect, injector: Injector, call: Call
) -> None:
    """Not before, and until then nobody is told what may be gone tomorrow."""
    client, other = connect(server, "disk"), connect(server, "disk")
    injector.hold(call, FILE)
    answers = begun(client, NEW[:PAGE], PAGE, FUA)
    injector.wait()
    assert bytes(other.pread(PAGE, PAGE)) == CONTENT[PAGE : 2 * PAGE]
    client.poll(50)
    assert not answers
    injector.end()
    assert answered(client, answers) == 0
    assert bytes(other.pread(PAGE, PAGE)) == NEW[:PAGE]


def test_trim_that_fails(
    server: RunningServer, connect: Connect, injector: Injector, path: Path
) -> None:
    client = connect(server, "disk")
    injector.fail(Call.PUNCH, FILE, errno.EIO)
    assert error_of(client.trim, MIB, 0) == errno.EIO
    assert error_of(client.zero, MIB, 0) == errno.EIO
    injector.end()
    assert bytes(client.pread(SIZE, 0)) == path.read_bytes() == CONTENT


@pytest.mark.parametrize("fast", [False, True])
def test_file_system_without_holes(
    server: RunningServer, connect: Connect, injector: Injector, path: Path, fast: bool
) -> None:
    """A trim changes nothing, and zeros are made another way."""
    client = connect(server, "disk")
    injector.fail(Call.PUNCH, FILE, errno.EOPNOTSUPP)
    client.trim(MIB, 0)
    assert bytes(client.pread(SIZE, 0)) == path.read_bytes() == CONTENT
    client.zero(MIB, 0, nbd.CMD_FLAG_FAST_ZERO if fast else 0)
    assert bytes(client.pread(SIZE, 0)) == path.read_bytes() == bytes(MIB) + CONTENT[MIB:]


def test_late_write_of_a_lost_connection_overwrites_nothing(
    server: RunningServer, injector: Injector, path: Path
) -> None:
    """The newer connection's write waits until the older one's has ended, also where that has not
    come yet: it is written in two pieces, and stands still in the first one."""
    old = connected(server, "disk")
    injector.hold(Call.WRITE, FILE, (0, 256))
    begun(old, NEW[: 2 * MIB], 0)
    wait_for(partial(sent_and_caught, old, injector), bool)
    del old  # it hangs up
    newer = connected(server, "disk")
    at = 300 * PAGE
    answers = begun(newer, b"newer" * 100, at)
    newer.poll(200)
    assert not answers
    injector.end()
    assert answered(newer, answers) == 0
    right = NEW[:at] + b"newer" * 100 + NEW[at + 500 : 2 * MIB] + CONTENT[2 * MIB :]
    assert bytes(newer.pread(SIZE, 0)) == right
    assert path.read_bytes() == right


def test_kill_in_the_middle_of_a_write(
    server: RunningServer, injector: Injector, path: Path, connect: Connect
) -> None:
    """Nothing of it was answered, and nothing of it is there; what was answered before is."""
    client = connected(server, "disk")
    client.pwrite(NEW[:PAGE], 0)
    injector.hold(Call.WRITE, FILE)
    answers = begun(client, NEW[PAGE : 2 * PAGE], PAGE)
    injector.wait()
    server.kill()
    injector.end()
    assert not answers
    right = NEW[:PAGE] + CONTENT[PAGE:]
    assert path.read_bytes() == right
    server.start()
    assert bytes(connect(server, "disk").pread(SIZE, 0)) == right


def test_random_faults_under_load(
    server: RunningServer, connect: Connect, injector: Injector, path: Path
) -> None:
    """Whatever failed, reads say what the file has, and it has what was answered."""
    rng, client = random.Random(4), connect(server, "disk")
    right = bytearray(CONTENT)
    failed = 0
    for _ in range(300):
        offset = rng.randrange(SIZE)
        piece = rng.randbytes(min(SIZE - offset, rng.choice([1, 512, PAGE, 70_000])))
        if rng.random() < 0.3:
            call = rng.choice([Call.WRITE, Call.SYNC, Call.WRITE | Call.SYNC])
            first = rng.randrange(SIZE // PAGE)
            pages = None if call & Call.SYNC else (first, first + 40)
            injector.fail(call, FILE, rng.choice([errno.EIO, errno.ENOSPC]), pages)
        try:
            client.pwrite(piece, offset, flags=rng.choice([0, 0, FUA]))
            right[offset : offset + len(piece)] = piece
        except nbd.Error:
            failed += 1
            found = path.read_bytes()
            check_either(found, bytes(right), piece, offset)
            right = bytearray(found)
        injector.end()
        at = rng.randrange(SIZE)
        count = min(SIZE - at, 100_000)
        assert bytes(client.pread(count, at)) == right[at : at + count]
    assert failed > 10
    assert path.read_bytes() == right
    assert bytes(client.pread(SIZE, 0)) == right
