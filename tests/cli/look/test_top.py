# SPDX-License-Identifier: BSD-3-Clause
"""`top`: its frames, and the terminal before and after it."""

import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from preswapd.api.client import Client
from preswapd.api.figures import Statistics
from preswapd.cli.look.rows import Moment
from preswapd.cli.look.top_view import HostMemory, View, duration, shares
from preswapd.cli.look.watching import Watched
from preswapd.errors import UnreachableError
from preswapd.host.meminfo import available_memory
from preswapd.host.pressure import Pressure, memory_pressure
from tests.running import PATIENCE, PRESWAPCTL, RunningServer

MIB = 1 << 20
ENTER_SCREEN, LEAVE_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"


# --- frames ---


def moment(name: str, clock: float, loads: int = 0, **more: Any) -> Moment:
    device = {
        "size": 64 * MIB,
        "preswap_pages": 512,
        "disk_pages": 256,
        "lost_pages": 0,
        "loads": loads,
        "disk_reads": loads // 4,
        "succ_stores": 512,
        **more,
    }
    tmem = {
        "mem_limit": 8 * MIB,
        "mem_used_total": 4 * MIB,
        "compr_data_size": 3 * MIB,
        "orig_data_size": 6 * MIB,
        "stored_pages": 1536,
        "staged_pages": 256,
        "puts": loads,
    }
    devices = {f"{name}-swap": device}
    stats = {"instance": name, "version": "9.8.7", "tmem": tmem, "devices": devices}
    return Moment(cast(Statistics, stats), clock, time.time())


def watched(name: str, now: Moment | None, before: Moment | None = None) -> Watched:
    return Watched(name, Client(Path("nowhere")), now, before)


def drawn(*found: Watched, width: int = 130, encoding: str = "utf-8") -> str:
    file = StringIO()
    console = Console(file=file, width=width, color_system=None)
    view = View(console, 1.0)
    console.print(view.frame(found, HostMemory(3 * MIB, None)))
    return file.getvalue()


def test_pool_and_device_with_rates() -> None:
    text = drawn(watched("vm1", moment("vm1", 12.0, 400), moment("vm1", 10.0)))
    assert "4M of 8M used" in text
    assert "payload 2M" in text
    assert "staged 1M" in text
    assert "ratio 1.50" in text
    assert "PUTS/S 200" in text
    head, row = (line.split() for line in text.splitlines()[-2:])
    cells = dict(zip(head, row, strict=True))
    assert (cells["NAME"], cells["USED"], cells["TMEM"]) == ("vm1-swap", "3M", "2M")
    assert (cells["LOADS/S"], cells["DISKR/S"], cells["HIT%"]) == ("200", "50", "80.0")


def with_store(name: str, clock: float, reads: int, **more: object) -> Moment:
    found = moment(name, clock)
    remote = {
        "remote_used": True,
        "remote_nodes": 3,
        "remote_nodes_up": 3,
        "remote_open": False,
        "remote_bytes": 5 * MIB,
        "remote_reads": reads,
        "remote_misses": 7,
        "remote_late": 0,
        "remote_sets": 0,
        **more,
    }
    return found._replace(stats=cast(Statistics, {**found.stats, "remote": remote}))


def test_store_of_the_remote_tier() -> None:
    text = drawn(watched("vm1", with_store("vm1", 12.0, 400), with_store("vm1", 10.0, 0)))
    assert "  store: 3 of 3 nodes  STORER/S 200  STOREW/S 0  STORE 5M  STOREMISSES 7" in text
    text = drawn(watched("vm1", with_store("vm1", 12.0, 0, remote_used=False)))
    assert "  store: not used\n" in text
    assert "store" not in drawn(watched("vm1", moment("vm1", 12.0)))


def test_what_leaves_memory_and_what_comes_back_soon() -> None:
    before = moment("vm1", 10.0, written_back_pages=40, refaults=0)
    now = moment("vm1", 12.0, written_back_pages=100, refaults=10)
    text = drawn(watched("vm1", now, before), width=200)
    assert "HIT% -  MOVED/S 30  REFAULTS/S 5.0" in text
    head, row = (line.split() for line in text.splitlines()[-2:])
    cells = dict(zip(head, row, strict=True))
    assert (cells["MOVED/S"], cells["REFAULTS/S"]) == ("30", "5.0")


