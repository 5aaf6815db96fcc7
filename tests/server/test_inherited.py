# SPDX-License-Identifier: BSD-3-Clause
"""What a server inherits from the shell that starts it does not change what it does."""

import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, connected
from tests.conftest import StartServer
from tests.running import IS_SANITIZED, PRESWAPCTL, PRESWAPD, RunningServer, run

DATA = os.urandom(PAGE)
UMLAUT = "bücher"
NO_TEXT = os.fsdecode(b"b\xfccher\xff")
ENVIRONMENTS = [
    {"LC_ALL": "C.UTF-8"},
    {"LC_ALL": "C"},
    {"LC_ALL": "", "LC_CTYPE": "", "LANG": "POSIX"},
    {"LC_ALL": "xx_YY.nonsense"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "C", "PYTHONIOENCODING": "ascii:strict"},
    {"PYTHONOPTIMIZE": "2", "PYTHONDEVMODE": "1"},
    {"PYTHONWARNINGS": "error", "PYTHONINSPECT": "1"},
    {"PYTHONHASHSEED": "0", "PYTHONVERBOSE": "1", "PYTHONPROFILEIMPORTTIME": "1"},
]


def started_from(server: RunningServer, setup: str) -> None:
    server.launch(["/bin/bash", "-c", f'{setup}\nexec "$@"', "bash", *server.command()])


def check_goes_on(server: RunningServer) -> None:
    """Pages in tmem and on disk outlive a kill and a start, and operators reach it."""
    device = server.client.device("g1")
    assert (device["preswap_pages"], device["lost_pages"]) == (1, 0)
    assert bytes(connected(server).pread(PAGE, BEHIND_ZONE)) == DATA
    assert bytes(connected(server).pread(PAGE, 0)).endswith(b"SWAPSPACE2")


@pytest.mark.parametrize("folder", [UMLAUT, NO_TEXT], ids=["umlaut", "no text"])
def test_no_encoding_is_taken_for_absence(
    start_server: StartServer, tmp_path: Path, folder: str
) -> None:
    """Whichever locale wrote the names: nothing is missing, nothing is offered to be discarded."""
    server = start_server(start=False, tmp=tmp_path / folder)
    for number, environment in enumerate(ENVIRONMENTS):
        server.env = {**os.environ, **environment}
        server.start()
        if number == 0:
            connected(server).pwrite(DATA, BEHIND_ZONE)
        check_goes_on(server)
        assert server.json_stats()["server"]["state_dir"] == str(tmp_path / folder / "state")
        server.kill()
    assert "missing" not in server.log
    assert "recovered 1 pages" in server.log


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda found: " ".join(found))
@pytest.mark.parametrize("name", [UMLAUT, NO_TEXT], ids=["umlaut", "no text"])
def test_operator_sees_the_same(
    module_server: RunningServer, tmp_path: Path, name: str, environment: dict[str, str]
) -> None:
    """Names as the bytes that they are, help with its texts, and no other line than asked for."""
    link = tmp_path / name
    link.symlink_to(module_server.runtime_dir)
    for arguments in (["qemu-args", "g1"], ["list", "--help"]):
        expected, found = (
            run_bytes([PRESWAPCTL, f"--runtime-dir={link}", *arguments], env)
            for env in ({}, environment)
        )
        assert found[:2] == expected[:2]
        assert b"Traceback" not in found[2]
    nowhere = link / "none"
    status, said, complaint = run_bytes(
        [PRESWAPCTL, f"--runtime-dir={nowhere}", "list"], environment
    )
    assert (status, said) == (3, b"")
    told = b"preswapctl: no preswapd server answers at " + os.fsencode(nowhere / "control.sock")
    assert complaint.splitlines()[-1] == told


