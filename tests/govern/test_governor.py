# SPDX-License-Identifier: BSD-3-Clause
"""A governor and two instances, all of them real processes; only the host's memory is made up
(governor.py says why)."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preswapd.api.governor import GovernorStatus, governor
from preswapd.errors import UnreachableError
from tests.clients import BEHIND_ZONE, connected
from tests.running import PRESWAPCTL, PRESWAPD, RunningServer, run, wait_for, wait_until

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
RESERVE = 64 * MIB
POOL = 160 * MIB
WRITTEN = 90
# The dead band of the policy, and what a pool's memory may differ from its figure.
BAND = 16 * MIB
NOISE = {name: random.Random(name).randbytes(MIB) for name in "ab"}


class Host:
    """Two instances below one root, full of pages that do not compress, and a governor."""

    def __init__(self, tmp: Path, stack: ExitStack) -> None:
        self.stack = stack
        self.base = Path(tempfile.mkdtemp(prefix="preswapd-gov-", dir="/dev/shm"))
        self.root, self.own = self.base / "root", self.base / "preswapd-governor"
        self.servers = {name: self.server(tmp / name, name) for name in NOISE}
        self.memory_file = tmp / "memory"
        self.config = tmp / "governor.toml"
        self.config.write_text(f'reserve = {RESERVE}\n[instance.b]\nweight = 300\nfloor = "16M"\n')
        self.log_file = tmp / "governor.log"

    def server(self, tmp: Path, name: str) -> RunningServer:
        tmp.mkdir()
        server = self.stack.enter_context(
            RunningServer(tmp, {"g": "256M"}, f"{POOL}", [f"--instance={name}"], start=False)
        )
        paths = replace(
            server.paths, runtime_dir=self.root / name, shm_dir=self.base / "shm" / name
        )
        server.paths = paths
        server.start()
        return server

    def fill(self) -> None:
        for name, server in self.servers.items():
            client = connected(server, "g")
            for number in range(WRITTEN):
                client.pwrite(self.page(name, number), BEHIND_ZONE + number * MIB)
            client.shutdown()
            server.settled_stats()

    def page(self, name: str, number: int) -> bytes:
        return number.to_bytes(4, "big") * 1024 + NOISE[name][4096:]

    def check_content(self) -> None:
        for name, server in self.servers.items():
            client = connected(server, "g")
            for number in range(WRITTEN):
                assert client.pread(MIB, BEHIND_ZONE + number * MIB) == self.page(name, number)
            client.shutdown()

    @property
    def used(self) -> int:
        return sum(server.arena_size() for server in self.servers.values())

    def have(self, more: int) -> None:
        """So much beyond the pools and the reserve, once and for all: what pools give back adds."""
        whole = self.memory_file.with_suffix(".new")
        whole.write_text(str(self.used + RESERVE + more))
        whole.replace(self.memory_file)  # in one step: the governor reads it at any time

    @property
    def available(self) -> int:
        return int(self.memory_file.read_text()) - self.used

    # --- the governor ---

    def command(self, *words: str) -> list[str]:
        script = [sys.executable, "-m", "tests.govern.governor"]
        where = [f"--instances={self.root}", f"--runtime-dir={self.own}"]
        return [*script, str(self.memory_file), str(self.base), "govern", *where, *words]

    def govern(self, *words: str) -> "subprocess.Popen[bytes]":
        with self.log_file.open("ab") as log:
            child = subprocess.Popen(
                self.command(f"--config={self.config}", *words), stdout=log, stderr=log, cwd=ROOT
            )
        self.stack.callback(end, child)
        before = self.log.count("ready: ")
        wait_until(lambda: self.log.count("ready: ") > before, "the governor")
        return child

    def once(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, check=False, cwd=ROOT
        )

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def status(self) -> GovernorStatus:
        return governor(self.own).status()

    def limits(self) -> dict[str, int | str]:
        return {name: self.limit(name) for name in self.servers}

    def limit(self, name: str) -> int | str:
        found: int | str = self.servers[name].client.sysctl()[f"preswap.{name}.governed_limit"]
        return found


def end(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        child.kill()
    child.wait()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with ExitStack() as stack:
        made = Host(tmp_path, stack)
        yield made
        print(f"--- log of the governor ---\n{made.log}")
    run(["rm", "-rf", str(made.base)])


def governed(limits: dict[str, int | str]) -> bool:
    return all(isinstance(limit, int) for limit in limits.values())


def test_shortage_and_what_comes_after_it(host: Host) -> None:
    host.fill()
    host.have(300 * MIB)
    child = host.govern()
    assert wait_for(host.limits, governed) == {"a": POOL, "b": POOL}
    # Another program takes all of that, and 60 MiB more than there should be.
    host.have(-60 * MIB)
    wait_until(lambda: host.available >= RESERVE - BAND, "memory for the other program")
    status = wait_for(host.status, lambda status: status["taken"] == 1)
    taken = next(made for made in status["decisions"] if made["reason"] == "short")
    assert 60 * MIB - BAND <= taken["excess"] <= 60 * MIB + BAND
    limits = host.limits()
    assert governed(limits)
    assert sum(int(limit) for limit in limits.values()) <= status["total"]
    # No page twice: beyond the gap goes only what writeback-room keeps free.  And b, with three
    # times the weight, keeps more.
    assert host.available <= RESERVE + 3 * BAND
    assert int(limits["a"]) < int(limits["b"])
    assert "the host is short of " in host.log
    host.check_content()
    # Its death changes nothing, and the next one goes on where it was.
    child.kill()
    child.wait()
    with pytest.raises(UnreachableError, match="systemctl start preswapd-governor"):
        host.status()
    assert host.limits() == limits
    host.servers["a"].restart()
    assert host.limits() == limits
    host.govern()
    wait_for(host.status, lambda status: status["instances"].keys() == {"a", "b"})
    assert host.limits() == limits


def test_one_that_hangs_stops_nobody(host: Host) -> None:
    host.have(200 * MIB)
    host.govern()
    wait_for(host.limits, governed)
    os.kill(host.servers["a"].pid, signal.SIGSTOP)
    try:
        host.have(10 * MIB)
        found = wait_for(host.status, lambda status: "a" in status["absent"])
        assert found["absent"] == {"a": "it does not answer in time"}
        wait_for(lambda: host.limit("b"), lambda limit: isinstance(limit, int) and limit < POOL)
    finally:
        os.kill(host.servers["a"].pid, signal.SIGCONT)
    wait_for(host.status, lambda status: status["instances"].keys() == {"a", "b"})
    # One that goes, and comes back.
    host.servers["b"].stop()
    wait_for(host.status, lambda status: status["instances"].keys() == {"a"})
    host.servers["b"].start()
    wait_for(host.status, lambda status: status["instances"].keys() == {"a", "b"})


def test_one_governor_and_how_its_limits_end(host: Host) -> None:
    host.have(100 * MIB)
    dry = host.once(f"--config={host.config}", "--dry-run", "--once")
    assert dry.returncode == 0
    assert dry.stderr.startswith("would be done: not governed before: a, b (")
    assert host.limits() == {"a": "off", "b": "off"}
    child = host.govern()
    wait_for(host.limits, governed)
    for words in (["--once"], ["--release"], []):
        second = host.once(*words)
        assert (second.returncode, "a governor runs already" in second.stderr) == (4, True)
    assert host.once("--dry-run", "--once").returncode == 0
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 0
    assert host.log.splitlines()[-1].startswith("stopping: the limits stay as they are")
    assert governed(host.limits())
    assert host.once("--release").returncode == 0
    assert host.limits() == {"a": "off", "b": "off"}
    assert host.once(f"--config={host.config}", "--once").returncode == 0
    assert governed(host.limits())
    # It would be governed still when it is started again.
    host.servers["a"].kill()
    done = host.once("--release")
    assert (done.returncode, "a: no preswapd server answers" in done.stderr) == (5, True)
    assert host.limit("b") == "off"


def test_release_that_one_does_not_hear(host: Host) -> None:
    host.have(100 * MIB)
    assert host.once(f"--config={host.config}", "--once").returncode == 0
    os.kill(host.servers["a"].pid, signal.SIGSTOP)
    try:
        done = host.once("--release")
    finally:
        os.kill(host.servers["a"].pid, signal.SIGCONT)
    assert done.returncode == 5
    assert "a: it does not answer in time; run it again" in done.stderr
    assert (host.limit("a") != "off", host.limit("b")) == (True, "off")


def test_operators_limit_holds_below_the_governors(host: Host) -> None:
    host.have(100 * MIB)
    assert host.once(f"--config={host.config}", "--once").returncode == 0
    before = host.limit("a")
    host.servers["a"].client.set("preswap.a.pool_limit", "20M")
    stats = host.servers["a"].json_stats()["tmem"]
    assert (stats["mem_limit"], stats["governed"]) == (20 * MIB, False)
    host.govern()
    wait_for(lambda: host.limit("a"), lambda limit: limit == 20 * MIB)
    host.servers["a"].client.set("preswap.a.pool_limit", "default")
    # What it had is not gone for ever.
    wait_for(lambda: host.limit("a"), lambda limit: int(limit) >= min(int(before), POOL) - BAND)


# --- what operators see ---


def ctl(host: Host, *words: str) -> "subprocess.CompletedProcess[str]":
    return run([PRESWAPCTL, *words, f"--at={host.own}"])


def test_preswapctl_governor(host: Host) -> None:
    host.have(100 * MIB)
    missing = ctl(host, "governor")
    assert (missing.returncode, missing.stderr.count("systemctl start preswapd-governor")) == (3, 1)
    host.govern()
    wait_for(host.limits, governed)
    shown = ctl(host, "governor")
    assert shown.returncode == 0
    first, heading, *rows = shown.stdout.splitlines()
    assert "reserve 64M" in first
    assert heading.split()[:4] == ["INSTANCE", "LIMIT", "USED", "IDLE"]
    assert [row.split()[0] for row in rows[:2]] == ["a", "b"]
    assert rows[1].split()[-3:] == ["16M", "160M", "300"]
    said = ctl(host, "governor", "--explain").stdout
    assert "the reserve, below which the pools give back, is 64M" in said
    assert "\na may take " in said
    assert "\nb may take " in said
    assert "not governed before: a, b (" in said
    assert f"weight, floor and cap of an instance: {host.config}." in said
    found: dict[str, Any] = json.loads(ctl(host, "--json", "governor").stdout)
    assert found.keys() == GovernorStatus.__annotations__.keys()
    assert found["instances"]["b"]["floor"] == 16 * MIB
    named = ctl(host, "--instance=a", "governor")
    assert (named.returncode, "name none" in named.stderr) == (2, True)


def test_bad_configuration_is_named(host: Host) -> None:
    host.config.write_text("reserve = 1\n")
    done = run([PRESWAPD, "govern", f"--config={host.config}", "--once"])
    assert done.returncode == 2
    assert f"{host.config}:1: reserve: a reserve must be at least 64M" in done.stderr
