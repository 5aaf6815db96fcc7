# SPDX-License-Identifier: BSD-3-Clause
"""What `preswapctl sync` and `preswapd serve --sync-and-exit` have brought to disk no reboot loses.

A reboot of the host: the server is killed, its shared memory is gone, the boot id is another one.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbd
import pytest

from preswapd.demo.server import ServerError
from preswapd.preswap.files.sidecar import Sidecar
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import Connect, connected
from tests.conftest import StartServer
from tests.faults.conftest import MIB, NOISE, counters, error_of, mounted
from tests.faults.injection import Call, Injector
from tests.faults.test_signals import interrupt, running
from tests.running import PATIENCE, RunningServer, run, wait_for

# Behind all but the end of the scan zone.
AT = 8 * MIB
CONTENT = NOISE[: 4 * MIB]
PAGES = len(CONTENT) // PAGE
IMAGE = "/g1.img"


def content(client: Any) -> bytes:
    return bytes(client.pread(len(CONTENT), AT))


def reboot(server: RunningServer) -> None:
    """Without a stop, as a power loss or kexec does it."""
    server.kill()
    for folder in (server.shm_dir, server.runtime_dir):
        shutil.rmtree(folder, ignore_errors=True)
    for path in server.state_dir.glob("*.json"):
        replace(Sidecar.read(path), boot_id="the boot before").write(path)


def is_clean(server: RunningServer, name: str = "g1") -> bool:
    return Sidecar.read(server.paths.sidecar(name)).clean


def sync_and_exit(server: RunningServer, *more: str) -> subprocess.CompletedProcess[str]:
    return run([*server.command(), "--sync-and-exit", *more])


@pytest.fixture
def filled(faulty: RunningServer, connect: Connect) -> RunningServer:
    """Pages in memory, none on disk but the scan zone's."""
    connect(faulty).pwrite(CONTENT, AT)
    return faulty


@pytest.fixture
def cramped(start_server: StartServer, stack: ExitStack, tmp_path: Path) -> RunningServer:
    """A disk that has room for some of CONTENT, and a pool for all of it."""
    state = tmp_path / "state"
    mounted(stack, state, "-t", "tmpfs", "-o", "size=5M,mode=700", "none")
    server = start_server(tmp=tmp_path)
    client = connected(server)
    client.pwrite(CONTENT, AT)
    client.shutdown()
    with (state / "stuffing").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 2 * MIB)
    return server


# --- preswapctl sync ---


def test_reboot_loses_what_was_not_synced(filled: RunningServer, connect: Connect) -> None:
    """What the tests below are measured by."""
    reboot(filled)
    filled.start()
    assert error_of(connect(filled).pread, PAGE, AT) == errno.EIO


def test_reboot_loses_nothing_after_a_sync(filled: RunningServer, connect: Connect) -> None:
    done = filled.ctl("sync")
    assert done.stdout == f"moved {PAGES} pages (4M) to disk, 0 pages (0B) left in tmem\n"
    assert is_clean(filled)
    reboot(filled)
    filled.start()
    assert content(connect(filled)) == CONTENT


def test_sync_of_what_is_on_disk_saves_its_map(faulty: RunningServer, connect: Connect) -> None:
    """Nothing has to move."""
    faulty.ctl("freeze")
    connect(faulty).pwrite(CONTENT, AT)
    report = json.loads(faulty.ctl("--json", "sync").stdout)
    assert report == {"moved": 0, "left": 0, "lost": 0, "complete": True, "reason": None}
    reboot(faulty)
    faulty.start()
    assert content(connect(faulty)) == CONTENT


def test_write_after_a_sync_makes_the_device_dirty_again(
    filled: RunningServer, connect: Connect
) -> None:
    filled.ctl("sync")
    connect(filled).pwrite(NOISE[:PAGE], AT + len(CONTENT))
    assert not is_clean(filled)
    reboot(filled)
    filled.start()
    client = connect(filled)
    assert {error_of(client.pread, PAGE, at) for at in (AT, AT + len(CONTENT))} == {errno.EIO}


def test_read_after_a_sync_leaves_it_clean(filled: RunningServer, connect: Connect) -> None:
    filled.ctl("sync")
    assert content(connect(filled)) == CONTENT
    assert is_clean(filled)


