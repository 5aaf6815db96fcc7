# SPDX-License-Identifier: BSD-3-Clause
"""The log: one line for each event that matters, and none for a request."""

import os
import random
import subprocess
from contextlib import suppress
from typing import Any

import nbd
import pytest

from preswapd.server.exports import ClientCount
from preswapd.server.watch import QUIET_SECONDS, GuestLog, Trouble
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, connected
from tests.conftest import StartServer
from tests.running import PATIENCE, RunningServer, run
from tests.tmem.arena_file import flip_bit, slots_of

NOISE = random.Random(5).randbytes(8 << 20)


# --- events of a real server ---


def test_clients_come_and_go(server: RunningServer) -> None:
    client = connected(server)
    server.wait_for_line("g1: a client connected, 1 now")
    client.shutdown()
    server.wait_for_line("g1: a client disconnected, 0 now")


def test_full_pool_is_one_line(start_server: StartServer) -> None:
    server = start_server(pool_size="4M")
    client = connected(server)
    client.pwrite(NOISE, BEHIND_ZONE)
    server.wait_for_line("tmem takes no more pages (")
    # The next look, which tells of the client, finds more of the same.
    client.pwrite(NOISE, BEHIND_ZONE)
    client.shutdown()
    server.wait_for_line("g1: a client disconnected")
    assert server.log.count("tmem takes no more pages") == 1
    assert len(server.lines) == 4


def test_host_short_of_memory(start_server: StartServer) -> None:
    server = start_server(extra=["--host-reserve=1024T"])
    connected(server).pwrite(NOISE, BEHIND_ZONE)
    server.wait_for_line("the host or a cgroup has no memory to spare for tmem (")


def test_damaged_page(server: RunningServer) -> None:
    client = connected(server)
    client.pwrite(NOISE[:PAGE], BEHIND_ZONE)
    server.settled_stats()
    (slot,) = (slot for slot in slots_of(server.arena) if slot.page == NOISE[:PAGE])
    flip_bit(server.arena, slot.payload_at + 1000, 3)
    for _ in range(3):
        with pytest.raises(nbd.Error):
            client.pread(PAGE, BEHIND_ZONE)
    server.wait_for_line("a damaged or lost page was read")


def test_reads_of_unknown_pages(server: RunningServer) -> None:
    connected(server).pwrite(NOISE[:PAGE], BEHIND_ZONE)
    server.kill()
    server.reboot()
    server.start()
    for _ in range(3):
        with pytest.raises(nbd.Error):
            connected(server).pread(PAGE, BEHIND_ZONE)
    server.wait_for_line("g1: a page was read that no guest has written as far as is known")
    assert server.log.count("that no guest has written") == 1


def test_shrink_from_its_beginning_to_its_end(server: RunningServer) -> None:
    connected(server).pwrite(NOISE[: 20 * PAGE], BEHIND_ZONE)
    server.ctl("shrink", "0")
    server.wait_for_line("shrink from 20 to 0 pages begins")
    end = server.wait_for_line("shrink ended after ")
    assert end.endswith(" s: 20 pages moved to disk, 0 left in memory")


def test_shrink_of_nothing_is_no_event(server: RunningServer) -> None:
    server.ctl("shrink", "20")
    server.ctl("freeze")  # a line that comes after it
    server.wait_for_line("set preswap.default.frozen = 1")
    assert "shrink" not in server.log


def test_shrink_that_stops_early(server: RunningServer) -> None:
    connected(server).pwrite(NOISE[: 20 * PAGE], BEHIND_ZONE)
    # A limit of the file's size is a disk error that needs no root to make.
    limit = f"prlimit --pid {server.pid} --fsize=4096:4096"
    assert run(["/bin/sh", "-c", limit]).returncode == 0
    assert server.ctl("shrink", "0", "g1", check=False).returncode == 5
    server.wait_for_line("shrink of g1 from 20 to 0 pages begins")
    stopped = server.wait_for_line("shrink stopped after ")
    assert "(g1: File too large): 0 pages moved to disk, 20 left in memory" in stopped
    server.wait_for_line("disk file of g1: File too large")