def test_rates_when_an_answer_came_late() -> None:
    """It hung for 10 s and answered then: what had come together was not of the last moment."""
    stats = moment("vm1", 0.0, 400).stats
    now = time.monotonic()
    late, next_one = Moment.of(stats, now - 10), Moment.of(stats, now)
    assert 4 < next_one.clock - late.clock < 10


def test_instances_below_each_other() -> None:
    text = drawn(*(watched(name, moment(name, 1.0)) for name in ("vm1", "a-longer-name")))
    heads = [line.index("USED ") for line in text.splitlines() if "NAME" in line]
    assert len(heads) == 2
    assert len(set(heads)) == 1


def test_one_that_is_away_beside_one_that_is_there() -> None:
    away = watched("vm2", None, moment("vm2", 1.0))
    away.away, away.away_since = UnreachableError("nobody answers"), time.monotonic() - 3
    text = drawn(watched("vm1", moment("vm1", 1.0)), away)
    assert "vm1-swap" in text
    assert "vm2  away for 3 s: nobody answers" in text


def test_latency_has_columns_where_it_is_measured() -> None:
    assert "READ-P99" not in drawn(watched("vm1", moment("vm1", 1.0)))
    latency = {"read": {"p50": 0.00002, "p99": 0.004}}
    measured = moment("vm1", 1.0, latency=latency)
    text = drawn(watched("vm1", measured), watched("b", moment("b", 1.0)))
    head, row = (line.split() for line in text.splitlines()[5:7])
    assert dict(zip(head, row, strict=True))["READ-P99"] == "4.0ms"


