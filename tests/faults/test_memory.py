# SPDX-License-Identifier: BSD-3-Clause
"""The host or a memory cgroup runs short: puts are rejected, and nobody is killed."""

import errno
import os
import re
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import nbd
import pytest

from preswapd.api.client import Client
from preswapd.server.buffers import LARGEST_REQUEST
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import Connect
from tests.conftest import StartServer
from tests.faults.conftest import MIB, NOISE, counters, error_of, place
from tests.faults.injection import Call, Injector
from tests.running import RunningServer, wait_until

# What nbdkit with Python needs for itself, what is kept for clients' requests, and some MiB for the
# pool.
LIMIT = 128 * MIB
DEVICES = [f"g{number}" for number in range(1, 7)]
WRITTEN = 256 * MIB
THREADS = pytest.mark.parametrize("confined", [1, 16], indirect=True, ids=["thread", "threads"])


@pytest.fixture
def memory_cgroup() -> Iterator[Path]:
    """A group of its own at the top, with LIMIT."""
    for top, name in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
    ):
        if not Path(top, "cgroup.procs").exists() or not os.access(top, os.W_OK):
            continue
        try:
            group = Path(mkdtemp(prefix="preswapd-test-", dir=top))
        except OSError:
            continue
        try:
            if (group / name).exists():
                (group / name).write_text(str(LIMIT))
                yield group
                return
        finally:
            group.rmdir()
    pytest.skip("no memory cgroup can be made here")


@pytest.fixture
def confined(
    memory_cgroup: Path,
    start_server: StartServer,
    injector: Injector,
    request: pytest.FixtureRequest,
) -> Iterator[RunningServer]:
    """A server in the group, with a pool larger than its limit, of one worker thread or more, whose
    system calls obey the injector."""
    threads = getattr(request, "param", 1)
    devices = dict.fromkeys(DEVICES, "512M")
    server = start_server(
        start=False,
        pool_size="512M",
        devices=devices,
        extra=[f"--threads={threads}"],
        env=injector.env,
    )
    join = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
    server.launch(["/bin/sh", "-c", join, str(memory_cgroup), *server.command()])
    yield server
    assert kills(memory_cgroup) == 0
    server.close()


def used(server: RunningServer) -> int:
    return int(server.json_stats()["tmem"]["mem_used_total"])


def write(client: Any, length: int, most: int) -> None:
    """WRITTEN bytes in requests of this length, `most` of them at once."""
    buffers = [
        nbd.Buffer.from_bytearray(bytearray(NOISE[at : at + length]))
        for at in range(0, len(NOISE), length)
    ]
    for at, buffer in zip(range(0, WRITTEN, length), cycle(buffers), strict=False):
        client.aio_pwrite(buffer, PAGE + at)
        while client.aio_in_flight() >= most:
            client.poll(-1)
    while client.aio_in_flight():
        client.poll(-1)


def check_written(client: Any) -> None:
    for at in range(0, WRITTEN, len(NOISE)):
        assert bytes(client.pread(len(NOISE), PAGE + at)) == NOISE


@THREADS
def test_cgroup_at_its_limit_is_rejected_puts_and_no_kill(
    confined: RunningServer, connect: Connect
) -> None:
    """Also where each worker thread gets the largest requests that there are."""
    client, pid = connect(confined, "g1"), confined.pid
    write(client, LARGEST_REQUEST, Client(confined.control_socket).facts().threads)
    found = counters(confined)
    assert found["preswap_pages"] > 0
    assert found["failed_stores"] > 0
    assert confined.json_stats()["tmem"]["reject_alloc_fail"] > 0
    assert confined.pid == pid
    check_written(client)
    client.shutdown()


@THREADS
def test_requests_that_are_too_long_are_no_kill(confined: RunningServer, connect: Connect) -> None:
    """nbdkit has received them before anybody can refuse them."""
    client, pid = connect(confined, "g1"), confined.pid
    client.set_strict_mode(0)  # newer clients refuse to send them
    write(client, LARGEST_REQUEST, 16)
    for _ in range(16):
        assert error_of(nbd.NBD.pwrite, client, NOISE, PAGE) == errno.EINVAL
        assert error_of(nbd.NBD.pread, client, len(NOISE), PAGE) == errno.EINVAL
    assert bytes(client.pread(len(NOISE), PAGE)) == NOISE
    assert confined.pid == pid
    client.shutdown()


@pytest.mark.parametrize("confined", [4], indirect=True)
def test_clients_of_further_devices_come_when_the_pool_is_full(
    confined: RunningServer, connect: Connect
) -> None:
    """The pool gives back what each may take, 13 MiB with four workers, and all of them take it."""
    pid, clients = confined.pid, []
    threads = Client(confined.control_socket).facts().threads
    for device in DEVICES:
        clients.append(connect(confined, device))
        write(clients[-1], LARGEST_REQUEST, threads)
        assert confined.pid == pid
    for client in clients:
        check_written(client)
        client.shutdown()
    assert confined.pid == pid