def test_devices_that_an_operator_changes(server: RunningServer) -> None:
    client = connected(server)
    client.pwrite(NOISE[: 2 * PAGE], BEHIND_ZONE)
    client.shutdown()
    server.ctl("create", "g2", "1M")
    server.wait_for_line("created device g2 of 1M")
    server.ctl("mkswap", "g2")
    server.wait_for_line("wrote a swap header to g2")
    server.ctl("remove", "g2")
    server.wait_for_line("removed device g2")
    server.ctl("swapoff", "g1", "--yes")
    server.wait_for_line("swapoff of g1: dropped 2 pages in memory, 0 on disk")


def test_stop_and_start_tell_what_stays(server: RunningServer) -> None:
    connected(server).pwrite(NOISE[: 3 * PAGE], BEHIND_ZONE)
    server.stop()
    assert server.lines[-1] == "stopping on SIGTERM: 3 pages stay in memory for the next start"
    server.start()
    line = server.wait_for_line("recovered 3 pages in ")
    assert line.endswith("0 damaged slots, 0 pages lost")


# --- the journal ---


def journal(server: RunningServer, *options: str, stop: bool = True) -> list[str]:
    """What systemd's journal would get; this stands in for its socket."""
    reading, writing = os.pipe()
    status = os.fstat(writing)
    stream = f"{status.st_dev}:{status.st_ino}"
    with open(reading) as log, open(writing, "w") as stderr:
        process = subprocess.Popen(
            [*server.command(), *options],
            stderr=stderr,
            env={**os.environ, "JOURNAL_STREAM": stream},
        )
        stderr.close()
        try:
            lines = [log.readline().rstrip("\n")]
            if stop:
                process.terminate()
            process.wait(PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
        return lines + log.read().splitlines()


def test_journal_gets_priorities(start_server: StartServer) -> None:
    ready, stopping = journal(start_server(start=False))
    assert ready.startswith("<6>ready: ")
    assert stopping.startswith("<6>stopping on SIGTERM")


def test_journal_gets_refusals_as_errors(server: RunningServer) -> None:
    (line,) = journal(server, stop=False)
    assert line.startswith("<3>preswapd: ")
    assert "in use by another server" in line


def test_nobody_else_gets_priorities(server: RunningServer) -> None:
    assert "<" not in server.wait_for_line("ready")


# --- bursts, with a clock of our own ---


class Told:
    """Stands in for an instance and its exports: what is logged, and who came and went."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self.clients: dict[str, ClientCount] = {}
        self.now = 0.0
        self.activity = self
        self.watch = GuestLog(self, self, lambda: self.now)  # type: ignore[arg-type]

    def log(self, priority: int, text: str) -> None:
        self.lines.append((priority, text))

    def counters(self) -> tuple[int, ...]:
        return (len(self.clients),)

    def stats(self) -> dict[str, Any]:
        tmem = ["mem_used_total", "mem_limit", "pool_limit_hit", "reject_alloc_fail"]
        return {"tmem": dict.fromkeys([*tmem, "checksum_errors"], 0), "devices": {}}

    def follow(self, now: float, count: int) -> list[str]:
        """The lines of a look at which a counter stands there."""
        self.now = now
        before = len(self.lines)
        self.watch.follow(Trouble("x", count, 4, "it begins", "{count} in {seconds} s"))
        return [text for _, text in self.lines[before:]]


def test_burst_is_told_at_its_beginning_and_at_its_end() -> None:
    told = Told()
    assert told.follow(0, 0) == []
    assert told.follow(1, 5) == ["it begins"]
    assert told.follow(2, 9) == []
    assert told.follow(31, 12) == []
    assert told.follow(30 + QUIET_SECONDS, 12) == []
    assert told.follow(31 + QUIET_SECONDS, 12) == ["12 in 30 s"]
    assert told.follow(500, 12) == []
    assert told.follow(501, 13) == ["it begins"]


def test_single_moment_is_told_once() -> None:
    told = Told()
    assert told.follow(1, 5) == ["it begins"]
    assert told.follow(2 + QUIET_SECONDS, 5) == []


def test_several_clients_within_a_second_are_one_line() -> None:
    told = Told()
    told.clients["g1"] = ClientCount(came=7, went=5)
    told.watch.look()
    told.watch.look()
    assert told.lines == [(6, "g1: 7 clients connected, 5 clients disconnected, 2 now")]