def run_bytes(command: list[str], environment: dict[str, str]) -> tuple[int, bytes, bytes]:
    env = {**os.environ, **environment, "COLUMNS": "100"}
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("umask", ["0000", "0077", "0777"])
def test_umask(start_server: StartServer, umask: str) -> None:
    server = start_server(start=False)
    started_from(server, f"umask {umask}")
    client = connected(server)  # until all has been looked at: one that leaves takes its file along
    client.pwrite(DATA, BEHIND_ZONE)
    for folder in (server.runtime_dir, server.shm_dir, server.state_dir):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert set(modes.values()) <= {0o600, 0o660}, modes
        assert modes.pop("nbd.sock", 0o660) == 0o660
    # What is above them may be other users' too.
    assert stat.S_IMODE(server.state_dir.parent.stat().st_mode) & 0o005 == 0o005
    server.kill()
    started_from(server, f"umask {umask}")
    check_goes_on(server)


@pytest.mark.parametrize(
    "limits",
    [
        "ulimit -Sn 32",
        "ulimit -Ss 400",
        "ulimit -s unlimited || ulimit -s 1000000",
        "ulimit -Sf 1",
        pytest.param(
            "ulimit -Sv 100000",
            marks=pytest.mark.skipif(
                IS_SANITIZED, reason="a sanitizer needs terabytes of addresses"
            ),
        ),
        "ulimit -Sc 0; ulimit -St 1",
    ],
)
def test_limits_of_a_shell(start_server: StartServer, limits: str) -> None:
    """Soft ones, which it may take away."""
    server = start_server(start=False)
    started_from(server, limits)
    clients = [connected(server) for _ in range(40)]
    clients[0].pwrite(DATA, BEHIND_ZONE)
    server.client.shrink_status()
    server.ctl("shrink", "0")
    assert bytes(clients[-1].pread(PAGE, BEHIND_ZONE)) == DATA


def test_too_few_files(start_server: StartServer) -> None:
    server = start_server(start=False)
    done = run(["/bin/bash", "-c", 'ulimit -n 60; exec "$@"', "bash", *server.command()])
    assert done.returncode == 4
    assert "only 60 files open" in done.stderr
    assert "ulimit -Hn 65536" in done.stderr


def test_files_that_may_not_grow(start_server: StartServer) -> None:
    """A hard limit: it says so, and is not ended by a signal."""
    server = start_server(start=False)
    done = run(["/bin/bash", "-c", 'ulimit -f 1000; exec "$@"', "bash", *server.command()])
    assert done.returncode == 4
    assert "File too large" in done.stderr


def test_working_directory_that_is_gone(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(start=False)
    started_from(server, f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone")
    connected(server).pwrite(DATA, BEHIND_ZONE)
    assert os.readlink(f"/proc/{server.pid}/cwd") == "/"


def test_relative_directory_in_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    script = f'mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; exec "$@"'
    command = [PRESWAPD, "serve", "--pool-size=32M", "--state-dir=here"]
    done = run(["/bin/bash", "-c", script, "bash", *command])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the working directory is gone: give absolute directories" in done.stderr


def test_relative_directories(start_server: StartServer, tmp_path: Path) -> None:
    """They are those of the place where it was started."""
    server = start_server(start=False)
    command = [PRESWAPD, "serve", *server.arguments(), "--state-dir=here"]
    server.launch(["/bin/bash", "-c", f'cd {tmp_path}; exec "$@"', "bash", *command])
    assert (tmp_path / "here" / "g1.img").exists()


def test_relative_path(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "nbdkit").symlink_to(shutil.which("nbdkit") or "")
    server = start_server(start=False)
    started_from(server, f"cd {tmp_path}; PATH=.:/nonexistent")
    connected(server).pwrite(DATA, BEHIND_ZONE)


def test_signals_that_are_ignored_or_blocked(start_server: StartServer) -> None:
    server = start_server(start=False)
    started_from(server, "trap '' CHLD PIPE TERM USR1")
    connected(server).pwrite(DATA, BEHIND_ZONE)
    assert server.stop(signal.SIGTERM) == 0


def test_hangup_of_the_terminal_after_nohup(start_server: StartServer) -> None:
    """It was told to outlive that; without nohup it ends, as ever."""
    server = start_server(start=False)
    started_from(server, "trap '' HUP")
    os.kill(server.pid, signal.SIGHUP)
    connected(server).pwrite(DATA, BEHIND_ZONE)
    assert server.stop(signal.SIGTERM) == 0
    assert "SIGHUP" not in server.log
    server.start()
    assert server.stop(signal.SIGHUP) == 0