@pytest.mark.parametrize("confined", [12], indirect=True)
def test_client_that_comes_back_beside_its_old_connection(
    confined: RunningServer, connect: Connect
) -> None:
    """It was cut off, and its old connection is not dead yet."""
    old = connect(confined, "g1")
    full = filled(confined, old)
    fresh = connect(confined, "g1")
    confined.wait_for_line("shrink to fit memory.max ended")
    assert 0 < used(confined) < full
    write(fresh, LARGEST_REQUEST, 12)
    check_written(fresh)


def filled(server: RunningServer, client: Any) -> int:
    """Bytes of the pool, which has taken what is there for it."""

    def is_full() -> bool:
        """Once the server has looked what its workers hold by now."""
        write(client, LARGEST_REQUEST, 12)
        return used(server) > 36 * MIB

    wait_until(is_full, "the pool to take what is there for it")
    return used(server)


@pytest.mark.parametrize("confined", [12], indirect=True)
def test_client_that_comes_again_after_the_disk_was_too_slow_for_it(
    confined: RunningServer, connect: Connect, injector: Injector
) -> None:
    """What the pool gave back since then is still there, whatever was written meanwhile."""
    old = connect(confined, "g1")
    filled(confined, old)
    injector.hold(Call.WRITE, "/g1.img")
    with pytest.raises(nbd.Error):
        connect(confined, "g1")
    confined.wait_for_line("a client of g1 was refused: another client may take ")
    injector.end()
    confined.wait_for_line("shrink to fit memory.max ended")
    write(old, LARGEST_REQUEST, 12)
    injector.hold(Call.WRITE, "/g1.img")
    fresh = connect(confined, "g1")
    injector.end()
    write(fresh, LARGEST_REQUEST, 12)
    check_written(fresh)


@pytest.mark.parametrize("confined", [12], indirect=True)
def test_limit_that_is_lowered_while_a_client_is_there(
    confined: RunningServer, connect: Connect, memory_cgroup: Path
) -> None:
    """Then its workers take what they may, and there is room."""
    client = connect(confined, "g1")
    full = filled(confined, client)
    lower(memory_cgroup, 4 * MIB)
    confined.wait_for_line("shrink to fit memory.max ended")
    assert 0 < used(confined) < full
    write(client, LARGEST_REQUEST, 12)
    check_written(client)


def lower(group: Path, above_usage: int) -> None:
    for usage, limit in (
        ("memory.usage_in_bytes", "memory.limit_in_bytes"),
        ("memory.current", "memory.max"),
    ):
        if (group / limit).exists():
            wanted = int((group / usage).read_text()) + above_usage
            (group / limit).write_text(str(wanted))


def test_pool_that_is_frozen_stays_as_it_is(confined: RunningServer, connect: Connect) -> None:
    write(connect(confined, "g1"), LARGEST_REQUEST, 1)
    confined.ctl("freeze")
    before = counters(confined)["preswap_pages"]
    for device in DEVICES[1:]:
        connect(confined, device).pwrite(NOISE[:PAGE], PAGE)
    assert counters(confined)["preswap_pages"] == before


def test_device_that_is_too_large_is_refused_and_no_kill(
    confined: RunningServer, connect: Connect, memory_cgroup: Path
) -> None:
    client, pid = connect(confined, "g1"), confined.pid
    done = confined.ctl("create", "big", "1T", check=False)
    assert done.returncode == 4
    assert re.fullmatch(
        rf"preswapctl: the device big cannot be made: it takes 1\.\dG of memory beside its"
        rf" pages, and {memory_cgroup}/\S+ allows \S+M more: (\S+G) would fit\n",
        done.stderr,
    )
    client.pwrite(NOISE[:PAGE], PAGE)
    assert confined.ctl("create", "small", "1M").returncode == 0
    assert confined.pid == pid


@THREADS
def test_second_client_of_a_device_needs_room(
    confined: RunningServer, connect: Connect, memory_cgroup: Path
) -> None:
    """Its guest is served whatever comes."""
    guest = connect(confined, "g1")
    write(guest, LARGEST_REQUEST, 1)
    with pytest.raises(nbd.Error):
        connect_many(confined, connect)
    confined.wait_for_line("a client of g1 was refused: another client may take ")
    assert bytes(guest.pread(PAGE, PAGE)) == NOISE[:PAGE]


def connect_many(server: RunningServer, connect: Connect) -> None:
    for _ in range(64):
        connect(server, "g1")


def kills(group: Path) -> int:
    events = next(path for name in ("memory.events", "memory.oom_control")
                  if (path := group / name).exists())  # fmt: skip
    found = re.search(r"^oom_kill (\d+)", events.read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def test_host_at_its_reserve_is_rejected_puts(start_server: StartServer, connect: Connect) -> None:
    """More is to stay free than there is."""
    server = start_server(extra=["--host-reserve=1024T"])
    client = connect(server)
    client.pwrite(NOISE, place(0))
    assert bytes(client.pread(len(NOISE), place(0))) == NOISE
    found = counters(server)
    assert (found["preswap_pages"], found["failed_stores"]) == (0, len(NOISE) // PAGE)
    assert server.json_stats()["tmem"]["reject_alloc_fail"] == len(NOISE) // PAGE