def test_what_was_trimmed_before_a_sync_leaves_it_clean(
    filled: RunningServer, connect: Connect
) -> None:
    """Its blocks go back before the map is saved, and not by the server's own work afterwards."""
    filled.ctl("sync")
    connect(filled).trim(len(CONTENT) // 2, AT)
    filled.ctl("sync")
    turns = 4
    time.sleep(turns * 0.25)
    assert is_clean(filled)
    reboot(filled)
    filled.start()
    assert content(connect(filled)) == bytes(len(CONTENT) // 2) + CONTENT[len(CONTENT) // 2 :]


def test_sync_of_one_device(start_server: StartServer, connect: Connect) -> None:
    server = start_server(devices={"g1": "64M", "g2": "64M"})
    for name in ("g1", "g2"):
        connect(server, name).pwrite(CONTENT, AT)
    server.ctl("sync", "g2")
    assert (counters(server)["preswap_pages"], counters(server, "g2")["preswap_pages"]) == (
        PAGES,
        0,
    )
    assert (is_clean(server), is_clean(server, "g2")) == (False, True)
    reboot(server)
    server.start()
    assert content(connect(server, "g2")) == CONTENT
    assert error_of(connect(server, "g1").pread, PAGE, AT) == errno.EIO


def test_sync_of_a_frozen_pool(filled: RunningServer, connect: Connect) -> None:
    filled.ctl("freeze")
    filled.ctl("sync")
    assert "frozen = 1" in filled.ctl("sysctl", "preswap.default.frozen").stdout
    reboot(filled)
    filled.start()
    assert content(connect(filled)) == CONTENT


def test_sync_while_its_guest_writes(filled: RunningServer, connect: Connect) -> None:
    """It ends under load, and what is quiet when a further one ends is safe."""
    client = connect(filled)
    written: dict[int, bytes] = {}
    writes = 0
    enough = threading.Event()

    def write() -> None:
        nonlocal writes
        while not enough.is_set():
            page, content = writes * 7 % PAGES, writes.to_bytes(8, "little") * (PAGE // 8)
            client.pwrite(content, AT + page * PAGE)
            written[page] = content
            writes += 1

    guest = threading.Thread(target=write)
    guest.start()
    try:
        wait_for(lambda: len(written), lambda pages: pages > PAGES // 2)
        before = writes
        for _ in range(3):
            filled.ctl("sync")
        assert writes > before
    finally:
        enough.set()
        guest.join()
    filled.ctl("sync")
    reboot(filled)
    filled.start()
    expected = b"".join(
        written.get(page, CONTENT[page * PAGE : (page + 1) * PAGE]) for page in range(PAGES)
    )
    assert content(connect(filled)) == expected


def test_new_pages_enter_memory_again_after_a_sync(filled: RunningServer, connect: Connect) -> None:
    filled.ctl("sync")
    connect(filled).pwrite(CONTENT, AT)
    assert counters(filled)["preswap_pages"] == PAGES


def test_sync_on_a_full_disk_loses_nothing(cramped: RunningServer, connect: Connect) -> None:
    done = cramped.ctl("sync", check=False)
    assert done.returncode == 5
    assert "a reboot of the host would lose pages: g1: No space left on device, " in done.stderr
    assert done.stderr.endswith(" still in tmem; run it again to go on\n")
    assert content(connect(cramped)) == CONTENT
    (cramped.state_dir / "stuffing").unlink()
    cramped.ctl("sync")
    reboot(cramped)
    cramped.start()
    assert content(connect(cramped)) == CONTENT


@pytest.mark.parametrize(
    ("call", "path"),
    [(Call.SYNC, IMAGE), (Call.SYNC, "/g1.map"), (Call.RENAME, "/g1.json")],
    ids=["disk-file", "map", "sidecar"],
)
def test_map_that_cannot_be_saved(
    filled: RunningServer, injector: Injector, connect: Connect, call: Call, path: str
) -> None:
    """All pages are on disk then, and nobody would know where.  Run again, it does save it: but not
    of a disk file whose sync failed, as the system never tells again what was not written.
    """
    injector.fail(call, path, errno.EIO)
    done = filled.ctl("sync", check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        5,
        "preswapctl: a reboot of the host would lose pages: g1: Input/output error,"
        " 0 pages (0B) still in tmem; run it again to go on",
    )
    filled.wait_for_line("sync stopped after")
    injector.end()
    assert not is_clean(filled)
    if path == IMAGE:
        done = filled.ctl("sync", check=False)
        assert done.returncode == 5
        assert "an earlier sync of its disk file failed" in done.stderr
        assert filled.stop() == 0
        assert not is_clean(filled)
        return
    filled.ctl("sync")
    assert is_clean(filled)
    reboot(filled)
    filled.start()
    assert content(connect(filled)) == CONTENT


def test_sync_waits_for_a_request_that_the_disk_holds_up(
    filled: RunningServer, injector: Injector, connect: Connect
) -> None:
    """A while, and tells which device it is otherwise."""
    filled.ctl("sync")
    filled.ctl("freeze")
    client = connect(filled)
    injector.hold(Call.WRITE, IMAGE)
    guest = threading.Thread(target=client.pwrite, args=(NOISE[:PAGE], AT + len(CONTENT)))
    guest.start()
    injector.wait()
    with running(filled, "sync") as process:
        # More than once it finds the request still under way.
        time.sleep(2.5)
        injector.end()
        assert process.wait(PATIENCE) == 0
    guest.join()
    assert is_clean(filled)
    reboot(filled)
    filled.start()
    assert bytes(connect(filled).pread(PAGE, AT + len(CONTENT))) == NOISE[:PAGE]


def test_interrupted_sync_goes_on_when_run_again(
    filled: RunningServer, injector: Injector, connect: Connect
) -> None:
    injector.hold(Call.WRITE, IMAGE)
    with running(filled, "sync") as process:
        interrupt(process, injector)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, "interrupted" in said) == (5, True)
    assert filled.ctl("sync").returncode == 0
    reboot(filled)
    filled.start()
    assert content(connect(filled)) == CONTENT


def test_words_of_a_sync_that_is_under_way(filled: RunningServer, injector: Injector) -> None:
    injector.hold(Call.WRITE, IMAGE)
    begun = filled.ctl("sync", "--no-wait").stdout
    assert begun.startswith("a sync is under way: ")
    shown = json.loads(filled.ctl("--json", "shrink", "--status").stdout)
    assert (shown["sync"], shown["target"], shown["setting"]) == (True, 0, None)
    assert filled.ctl("shrink", "--status").stdout.startswith("a sync is under way: ")
    done = filled.ctl("shrink", "0", check=False)
    assert (done.returncode, done.stderr) == (4, "preswapctl: a sync is under way already\n")
    injector.end()
    wait_for(
        lambda: filled.ctl("shrink", "--status").stdout,
        lambda text: (
            text == f"the last sync is done: {PAGES} pages (4M) moved, 0 pages (0B) left\n"
        ),
    )
    filled.wait_for_line(f"sync from {PAGES} to 0 pages begins")
    filled.wait_for_line("sync ended after ")


def test_stopped_sync(filled: RunningServer, injector: Injector) -> None:
    injector.hold(Call.WRITE, IMAGE)
    filled.ctl("sync", "g1", "--no-wait")
    injector.wait()
    filled.ctl("shrink", "--stop")
    injector.end()
    told = wait_for(
        lambda: filled.ctl("shrink", "--status").stdout, lambda text: "under way" not in text
    )
    assert told.startswith("the last sync stopped early (interrupted): ")


# --- preswapd serve --sync-and-exit ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_pages_of_a_server_that_has_ended_outlive_a_reboot(
    filled: RunningServer, connect: Connect, number: signal.Signals
) -> None:
    filled.stop(number)
    done = sync_and_exit(filled)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1] == (
        f"instance default: all pages are on disk, {PAGES} pages (4M) of them moved now"
    )
    reboot(filled)
    filled.start()
    assert content(connect(filled)) == CONTENT


def test_server_goes_on_after_a_sync_without_it(filled: RunningServer, connect: Connect) -> None:
    filled.stop()
    assert sync_and_exit(filled).returncode == 0
    assert sync_and_exit(filled).stderr.endswith(
        "all pages are on disk, 0 pages (0B) of them moved now\n"
    )
    filled.start()
    assert counters(filled)["preswap_pages"] == 0
    assert content(connect(filled)) == CONTENT


def test_sync_and_exit_beside_a_server_is_refused(filled: RunningServer, connect: Connect) -> None:
    done = sync_and_exit(filled)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(f"preswapd: {filled.shm_dir} is in use by another server: ")
    assert content(connect(filled)) == CONTENT


def test_sync_and_exit_with_nothing_in_memory(faulty: RunningServer) -> None:
    faulty.ctl("sync")
    reboot(faulty)
    done = sync_and_exit(faulty, "--device=g9=1M")
    assert (done.returncode, done.stderr) == (
        0,
        "instance default: nothing is in memory, nothing to do\n",
    )
    assert not faulty.arena.exists()
    assert not list(faulty.state_dir.glob("g9*"))


def test_sync_and_exit_makes_no_device(filled: RunningServer) -> None:
    filled.stop()
    assert sync_and_exit(filled, "--device=g9=1M").returncode == 0
    assert not list(filled.state_dir.glob("g9*"))


def test_sync_and_exit_without_the_memory_is_refused(filled: RunningServer) -> None:
    filled.kill()
    shutil.rmtree(filled.shm_dir)
    done = sync_and_exit(filled)
    assert done.returncode == 4
    assert "the pages of g1 that were in shared memory are gone" in done.stderr


def test_state_is_discarded_without_a_server(filled: RunningServer, connect: Connect) -> None:
    """The option would be of every start that systemd makes, if it stood in its unit."""
    filled.kill()
    shutil.rmtree(filled.shm_dir)
    assert sync_and_exit(filled, "--discard-state").returncode == 0
    filled.start()
    assert error_of(connect(filled).pread, PAGE, AT) == errno.EIO
    connect(filled).pwrite(CONTENT, AT)
    assert content(connect(filled)) == CONTENT


def test_sync_and_exit_on_a_full_disk_loses_nothing(
    cramped: RunningServer, connect: Connect
) -> None:
    cramped.stop()
    done = sync_and_exit(cramped)
    assert done.returncode == 5
    assert "would lose pages: g1: No space left on device" in done.stderr.splitlines()[-1]
    cramped.start()
    assert content(connect(cramped)) == CONTENT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_signal_ends_sync_and_exit_between_two_writes(
    filled: RunningServer, injector: Injector, connect: Connect, number: signal.Signals
) -> None:
    filled.stop()
    injector.hold(Call.WRITE, IMAGE)
    with telling(filled) as process:
        # Then it is ready for a signal.
        line_of(process, "sync: ")
        injector.wait()
        process.send_signal(number)
        line_of(process, "stopped")
        injector.end()
        _, said = process.communicate(timeout=30)
    assert process.returncode == 5
    assert "would lose pages: interrupted, " in said.splitlines()[-1]
    filled.start()
    assert content(connect(filled)) == CONTENT


# With lines that come sooner than an operator wants them, and one when a signal has come; while it
# is heard another one comes.
TELLING = """
import os
import signal
from threading import Lock
from preswapd.__main__ import main
from preswapd.preswap.writeback.shrink import Shrink
from preswapd.server import syncing
syncing.TOLD_SECONDS = 0.02
stop, hearing = Shrink.stop, Lock()
def stop_and_tell(shrink):
    with hearing:
        os.kill(os.getpid(), signal.SIGINT)
        stop(shrink)
    # sys.stderr may be at work on another line: it takes none of a signal handler then.
    os.write(2, b"stopped\\n")
Shrink.stop = stop_and_tell
main()
"""


@contextmanager
def telling(server: RunningServer) -> Iterator[subprocess.Popen[str]]:
    python = str(Path(server.command()[0]).with_name("python"))
    with subprocess.Popen(
        [python, "-c", TELLING, "serve", *server.arguments(), "--sync-and-exit"],
        env=server.env,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def line_of(process: subprocess.Popen[str], begin: str) -> str:
    """The next line that begins so."""
    assert process.stderr is not None
    said = ""
    while not said.startswith(begin):
        said = process.stderr.readline()
        assert said
    return said


def test_sync_and_exit_tells_how_far_it_is(filled: RunningServer, injector: Injector) -> None:
    filled.stop()
    injector.hold(Call.WRITE, IMAGE)
    with telling(filled) as process:
        said = line_of(process, "sync: ")
        injector.end()
        process.communicate(timeout=30)
    assert said == f"sync: 0 pages (0B) moved, {PAGES} left, target 0\n"
    assert process.returncode == 0


# --- --accept-moved ---


@pytest.fixture
def moved(filled: RunningServer) -> RunningServer:
    """Stopped with all pages on disk, and its disk file copied to another disk, say."""
    filled.ctl("sync")
    filled.stop()
    copy = filled.state_dir / "copy"
    image = filled.state_dir / "g1.img"
    subprocess.run(["cp", "--archive", image, copy], check=True)
    copy.rename(image)
    return filled


def test_moved_disk_file_is_refused(moved: RunningServer) -> None:
    with pytest.raises(ServerError):
        moved.start()
    assert moved.wait() == 4
    assert "--accept-moved takes this one" in moved.log


def test_moved_disk_file_is_believed_once_when_told_so(
    moved: RunningServer, connect: Connect
) -> None:
    moved.extra = ["--accept-moved"]
    moved.start()
    assert content(connect(moved)) == CONTENT
    moved.extra = []
    moved.restart()
    reboot(moved)
    moved.start()
    assert content(connect(moved)) == CONTENT


@pytest.mark.parametrize("rebooted", [False, True])
def test_moved_disk_file_is_accepted_without_a_server(
    moved: RunningServer, connect: Connect, rebooted: bool
) -> None:
    """After the host's reboot there is no arena yet."""
    if rebooted:
        reboot(moved)
    assert sync_and_exit(moved, "--accept-moved").returncode == 0
    moved.start()
    assert content(connect(moved)) == CONTENT


@pytest.fixture
def touched(start_server: StartServer, connect: Connect) -> RunningServer:
    """Two devices with pages on disk and in memory; the server has ended, and somebody has given
    the disk file of g1 another mode."""
    server = start_server(devices={"g1": "64M", "g2": "64M"})
    server.ctl("freeze")
    for name in ("g1", "g2"):
        connect(server, name).pwrite(CONTENT, AT)
    server.ctl("thaw")
    for name in ("g1", "g2"):
        connect(server, name).pwrite(CONTENT[::-1], 2 * AT)
    server.stop()
    server.paths.disk_file("g1").chmod(0o640)
    return server


def both(client: Any) -> tuple[bytes, bytes]:
    return content(client), bytes(client.pread(len(CONTENT), 2 * AT))


def test_sync_and_exit_gives_up_no_disk_file_that_was_touched(
    touched: RunningServer, connect: Connect
) -> None:
    """What is in memory of it would make it give up what is on disk: an operator can say."""
    done = sync_and_exit(touched)
    assert done.returncode == 5
    assert done.stderr.splitlines()[-1].startswith(
        "preswapd: a reboot of the host would lose pages: g1 is not served:"
        f" {touched.paths.disk_file('g1')} was changed while no server ran"
    )
    done = sync_and_exit(touched, "--accept-moved")
    assert done.returncode == 0
    reboot(touched)
    touched.start()
    for name in ("g1", "g2"):
        assert both(connect(touched, name)) == (CONTENT, CONTENT[::-1])


def test_others_are_synced_beside_a_disk_file_that_was_touched(
    touched: RunningServer, connect: Connect
) -> None:
    assert sync_and_exit(touched).returncode == 5
    reboot(touched)
    touched.start()
    assert both(connect(touched, "g2")) == (CONTENT, CONTENT[::-1])
    assert error_of(connect(touched, "g1").pread, PAGE, AT) == errno.EIO


def test_sync_and_exit_of_a_touched_disk_file_alone_is_refused(
    filled: RunningServer, connect: Connect
) -> None:
    filled.stop()
    filled.paths.disk_file("g1").chmod(0o640)
    before = filled.paths.sidecar("g1").read_bytes()
    done = sync_and_exit(filled)
    assert done.returncode == 4
    assert "run this again with --accept-moved" in done.stderr
    assert filled.paths.sidecar("g1").read_bytes() == before
    filled.start()
    assert content(connect(filled)) == CONTENT


def test_accepting_is_no_setting(start_server: StartServer) -> None:
    command = start_server(start=False).command()
    plain, accepting = (
        run([*command, *more, "--show-config"]) for more in ([], ["--accept-moved"])
    )
    assert (accepting.returncode, accepting.stdout) == (0, plain.stdout)


def test_nbd_client_is_told_nothing_of_a_sync(filled: RunningServer, connect: Connect) -> None:
    """Requests wait while the map is saved, and none fails."""
    client = connect(filled)
    failures = []
    enough = threading.Event()

    def read() -> None:
        while not enough.is_set():
            try:
                client.pread(PAGE, AT)
            except nbd.Error as error:
                failures.append(error)

    guest = threading.Thread(target=read)
    guest.start()
    for _ in range(5):
        filled.ctl("sync")
    enough.set()
    guest.join()
    assert failures == []
