# SPDX-License-Identifier: BSD-3-Clause
"""`preswapctl save` and `restore`: what they say, and which files they make."""

import json
import os
import pty
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbd
import pytest

from preswapd.api.save_file import PREFIX, Follower
from preswapd.cli.steer.save_files import NewFile
from preswapd.cli.steer.transfer import Transfer
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import connected, gone
from tests.conftest import StartServer
from tests.running import PATIENCE, PRESWAPCTL, RunningServer, run

AT = 8 << 20
CONTENT = b"saved page".ljust(PAGE) * 64
PAGES = 64


@pytest.fixture
def filled(server: RunningServer) -> RunningServer:
    client = connected(server)
    client.pwrite(CONTENT, AT)
    client.trim(2 * PAGE, AT + len(CONTENT))
    gone(server, client)
    return server


@pytest.fixture
def target(start_server: StartServer) -> RunningServer:
    return start_server()


def check_restored(server: RunningServer) -> None:
    client = connected(server)
    assert bytes(client.pread(len(CONTENT) + PAGE, AT)) == CONTENT + bytes(PAGE)
    gone(server, client)


def test_what_they_say(filled: RunningServer, target: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "vm1.swap"
    done = filled.ctl("save", "g1", str(path))
    size = r"[0-9.]+[KMB]"
    said = rf"saved 64 pages \(256K\) of g1 to {path}, {size}: [0-9.]+ s, {size}/s\n"
    assert re.fullmatch(said, done.stdout)
    assert done.stderr == ""
    done = target.ctl("restore", "g1", str(path))
    day = time.strftime("%Y-%m-%d")
    said = rf"restored 64 pages \(256K\) of g1, saved {day} [0-9:]+ from g1 of default: .*/s\n"
    assert re.fullmatch(said, done.stdout)
    check_restored(target)


def test_json(filled: RunningServer, target: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "save"
    told = json.loads(filled.ctl("--json", "save", "g1", str(path)).stdout)
    assert told.pop("seconds") > 0
    assert told == {
        "name": "g1",
        "file": str(path),
        "pages": PAGES,
        "zeros": 2,
        "lost": 0,
        "bytes": path.stat().st_size,
    }
    told = json.loads(target.ctl("--json", "restore", "g1", str(path)).stdout)
    saved = told.pop("saved")
    assert told.pop("seconds") > 0
    assert told == {
        "name": "g1",
        "pages": PAGES,
        "zeros": 2,
        "lost": 0,
        "bytes": path.stat().st_size,
    }
    assert (saved["device"], saved["instance"], saved["pages"]) == ("g1", "default", 64 << 8)
    assert abs(time.time() - saved["time"]) < 600


def test_json_beside_standard_output(filled: RunningServer) -> None:
    command = [PRESWAPCTL, f"--runtime-dir={filled.runtime_dir}", "--json", "save", "g1", "-"]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
    told = json.loads(done.stderr)
    assert (told["file"], told["bytes"]) == (None, len(done.stdout))
    assert done.stdout.startswith(PREFIX)


def test_file_is_its_owners_alone_and_nothing_is_left_beside_it(
    filled: RunningServer, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "save"
    path.parent.mkdir()
    filled.ctl("save", "g1", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["save"]


@pytest.mark.parametrize("option", ["--yes", "--force"])
def test_file_that_is_there(filled: RunningServer, tmp_path: Path, option: str) -> None:
    path = tmp_path / "new" / "save"
    path.parent.mkdir()
    path.write_text("somebody's")
    done = filled.ctl("save", "g1", str(path), check=False)
    assert (done.returncode, done.stderr) == (
        4,
        f"preswapctl: {path} is there already; there is no terminal to ask on: --yes goes ahead\n",
    )
    assert path.read_text() == "somebody's"
    filled.ctl("save", "g1", str(path), option)
    assert path.read_bytes().startswith(PREFIX)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["save"]


def test_file_that_a_link_leads_to(filled: RunningServer, tmp_path: Path) -> None:
    path, link = tmp_path / "new" / "save", tmp_path / "link"
    path.parent.mkdir()
    path.write_text("somebody's")
    link.symlink_to(path)
    assert filled.ctl("save", "g1", str(link), check=False).returncode == 4
    filled.ctl("save", "g1", str(link), "--yes")
    assert link.is_symlink()
    assert path.read_bytes().startswith(PREFIX)


def test_file_stays_as_it_is_where_the_save_fails(filled: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "new" / "save"
    path.parent.mkdir()
    path.write_text("an older save")
    client = connected(filled)
    done = filled.ctl("save", "g1", str(path), "--yes", check=False)
    gone(filled, client)
    assert done.returncode == 4
    assert "a client is connected to g1: save its guest (`virsh save`)" in done.stderr
    assert path.read_text() == "an older save"
    assert os.listdir(path.parent) == ["save"]


def test_named_pipe(filled: RunningServer, target: RunningServer, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [PRESWAPCTL, f"--runtime-dir={target.runtime_dir}", "restore", "g1", str(pipe)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as restoring:
        filled.ctl("save", "g1", str(pipe))
        assert restoring.wait(PATIENCE) == 0
    check_restored(target)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize(
    ("path", "status", "why"),
    [
        ("/dev/full", 1, "/dev/full: No space left on device"),
        ("/dev", 2, "/dev is no file: name one, or - for standard output"),
        ("/there/is/no", 2, "there is no directory /there/is"),
        ("/proc/save", 1, "/proc/save: "),
    ],
)
def test_file_that_cannot_be(filled: RunningServer, path: str, status: int, why: str) -> None:
    done = filled.ctl("save", "g1", path, check=False)
    assert done.returncode == status
    assert done.stderr.startswith(f"preswapctl: {why}")


def test_input_that_is_none(server: RunningServer, tmp_path: Path) -> None:
    done = server.ctl("restore", "g1", str(tmp_path / "none"), check=False)
    assert done.returncode == 1
    assert done.stderr == f"preswapctl: {tmp_path / 'none'}: No such file or directory\n"
    done = server.ctl("restore", "g1", str(tmp_path), check=False)
    assert (done.returncode, "Is a directory" in done.stderr) == (1, True)
    done = server.ctl("restore", "g1", "-", check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "preswapctl: g1 was not restored: it is empty; none of its pages is known\n",
    )


@pytest.mark.parametrize(
    ("command", "closed", "why"),
    [
        ("save", ">&-", "standard output is closed: name a file, or a pipe behind the -"),
        ("restore", "<&-", "standard input is closed: name a file, or a pipe behind the -"),
    ],
)
def test_stream_that_is_closed(server: RunningServer, command: str, closed: str, why: str) -> None:
    """Nobody is told that it was saved, and it went nowhere."""
    line = f'"$0" --runtime-dir={server.runtime_dir} {command} g1 - {closed}'
    done = run(["sh", "-c", line, PRESWAPCTL])
    assert (done.returncode, done.stderr) == (2, f"preswapctl: {why}\n")


@pytest.mark.parametrize("command", ["save", "restore"])
def test_no_such_device_and_no_server(server: RunningServer, tmp_path: Path, command: str) -> None:
    path = tmp_path / "save"
    server.ctl("save", "g1", str(path))
    into = str(path) if command == "restore" else str(tmp_path / "other")
    assert server.ctl(command, "g9", into, check=False).returncode == 2
    server.stop()
    assert server.ctl(command, "g1", into, check=False).returncode == 3
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("save", "a save is no text: name a file, or a pipe behind the -"),
        ("restore", "a save comes from a file or a pipe: nobody types one"),
    ],
)
def test_terminal_is_no_pipe(server: RunningServer, command: str, why: str) -> None:
    master, slave = pty.openpty()
    try:
        done = subprocess.run(
            [PRESWAPCTL, f"--runtime-dir={server.runtime_dir}", command, "g1", "-"],
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    finally:
        os.close(master)
        os.close(slave)
    assert (done.returncode, done.stderr) == (2, f"preswapctl: {why}\n")


def test_file_systems_that_know_no_file_without_a_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_RDWR)
    for over in (False, True):
        into = NewFile(tmp_path / "save", over=over)
        assert [path.name for path in tmp_path.iterdir() if path.name != "save"] != []
        into.write(b"content %d" % over)
        into.publish()
        os.close(into.descriptor)
        assert os.listdir(tmp_path) == ["save"]
        assert (tmp_path / "save").read_bytes() == b"content %d" % over
    into = NewFile(tmp_path / "other", over=False)
    into.give_up()
    os.close(into.descriptor)
    assert os.listdir(tmp_path) == ["save"]


def test_file_that_somebody_makes_meanwhile(tmp_path: Path) -> None:
    into = NewFile(tmp_path / "save", over=False)
    (tmp_path / "save").write_text("somebody's")
    with pytest.raises(Exception, match="File exists"):
        into.publish()
    into.give_up()
    os.close(into.descriptor)
    assert (tmp_path / "save").read_text() == "somebody's"


# --- progress ---


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    master, slave = pty.openpty()
    try:
        with open(slave, "w") as stream:
            monkeypatch.setattr(sys, "stderr", stream)
            os.set_blocking(master, False)
            yield master
    finally:
        os.close(master)


def shown_on(master: int) -> str:
    try:
        return os.read(master, 10000).decode()
    except BlockingIOError:
        return ""


def test_progress_on_a_terminal(
    filled: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two seconds, and only there."""
    filled.ctl("save", "g1", str(tmp_path / "save"))
    save = (tmp_path / "save").read_bytes()
    now = [100.0]
    monkeypatch.setattr("preswapd.cli.steer.transfer.time.monotonic", lambda: now[0])
    with terminal(monkeypatch) as master:
        transfer = Transfer("g1")
        transfer.note(save[:-50])
        assert shown_on(master) == ""
        now[0] += 2.0
        transfer.note(save[-50:-40])
        assert re.search(r"\r.*1[0-9]% of g1, 256K in [0-9.]+K, 128\.?[0-9]*K/s$", shown_on(master))
        transfer.note(save[-40:])
        assert shown_on(master) == ""
        assert transfer.follower.is_complete


def test_follower_takes_pieces_of_any_length(filled: RunningServer, tmp_path: Path) -> None:
    filled.ctl("save", "g1", str(tmp_path / "save"))
    save = (tmp_path / "save").read_bytes()
    for length in (1, 7, 31, 100, 5000):
        follower = Follower()
        for at in range(0, len(save), length):
            assert not follower.is_complete
            follower.feed(save[at : at + length])
        assert follower.is_complete
        assert follower.report.pages == PAGES
        assert follower.saved is not None
        assert follower.saved.device == "g1"


def test_nbd_client_of_another_device_is_none_of_its(start_server: StartServer) -> None:
    server = start_server(devices={"g1": "16M", "g2": "16M"})
    client: nbd.NBD = connected(server, "g2")
    server.ctl("save", "g1", "/dev/null")
    gone(server, client, "g2")
