# SPDX-License-Identifier: BSD-3-Clause
"""Saves and restores of a real server, while either end dies, the disk fails or a client comes."""

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import nbd
import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import Connect, connected, gone
from tests.conftest import StartServer
from tests.faults.conftest import MIB, NOISE, counters, error_of, mounted, place
from tests.faults.injection import Call, Injector
from tests.faults.test_sync import reboot
from tests.running import PATIENCE, PRESWAPCTL, RunningServer, wait_for, wait_until

CONTENT = NOISE[: 4 * MIB]
PAGES = len(CONTENT) // PAGE
IMAGE = "/g1.img"
ENDS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)


def fill(server: RunningServer) -> None:
    """Half in memory, half on disk; behind it a page that was trimmed, and others never written."""
    client = connected(server)
    client.pwrite(CONTENT[: len(CONTENT) // 2], place(0))
    client.pwrite(CONTENT[len(CONTENT) // 2 :], place(PAGES // 2), flags=nbd.CMD_FLAG_FUA)
    client.trim(PAGE, place(PAGES))
    gone(server, client)


def check_restored(server: RunningServer) -> None:
    client = connected(server)
    assert bytes(client.pread(len(CONTENT), place(0))) == CONTENT
    assert bytes(client.pread(PAGE, place(PAGES))) == bytes(PAGE)
    assert error_of(client.pread, PAGE, place(PAGES + 1)) == errno.EIO
    gone(server, client)


def check_unknown(server: RunningServer) -> None:
    """All but the scan zone, and a client gets in."""
    client = wait_for(lambda: let_in(server), lambda client: client is not None)
    assert client is not None
    for number in (0, 1, PAGES // 2, PAGES - 1, PAGES):
        assert error_of(client.pread, PAGE, place(number)) == errno.EIO
    assert bytes(client.pread(PAGE, 0)).endswith(b"SWAPSPACE2")
    gone(server, client)
    figures = counters(server)
    assert (figures["preswap_pages"], figures["disk_pages"]) == (0, 1)


def let_in(server: RunningServer) -> nbd.NBD | None:
    try:
        return connected(server)
    except nbd.Error:
        return None


@contextmanager
def transfer(
    server: RunningServer, *arguments: str | Path, stdin: IO[bytes] | int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A preswapctl beside the test."""
    with subprocess.Popen(
        [PRESWAPCTL, f"--runtime-dir={server.runtime_dir}", *arguments],
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        yield process


def last_line(process: subprocess.Popen[bytes]) -> str:
    _, said = process.communicate(timeout=PATIENCE)
    return said.decode().splitlines()[-1]


@pytest.fixture
def source(start_server: StartServer) -> RunningServer:
    server = start_server()
    fill(server)
    return server


@pytest.fixture
def save(source: RunningServer, tmp_path: Path) -> Path:
    path = tmp_path / "save"
    source.ctl("save", "g1", str(path))
    return path


@pytest.fixture
def slow(faulty: RunningServer, injector: Injector) -> RunningServer:
    """All that is restored into it goes to a disk that hangs."""
    faulty.ctl("freeze")
    injector.hold(Call.WRITE, IMAGE)
    return faulty


def test_from_one_server_to_another(source: RunningServer, start_server: StartServer) -> None:
    target = start_server()
    with (
        transfer(source, "save", "g1", "-") as saving,
        transfer(target, "restore", "g1", "-", stdin=saving.stdout) as restoring,
    ):
        assert saving.stdout is not None
        saving.stdout.close()  # the other one has it
        said = restoring.communicate(timeout=PATIENCE)[0].decode()
        assert saving.stderr is not None
        about = saving.stderr.read().decode()
        assert (saving.wait(PATIENCE), restoring.returncode) == (0, 0)
    assert about.startswith(f"saved {PAGES} pages (4M) of g1, ")
    assert said.startswith(f"restored {PAGES} pages (4M) of g1, saved ")
    check_restored(target)
    check_restored(source)


@pytest.mark.parametrize("is_orderly", [True, False])
def test_reboot_between_save_and_restore(
    source: RunningServer, save: Path, is_orderly: bool
) -> None:
    if is_orderly:
        assert source.stop() == 0
    reboot(source) if not is_orderly else source.reboot()
    source.start()
    if is_orderly:
        # What was on disk has survived by itself.
        done = source.ctl("restore", "g1", str(save), check=False)
        assert (done.returncode, "are known already" in done.stderr) == (4, True)
        source.ctl("swapoff", "g1", "--yes")
    source.ctl("restore", "g1", str(save))
    check_restored(source)


# --- the server dies ---


@ENDS
def test_server_ends_during_a_save(
    faulty: RunningServer, injector: Injector, tmp_path: Path, number: signal.Signals
) -> None:
    fill(faulty)
    injector.hold(Call.READ, IMAGE)
    with transfer(faulty, "save", "g1", tmp_path / "save") as process:
        injector.wait()
        faulty.stop(number)
        assert last_line(process).startswith("preswapctl: g1 was not saved: the server at ")
    assert process.returncode == 1
    assert os.listdir(tmp_path) == ["server0"]
    injector.end()
    faulty.start()
    check_restored(faulty)


@ENDS
@pytest.mark.parametrize("page", [2048, 0], ids=["pages", "zone"])
def test_server_ends_during_a_restore(
    slow: RunningServer, injector: Injector, save: Path, number: signal.Signals, page: int
) -> None:
    injector.hold(Call.WRITE, IMAGE, (page, page + 1))
    with transfer(slow, "restore", "g1", save) as process:
        injector.wait()
        slow.stop(number)
        said = last_line(process)
    if page:
        assert said.startswith("preswapctl: g1 was not restored, none of its pages is known: ")
    else:
        # All was sent, and for what anybody can tell it may have been restored.
        assert said.endswith(
            "nobody can say whether g1 was restored: run it again, which is refused where it was"
        )
    assert process.returncode == 1
    injector.end()
    slow.start()
    assert "a restore of g1 was interrupted: none of its pages is known" in slow.log
    check_unknown(slow)
    slow.ctl("restore", "g1", str(save))
    check_restored(slow)


# --- its client dies ---


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_client_ends_during_a_save(
    faulty: RunningServer, injector: Injector, tmp_path: Path, number: signal.Signals
) -> None:
    fill(faulty)
    injector.hold(Call.READ, IMAGE)
    with transfer(faulty, "save", "g1", tmp_path / "save") as process:
        injector.wait()
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == (1 if number == signal.SIGINT else -number)
    if number == signal.SIGINT:
        assert said == b"preswapctl: interrupted: g1 was not saved\n"
    assert os.listdir(tmp_path) == ["server0"]
    injector.end()
    wait_until(lambda: let_in(faulty) is not None, "a client to be let in")
    check_restored(faulty)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_client_ends_during_a_restore(
    slow: RunningServer, injector: Injector, save: Path, number: signal.Signals
) -> None:
    """In the middle of what it sends: the rest of the save does not come."""
    with transfer(slow, "restore", "g1", "-", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        # An extent, and no more than what lies on the way has room for.
        process.stdin.write(save.read_bytes()[: MIB + 100 * 1024])
        process.stdin.flush()
        injector.wait()
        process.send_signal(number)
        injector.end()
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == (1 if number == signal.SIGINT else -number)
    if number == signal.SIGINT:
        assert said.decode() == (
            "preswapctl: interrupted: g1 was not restored, none of its pages is known\n"
        )
    check_unknown(slow)
    slow.wait_for_line("g1 was not restored: its client hung up; none of its pages is known")


def test_pipe_that_is_closed_early(source: RunningServer, start_server: StartServer) -> None:
    target = start_server()
    with transfer(source, "save", "g1", "-") as process:
        assert process.stdout is not None
        start = process.stdout.read(MIB)
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read().decode() == (
            "preswapctl: whoever reads the pipe has closed it\n"
        )
    assert process.returncode == 1
    with transfer(target, "restore", "g1", "-", stdin=subprocess.PIPE) as process:
        _, said = process.communicate(start, timeout=PATIENCE)
    assert (process.returncode, said.decode()) == (
        1,
        "preswapctl: g1 was not restored: it ends too early; none of its pages is known\n",
    )
    check_unknown(target)


# --- the disk fails ---


def test_page_that_cannot_be_read(
    faulty: RunningServer, injector: Injector, start_server: StartServer, tmp_path: Path
) -> None:
    """No save is better than one without it; who reads the pipe is told, too."""
    fill(faulty)
    target = start_server()
    injector.fail(Call.READ, IMAGE, errno.EIO)
    done = faulty.ctl("save", "g1", str(tmp_path / "save"), check=False)
    why = "g1 cannot be read: Input/output error"
    assert (done.returncode, done.stderr) == (1, f"preswapctl: g1 was not saved: {why}\n")
    assert not (tmp_path / "save").exists()
    with (
        transfer(faulty, "save", "g1", "-") as saving,
        transfer(target, "restore", "g1", "-", stdin=saving.stdout) as restoring,
    ):
        assert last_line(restoring).startswith(f"preswapctl: g1 was not restored: {why}; ")
    assert (saving.returncode, restoring.returncode) == (1, 1)
    check_unknown(target)
    injector.end()
    check_restored(faulty)


def test_page_that_was_lost(
    source: RunningServer, start_server: StartServer, tmp_path: Path
) -> None:
    """It is no page that cannot be read for now: it stays unknown."""
    end = place(PAGES // 2)
    os.truncate(source.state_dir / "g1.img", end)
    os.truncate(source.state_dir / "g1.img", 64 * MIB)
    source.restart()
    done = source.ctl("save", "g1", str(tmp_path / "save"))
    assert f"preswapctl: {PAGES // 2} pages (2M) of g1 had been lost, and are" in done.stderr
    target = start_server()
    target.ctl("restore", "g1", str(tmp_path / "save"))
    client = connected(target)
    assert bytes(client.pread(len(CONTENT) // 2, place(0))) == CONTENT[: len(CONTENT) // 2]
    assert error_of(client.pread, PAGE, end) == errno.EIO


def test_full_disk(start_server: StartServer, stack: ExitStack, tmp_path: Path, save: Path) -> None:
    state = tmp_path / "small" / "state"
    mounted(stack, state, "-t", "tmpfs", "-o", "size=3M,mode=700", "none")
    target = start_server(tmp=tmp_path / "small")
    target.ctl("freeze")
    done = target.ctl("restore", "g1", str(save), check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "preswapctl: g1 was not restored: No space left on device; none of its pages is known\n",
    )
    check_unknown(target)


@pytest.mark.parametrize("over", [False, True])
def test_full_disk_of_the_file(
    source: RunningServer, stack: ExitStack, tmp_path: Path, over: bool
) -> None:
    """What was there is there still, and the device can be used at once."""
    small = tmp_path / "small"
    mounted(stack, small, "-t", "tmpfs", "-o", "size=1M", "none")
    path = small / "save"
    if over:
        path.write_text("an older save")
    done = source.ctl("save", "g1", str(path), "--yes", check=False)
    assert (done.returncode, done.stderr) == (1, f"preswapctl: {path}: No space left on device\n")
    assert os.listdir(small) == (["save"] if over else [])
    assert not over or path.read_text() == "an older save"
    source.wait_for_line("save of g1 was broken off by its client")
    check_restored(source)


def test_mark_that_cannot_be_noted(faulty: RunningServer, injector: Injector, save: Path) -> None:
    injector.fail(Call.RENAME, "/g1.json", errno.EIO)
    done = faulty.ctl("restore", "g1", str(save), check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "preswapctl: g1 was not restored: Input/output error\n",
    )
    injector.end()
    check_unknown(faulty)
    faulty.ctl("restore", "g1", str(save))
    check_restored(faulty)


def test_restore_that_cannot_be_undone(
    faulty: RunningServer, injector: Injector, save: Path
) -> None:
    """The zone is written, and neither it nor what was there before can be vouched for."""
    injector.fail(Call.SYNC, IMAGE, errno.EIO)
    done = faulty.ctl("restore", "g1", str(save), check=False)
    assert done.returncode == 1
    assert "could not be undone: restart the server" in done.stderr
    assert let_in(faulty) is None
    injector.end()
    assert let_in(faulty) is None
    done = faulty.ctl("restore", "g1", str(save), check=False)
    assert (done.returncode, "restart the server" in done.stderr) == (4, True)
    faulty.restart()
    check_unknown(faulty)
    faulty.ctl("restore", "g1", str(save))
    check_restored(faulty)


# --- others come between ---


def test_client_that_comes_meanwhile(
    slow: RunningServer, injector: Injector, save: Path, connect: Connect
) -> None:
    with transfer(slow, "restore", "g1", save) as process:
        injector.wait()
        with pytest.raises(nbd.Error):
            connect(slow)
        slow.wait_for_line("a client was refused: g1 is being restored")
        injector.end()
        assert process.wait(PATIENCE) == 0
    check_restored(slow)


def test_second_restore_meanwhile(slow: RunningServer, injector: Injector, save: Path) -> None:
    with transfer(slow, "restore", "g1", save) as process:
        injector.wait()
        for command in (("restore", "g1", str(save)), ("save", "g1", "-")):
            done = slow.ctl(*command, check=False)
            assert (done.returncode, done.stderr) == (4, "preswapctl: g1 is being restored\n")
        injector.end()
        assert process.wait(PATIENCE) == 0
    check_restored(slow)


def test_limits_of_others_meanwhile(slow: RunningServer, injector: Injector, save: Path) -> None:
    """An operator or the governor need not wait for it."""
    with transfer(slow, "restore", "g1", save) as process:
        injector.wait()
        slow.ctl("sysctl", "preswap.default.pool_limit=16M")
        slow.ctl("create", "g2", "16M")
        injector.end()
        assert process.wait(PATIENCE) == 0
    slow.ctl("remove", "g2")
    check_restored(slow)


def test_save_while_pages_move(
    source: RunningServer, start_server: StartServer, tmp_path: Path
) -> None:
    for number in range(4):
        with transfer(source, "shrink", "0") as shrinking:
            source.ctl("save", "g1", str(tmp_path / str(number)))
            assert shrinking.wait(PATIENCE) == 0
        target = start_server()
        target.ctl("restore", "g1", str(tmp_path / str(number)))
        check_restored(target)
        # They come back to memory as they are read.
        check_restored(source)
