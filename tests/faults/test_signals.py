# SPDX-License-Identifier: BSD-3-Clause
"""The server ends, cleanly or not, in the midst of each long operation, and nothing is lost.

Each operation is held at one of its system calls, so that the signal surely finds it there.
"""

import errno
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import nbd
import pytest

from preswapd.demo.server import ServerError
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import Connect
from tests.faults.conftest import MIB, NOISE, counters, error_of, place, places
from tests.faults.injection import Call, Injector
from tests.running import PRESWAPCTL, RunningServer, run, wait_for

CONTENT = NOISE[PAGE : 4 * MIB]
FIRST = CONTENT[: 2 * MIB]
IMAGE = "/g1.img"
QUOTA = "preswap.default.g1.quota"
ENDS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)


@pytest.fixture
def filled(faulty: RunningServer, connect: Connect) -> RunningServer:
    """Half of CONTENT on disk, half in tmem."""
    client = connect(faulty)
    client.pwrite(FIRST, place(1), flags=nbd.CMD_FLAG_FUA)
    client.pwrite(CONTENT[len(FIRST) :], place(1) + len(FIRST))
    client.shutdown()
    return faulty


@contextmanager
def running(server: RunningServer, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A preswapctl that goes on beside the test."""
    with subprocess.Popen(
        [PRESWAPCTL, f"--runtime-dir={server.runtime_dir}", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def content(client: Any) -> bytes:
    return bytes(client.pread(len(CONTENT), place(1)))


def check_all_unknown(client: Any) -> None:
    """No page is what it was, nor zeros that somebody may take for it."""
    for number in range(1, 1 + len(CONTENT) // PAGE):
        assert error_of(client.pread, PAGE, place(number)) == errno.EIO


def end_during(
    server: RunningServer, injector: Injector, number: signal.Signals, *command: str
) -> None:
    """The signal once the command is held at the injector's call; then a start."""
    with running(server, *command) as process:
        injector.wait()
        assert server.stop(number) == (0 if number == signal.SIGTERM else -number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 3, said
    assert "went away" in said.splitlines()[-1]
    injector.end()
    server.start()


def wait_until_told(process: subprocess.Popen[str], lines: int = 1) -> None:
    """By so many lines of progress: the first one says that it is begun, or set."""
    assert process.stderr is not None
    for _ in range(lines):
        assert "moved" in process.stderr.readline()


def interrupt(process: subprocess.Popen[str], injector: Injector) -> None:
    """Ctrl-C where its report is waited for, and an end of what the injector holds.

    Not at once: nothing but lines that come later shows that the server has seen it.  Two may have
    been on their way, and before each of the others it looks.
    """
    injector.wait()
    wait_until_told(process)
    process.send_signal(signal.SIGINT)
    wait_until_told(process, 4)
    injector.end()


# --- preswapctl ---


def shrink_again(server: RunningServer) -> None:
    """Once the one whose operator has gone has noticed that."""
    done = wait_for(lambda: server.ctl("shrink", "0", check=False), lambda it: it.returncode != 4)
    assert done.returncode == 0


def test_interrupted_shrink_ends_with_5_and_goes_on_when_run_again(
    filled: RunningServer, injector: Injector, connect: Connect
) -> None:
    injector.hold(Call.WRITE, IMAGE)
    with running(filled, "shrink", "0") as shrink:
        interrupt(shrink, injector)
        _, said = shrink.communicate(timeout=30)
    assert shrink.returncode == 5
    assert "still in tmem (interrupted); run it again to go on" in said
    shrink_again(filled)
    assert content(connect(filled)) == CONTENT


def test_shrink_in_the_background_of_a_script_goes_on_at_ctrl_c(
    filled: RunningServer, injector: Injector
) -> None:
    """A shell has it ignore the signal, which goes to all processes of the terminal."""
    injector.hold(Call.WRITE, IMAGE)
    command = [PRESWAPCTL, f"--runtime-dir={filled.runtime_dir}", "shrink", "0"]
    in_background = ["/bin/sh", "-c", """trap '' INT; exec "$@" """, "sh", *command]
    with subprocess.Popen(in_background, stdout=subprocess.PIPE, text=True) as shrink:
        injector.wait()
        shrink.send_signal(signal.SIGINT)
        injector.end()
        said, _ = shrink.communicate(timeout=30)
    assert (shrink.returncode, "0 pages (0B) left in tmem" in said) == (0, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_killed_preswapctl_stops_its_shrink(
    filled: RunningServer, injector: Injector, connect: Connect, number: signal.Signals
) -> None:
    injector.hold(Call.WRITE, IMAGE)
    with running(filled, "shrink", "0") as shrink:
        injector.wait()
        shrink.send_signal(number)
        assert shrink.wait(30) == -number
    injector.end()
    shrink_again(filled)
    assert content(connect(filled)) == CONTENT


def quota_is_kept(server: RunningServer, pages: int) -> None:
    """And room in it, which may have been made by then, and beside a shrink that began."""
    wait_for(lambda: counters(server)["preswap_pages"], lambda left: left <= pages)


def test_interrupted_setting_ends_with_5_and_the_server_goes_on(
    filled: RunningServer, injector: Injector, connect: Connect
) -> None:
    injector.hold(Call.WRITE, IMAGE)
    with running(filled, "sysctl", f"{QUOTA}=100") as setting:
        injector.wait()
        wait_until_told(setting)
        setting.send_signal(signal.SIGINT)
        told, said = setting.communicate(timeout=30)
    assert (setting.returncode, told) == (5, "")
    assert said.startswith(f"preswapctl: interrupted: {QUOTA} is set, and the server goes on")
    # As it is printed, and of this instance.
    looking = re.findall(r"`(.*?)`", said)[0]
    status = run(["sh", "-c", looking]).stdout
    assert status.startswith(f"a shrink, to fit {QUOTA}, to 100 pages (400K) is under way: ")
    injector.end()
    quota_is_kept(filled, 100)
    assert content(connect(filled)) == CONTENT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_killed_preswapctl_stops_no_fit(
    filled: RunningServer, injector: Injector, connect: Connect, number: signal.Signals
) -> None:
    """Neither the one that began it, nor one that only followed it."""
    injector.hold(Call.WRITE, IMAGE)
    with running(filled, "sysctl", f"{QUOTA}=200") as first:
        injector.wait()
        with running(filled, "sysctl", f"{QUOTA}=100") as second:
            for setting in (second, first):
                wait_until_told(setting)
                setting.send_signal(number)
                assert setting.wait(30) == -number
    injector.end()
    quota_is_kept(filled, 100)
    assert content(connect(filled)) == CONTENT


def test_stopped_fit_says_so_to_whoever_waits(
    filled: RunningServer, injector: Injector, connect: Connect
) -> None:
    connect(filled).pwrite(NOISE, 24 * MIB)
    injector.hold(Call.WRITE, IMAGE)
    with running(filled, "sysctl", f"{QUOTA}=100") as setting:
        injector.wait()
        filled.ctl("shrink", "--stop")
        injector.end()
        _, said = setting.communicate(timeout=30)
    assert setting.returncode == 5
    assert "still in tmem (interrupted); run it again to go on" in said
    assert filled.ctl("sysctl", f"{QUOTA}=100").returncode == 0
    assert counters(filled)["preswap_pages"] <= 100


def test_limit_is_set_while_a_shrink_runs_and_kept_after_it(
    filled: RunningServer, injector: Injector, connect: Connect
) -> None:
    injector.hold(Call.WRITE, IMAGE)
    with running(filled, "shrink", "400") as shrink:
        injector.wait()
        with running(filled, "sysctl", f"{QUOTA}=100") as setting:
            wait_for(lambda: filled.ctl("sysctl", "-n", QUOTA).stdout, lambda now: now == "100\n")
            injector.end()
            for process in (shrink, setting):
                process.communicate(timeout=30)
                assert process.returncode == 0
    assert counters(filled)["preswap_pages"] <= 100
    assert content(connect(filled)) == CONTENT


# --- the server ---


@ENDS
def test_server_ends_during_a_shrink(
    filled: RunningServer, injector: Injector, connect: Connect, number: signal.Signals
) -> None:
    injector.hold(Call.WRITE, IMAGE)
    end_during(filled, injector, number, "shrink", "0")
    assert content(connect(filled)) == CONTENT


@ENDS
def test_server_ends_during_a_fit_and_the_next_one_goes_on(
    filled: RunningServer, injector: Injector, connect: Connect, number: signal.Signals
) -> None:
    injector.hold(Call.WRITE, IMAGE)
    end_during(filled, injector, number, "sysctl", f"{QUOTA}=100")
    quota_is_kept(filled, 100)
    assert content(connect(filled)) == CONTENT


@ENDS
def test_server_ends_during_a_creation(
    filled: RunningServer, injector: Injector, connect: Connect, number: signal.Signals
) -> None:
    """Half a device is none, and its name is free."""
    injector.hold(Call.RENAME, "/g2.json")
    end_during(filled, injector, number, "create", "g2", "1M")
    assert filled.json_stats()["devices"].keys() == {"g1"}
    assert not list(filled.state_dir.glob("g2*"))
    assert content(connect(filled)) == CONTENT
    assert filled.ctl("create", "g2", "2M").returncode == 0


@ENDS
def test_server_ends_during_a_removal(
    filled: RunningServer, injector: Injector, connect: Connect, number: signal.Signals
) -> None:
    """The next start finishes it."""
    filled.ctl("create", "g2", "1M")
    client = connect(filled, "g2")
    client.pwrite(CONTENT[: 100 * PAGE], PAGE)
    client.shutdown()
    injector.hold(Call.UNLINK, "/g2.json")
    end_during(filled, injector, number, "remove", "g2", "--yes")
    assert filled.json_stats()["devices"].keys() == {"g1"}
    assert not list(filled.state_dir.glob("g2*"))
    assert content(connect(filled)) == CONTENT


@ENDS
def test_server_ends_during_a_swapoff(
    filled: RunningServer, injector: Injector, connect: Connect, number: signal.Signals
) -> None:
    """What was dropped stays dropped; run again it gives the disk's blocks back."""
    injector.hold(Call.PUNCH, IMAGE, pages=places(100, 101))
    end_during(filled, injector, number, "swapoff", "g1", "--yes")
    check_all_unknown(connect(filled))
    filled.ctl("swapoff", "g1", "--yes")
    assert counters(filled)["disk_pages"] == 1
    assert (filled.state_dir / "g1.img").stat().st_blocks * 512 <= 64 << 10


def start_and_end(
    server: RunningServer, injector: Injector, number: signal.Signals, call: Call, path: str
) -> None:
    """A start that is held at that call when the signal comes."""
    injector.hold(call, path)
    process = subprocess.Popen(server.command(), stderr=subprocess.DEVNULL, env=server.env)
    with process:
        injector.wait()
        process.send_signal(number)
        if number == signal.SIGTERM:
            injector.end()
        assert process.wait(30) in {0, -number}
    injector.end()


@ENDS
def test_server_ends_during_its_recovery(
    filled: RunningServer, injector: Injector, connect: Connect, number: signal.Signals
) -> None:
    filled.kill()
    start_and_end(filled, injector, number, Call.SEEK, "/arena")
    filled.start()
    assert content(connect(filled)) == CONTENT


@ENDS
def test_server_ends_while_it_discards_its_state(
    filled: RunningServer, injector: Injector, connect: Connect, number: signal.Signals
) -> None:
    """Discarding again ends it: nothing is known."""
    filled.kill()
    filled.extra = ["--discard-state"]
    start_and_end(filled, injector, number, Call.RENAME, "/g1.json")
    filled.start()
    check_all_unknown(connect(filled))


def test_half_discarded_state_is_refused_or_empty(
    filled: RunningServer, injector: Injector, connect: Connect
) -> None:
    """A start without the option never serves what is left of it."""
    filled.kill()
    filled.extra = ["--discard-state"]
    start_and_end(filled, injector, signal.SIGKILL, Call.RENAME, "/g1.img")
    filled.extra = []
    with pytest.raises(ServerError, match="--discard-state starts empty"):
        filled.start()
    assert filled.wait() == 4


# --- preswapctl on a server that does not end ---


def test_second_operator_waits_for_no_one(filled: RunningServer, injector: Injector) -> None:
    """A shrink that the disk holds up refuses the next one at once."""
    injector.hold(Call.WRITE, IMAGE)
    with running(filled, "shrink", "0") as shrink:
        injector.wait()
        done = filled.ctl("shrink", "0", check=False)
        injector.end()
        shrink.communicate(timeout=30)
    assert (done.returncode, shrink.returncode) == (4, 0)
    assert "under way already" in done.stderr