@pytest.mark.parametrize("width", [20, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    text = drawn(watched("vm1", moment("vm1", 12.0, 400), moment("vm1", 10.0)), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert len(text.splitlines()) == 7
    assert "NAME" in text
    assert ("SIZE" in text) == (width == 200)


@pytest.mark.parametrize("parts", [(0, 0, 0, 0), (1, 0, 0, 0), (3, 1, 2, 94), (1, 1, 1, 1)])
def test_bar_is_as_long_as_it_should(parts: tuple[int, ...]) -> None:
    assert sum(shares(parts, 40)) == (40 if any(parts) else 0)
    assert min(shares(parts, 40)) >= 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (59, "59s"), (3599, "59m"), (3600, "1h 0m"), (90000, "1d 1h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_memory_of_this_host() -> None:
    available = available_memory()
    assert available is not None
    assert 0 < available < 1 << 50


def test_what_the_host_does_not_tell(tmp_path: Path) -> None:
    assert available_memory(tmp_path / "missing") is None
    assert memory_pressure(tmp_path / "missing") is None
    (tmp_path / "memory").write_text(
        "some avg10=1.25 avg60=0.00 avg300=0.00 total=9\n"
        "full avg10=0.50 avg60=0.00 avg300=0.00 total=3\n"
    )
    assert memory_pressure(tmp_path / "memory") == Pressure(1.25, 0.5)
    assert "MemAvailable 3M, memory pressure not available" in drawn()


# --- the command ---


def test_batch_prints_plain_frames(module_server: RunningServer) -> None:
    text = module_server.ctl("top", "--batch", "-n", "2", "-d", "0.1").stdout
    assert "\x1b" not in text
    first, second = text.split("\n\npreswapctl top")
    assert "LOADS/S" in first
    assert second.splitlines()[-1].split()[0] == "g1"


@pytest.mark.parametrize(("locale", "plain"), [("C", True), ("C.UTF-8", False)])
def test_bar_is_what_the_locale_can_show(
    module_server: RunningServer, locale: str, plain: bool
) -> None:
    command = [PRESWAPCTL, f"--runtime-dir={module_server.runtime_dir}", "top", "-b", "-n1"]
    shown = subprocess.run(
        command, env={**os.environ, "LC_ALL": locale}, stdout=subprocess.PIPE, check=True
    ).stdout
    assert shown.isascii() == plain


def test_batch_shows_a_restart(server: RunningServer) -> None:
    command = [PRESWAPCTL, f"--runtime-dir={server.runtime_dir}", "top", "-b", "-d", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None

        def until(text: str) -> None:
            assert process.stdout is not None
            assert any(text in line for line in process.stdout), f"no {text!r}"

        until("default  preswapd")
        server.kill()
        until("default  away for")
        server.start()
        until("default  preswapd")
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["top"], 2),
        (["--json", "top", "-b"], 2),
        (["top", "-b", "-n", "0"], 2),
        (["top", "-b", "-d", "x"], 2),
    ],
)
def test_top_without_what_it_needs(
    module_server: RunningServer, arguments: list[str], status: int
) -> None:
    done = module_server.ctl(*arguments, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1)


class Screen:
    """A terminal with `top` on it."""

    def __init__(
        self, server: RunningServer, *arguments: str, term: str = "xterm-256color"
    ) -> None:
        self.master, self.slave = pty.openpty()
        self.settings = termios.tcgetattr(self.slave)
        command = [PRESWAPCTL, f"--runtime-dir={server.runtime_dir}", "top", *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            env={**os.environ, "TERM": term, "COLUMNS": "120", "LINES": "40"},
        )
        self.shown = b""

    def until(self, text: bytes) -> None:
        since = len(self.shown)
        while text not in self.shown[since:]:
            ready, _, _ = select.select([self.master], [], [], PATIENCE)
            assert ready, f"no {text!r} in {self.shown!r}"
            self.shown += os.read(self.master, 65536)

    def until_end(self) -> None:
        """What else comes; a terminal that nobody reads would keep its writer from ending."""
        while self.process.poll() is None or select.select([self.master], [], [], 0)[0]:
            if select.select([self.master], [], [], 0.02)[0]:
                self.shown += os.read(self.master, 65536)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


def test_terminal_that_only_prints_lines(module_server: RunningServer) -> None:
    """Nothing would be seen on it."""
    with closing(Screen(module_server, "-n", "2", "-d", "0.1", term="dumb")) as screen:
        screen.until_end()
        assert screen.process.returncode == 2
        assert b"--batch prints plain frames" in screen.shown


@pytest.fixture
def screen(module_server: RunningServer) -> Iterator[Screen]:
    screen = Screen(module_server, "-d", "0.2")
    yield screen
    screen.close()


@pytest.mark.parametrize(
    ("ending", "status"),
    [(b"q", 0), (signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=str,
)
def test_terminal_is_left_as_it_was(screen: Screen, ending: Any, status: int) -> None:
    screen.until(b"STORES/S")
    assert termios.tcgetattr(screen.slave) != screen.settings
    if isinstance(ending, bytes):
        screen.type(b"x")
        screen.until(b"STORES/S")
        screen.type(ending)
    else:
        screen.process.send_signal(ending)
    screen.until(LEAVE_SCREEN)
    screen.until_end()
    assert screen.process.wait(PATIENCE) == status
    assert termios.tcgetattr(screen.slave) == screen.settings
    assert screen.shown.startswith(ENTER_SCREEN)
    assert screen.shown.count(ENTER_SCREEN) == screen.shown.count(LEAVE_SCREEN) == 1
    assert screen.shown.rindex(b"\x1b[?25h") > screen.shown.rindex(b"\x1b[?25l")
    assert b"Traceback" not in screen.shown


def test_top_is_drawn_through_a_restart(server: RunningServer) -> None:
    screen = Screen(server, "-d", "0.2")
    try:
        screen.until(b"STORES/S")
        server.kill()
        screen.until(b"away for")
        server.start()
        screen.until(b"STORES/S")
        screen.type(b"q")
        screen.until_end()
        assert screen.process.wait(PATIENCE) == 0
    finally:
        screen.close()
