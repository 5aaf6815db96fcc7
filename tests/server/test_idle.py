# SPDX-License-Identifier: BSD-3-Clause
"""A server whose guest does nothing sleeps, and wakes up for what the guest does next."""

import random
import time
from pathlib import Path

from tests.clients import BEHIND_ZONE, connected
from tests.running import RunningServer, wait_until

MIB = 1 << 20
SECONDS = 3.0
# One a second, with room for chance; with a timer in each thread there were 27 in that time.
MOST = 6


def wakeups(pid: int) -> int:
    """Of all its threads, how often they have waited for something until now."""
    return sum(
        int(line.split()[1])
        for path in Path(f"/proc/{pid}/task").glob("*/status")
        for line in path.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches:")
    )


def in_use(server: RunningServer) -> int:
    return server.client.stats()["tmem"]["mem_used_total"]


def sleeps(pid: int) -> bool:
    before = wakeups(pid)
    time.sleep(SECONDS)
    return wakeups(pid) - before <= MOST


def test_idle_server_hardly_wakes_up(server: RunningServer) -> None:
    client = connected(server)
    client.pwrite(bytes(4096), BEHIND_ZONE)
    wait_until(lambda: sleeps(server.pid), "a server at rest")
    client.shutdown()


def test_server_that_slept_gives_memory_back(server: RunningServer) -> None:
    client = connected(server)
    client.pwrite(random.Random(1).randbytes(MIB), BEHIND_ZONE)
    wait_until(lambda: sleeps(server.pid), "a server at rest")
    used = in_use(server)
    client.trim(MIB, BEHIND_ZONE)
    wait_until(lambda: in_use(server) <= used - MIB // 2, "memory given back")
    client.shutdown()
