# SPDX-License-Identifier: BSD-3-Clause
"""The host or a memory cgroup runs short: puts are rejected, and nobody is killed."""

import os
import re
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from tempfile import mkdtemp

import pytest

from preswapd.api.client import Client
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import Connect
from tests.conftest import StartServer
from tests.faults.conftest import MIB, NOISE, counters, place
from tests.running import RunningServer

# What nbdkit with Python needs for itself, and some MiB for the pool; 32 stay free.
LIMIT = 128 * MIB
# Each of nbdkit's workers keeps a buffer of the size of its largest request.  They come when the
# pool is full already, out of those 32 MiB: all together may take half of them.
BUFFERS = 16 * MIB
WRITTEN = 256 * MIB


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
def confined(memory_cgroup: Path, start_server: StartServer) -> Iterator[RunningServer]:
    """A server in the group, with a pool larger than its limit."""
    server = start_server(start=False, pool_size="512M", devices={"g1": "512M"})
    join = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
    server.launch(["/bin/sh", "-c", join, str(memory_cgroup), *server.command()])
    yield server
    server.close()


def test_cgroup_at_its_limit_is_rejected_puts_and_no_kill(
    confined: RunningServer, connect: Connect, memory_cgroup: Path
) -> None:
    client, pid = connect(confined), confined.pid
    workers = Client(confined.control_socket).facts().threads
    size = BUFFERS // workers
    requests = [NOISE[at : at + size] for at in range(0, len(NOISE), size)]
    for at, data in zip(range(0, WRITTEN, size), cycle(requests), strict=False):
        client.pwrite(data, PAGE + at)
    found = counters(confined)
    assert found["preswap_pages"] > 0
    assert found["failed_stores"] > 0
    assert confined.json_stats()["tmem"]["reject_alloc_fail"] > 0
    assert confined.pid == pid
    assert kills(memory_cgroup) == 0
    for at, data in zip(range(0, WRITTEN, size), cycle(requests), strict=False):
        assert bytes(client.pread(size, PAGE + at)) == data


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
