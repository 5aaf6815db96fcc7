# SPDX-License-Identifier: BSD-3-Clause
"""A courier is kept at work, with a program in its place that does as it is told."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from preswapd.errors import RefusedError
from preswapd.host.children import Child
from preswapd.remote import keeping
from preswapd.remote.keeping import FIRST_PAUSE, HUNG_SECONDS, LONGEST_PAUSE, Keeper, told
from preswapd.remote.settings import StoreSettings
from preswapd.version import VERSION
from tests.running import wait_for, wait_until

# Says what it was told and what it has, and ends when the other end does, or as that says.
STANDS_IN = """
import json, os, socket, sys
end = socket.socket(fileno=int(sys.argv[-1]))
def files():
    for number in os.listdir("/proc/self/fd"):
        try:
            yield int(number), os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # of the listing itself
            pass
told = {"told": json.load(sys.stdin), "files": dict(files()), "env": sorted(os.environ)}
end.sendall(json.dumps(told).encode() + b"\\n")
status = end.recv(1)
sys.exit(status[0] if status else 0)
"""


class End:
    """The server's, as the native one is used."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.lines: list[bytes] = []
        self.heard = 0

    def connect(self, fd: int) -> None:
        self.socket = socket.socket(fileno=fd)

    def serve(self) -> str:
        assert self.socket is not None
        with self.socket.makefile("rb") as file:
            for line in file:
                self.lines.append(line)
        return "it closed its end"

    def disconnect(self) -> None:
        if self.socket is not None:
            self.socket.close()
        self.socket = None

    def say(self, data: bytes) -> None:
        assert self.socket is not None
        self.socket.sendall(data)


class Ended(BaseException):
    """Out of the loop that has no end."""


class Kept:
    """A keeper in a thread, with a clock that is set here, until it has paused so often."""

    def __init__(self, tmp_path: Path, pauses: int, settings: StoreSettings) -> None:
        script = tmp_path / "stands_in.py"
        script.write_text(STANDS_IN)
        self.now = 100.0
        self.pauses: list[float] = []
        self.most = pauses
        self.log: list[str] = []
        self.end = End()
        self.keeper = Keeper(
            self.end,
            settings,
            [sys.executable, str(script)],
            lambda priority, text: self.log.append(text),
            self.pause,
            lambda: self.now,
        )
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        with suppress(Ended):
            self.keeper.run()

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if len(self.pauses) == self.most:
            raise Ended

    def look_for(self, seconds: float) -> None:
        """Once a second."""
        for _ in range(int(seconds)):
            self.now += 1
            self.keeper.look()

    def said(self, number: int = 0) -> dict[str, object]:
        wait_until(lambda: len(self.end.lines) > number, "a courier that says something")
        found: dict[str, object] = json.loads(self.end.lines[number])
        return found

    def close(self) -> None:
        self.most = len(self.pauses) + 1
        child = self.keeper.child
        if child is not None:
            child.kill()
        self.thread.join()


Start = Callable[..., Kept]
STORE = StoreSettings("redis://h", Path("/k"), timeout=2.5, ttl=60)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Kept] = []

    def begin(pauses: int = 1, settings: StoreSettings = STORE) -> Kept:
        started.append(Kept(tmp_path, pauses, settings))
        return started[-1]

    yield begin
    for kept in started:
        kept.close()


def test_what_it_is_told(start: Start) -> None:
    said = start().said()
    assert said["told"] == {
        "version": VERSION,
        "url": "redis://h",
        "ttl_s": 60,
        "timeout_ms": 2.5,
        "password_file": None,
        "tls": None,
    }


def test_it_has_none_of_the_servers_files(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its standard streams and its end of the socket; one more would keep a listening socket, or a
    lock, beyond the server's end."""
    for name in ("LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "1")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        os.set_inheritable(listening.fileno(), True)
        said = start().said()
    files = said["files"]
    assert isinstance(files, dict)
    assert len({"0", "1", "2"} & files.keys()) == 3
    [end] = files.keys() - {"0", "1", "2"}
    assert files[end].startswith("socket:")
    environment = said["env"]
    assert isinstance(environment, list)
    assert "PATH" in environment
    assert not {"LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "PYTHONWARNINGS"} & {*environment}


def test_one_that_ends_is_started_again_and_later_each_time(start: Start) -> None:
    kept = start(pauses=8)
    for number in range(8):
        kept.said(number)
        kept.end.say(b"\3")
    kept.thread.join()
    assert kept.pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert kept.keeper.starts == 8
    assert kept.keeper.error == "it ended with status 3"
    assert kept.log[0] == (
        "the courier to the store is gone, it ended with status 3: pages are read from disk, and"
        " another one is started in 1 s"
    )


def test_one_that_lived_long_is_started_again_at_once(start: Start) -> None:
    kept = start(pauses=3)
    for number, lived in enumerate((0, 0, LONGEST_PAUSE + 1)):
        kept.said(number)
        kept.now += lived
        kept.end.say(b"\1")
    kept.thread.join()
    assert kept.pauses == [FIRST_PAUSE, 2 * FIRST_PAUSE, FIRST_PAUSE]


def test_one_that_is_killed(start: Start) -> None:
    kept = start(pauses=1)
    kept.said()
    assert kept.keeper.child is not None
    kept.keeper.child.send_signal(signal.SIGKILL)
    kept.thread.join()
    assert kept.keeper.error == "it closed its end"
    assert kept.keeper.child is None


def test_one_that_hangs_is_killed(start: Start) -> None:
    kept = start(pauses=1)
    kept.said()
    kept.look_for(HUNG_SECONDS)
    kept.end.heard += 1
    kept.keeper.look()
    kept.look_for(HUNG_SECONDS)
    assert kept.pauses == []
    kept.look_for(1)
    kept.thread.join()
    assert kept.pauses == [FIRST_PAUSE]
    assert kept.log[0].startswith("the courier to the store hangs, process ")


def test_one_that_was_frozen_with_its_server_does_not_hang(start: Start) -> None:
    """As a unit or a container is: it says something within a moment, when it goes on."""
    kept = start(pauses=1)
    kept.said()
    kept.look_for(HUNG_SECONDS)
    kept.now += 3600
    kept.keeper.look()
    kept.end.heard += 1
    kept.look_for(HUNG_SECONDS)
    assert kept.log == []


def test_who_looks_does_not_wait_for_the_end_of_one_that_hangs(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may put it off, and guests are to be looked at meanwhile."""
    waiting: list[threading.Thread] = []
    real_wait = Child.wait

    def wait(child: Child, seconds: float = 30.0) -> int:
        waiting.append(threading.current_thread())
        return real_wait(child, seconds)

    monkeypatch.setattr(Child, "wait", wait)
    kept = start(pauses=1)
    kept.said()
    kept.look_for(HUNG_SECONDS + 1)
    kept.thread.join()
    assert set(waiting) == {kept.thread}


def test_one_that_cannot_be_started(start: Start, tmp_path: Path) -> None:
    """As a certificate is missing; it is there when the next one is started."""
    ca = tmp_path / "ca.pem"
    settings = StoreSettings("rediss://h", Path("/k"), ca=ca)
    kept = start(pauses=2, settings=settings)
    kept.thread.join()
    assert kept.keeper.starts == 0
    assert kept.keeper.error == f"as it could not be started: ca {ca}: No such file or directory"
    ca.touch()
    said = start(settings=settings).said()
    assert isinstance(said["told"], dict)
    assert said["told"]["tls"] == {"ca": str(ca)}


def test_one_that_cannot_be_connected_is_ended(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the server has no descriptor left: a file and a process would stay of each start."""
    given: list[int] = []
    children: list[Child] = []

    def refuse(_end: End, fd: int) -> None:
        given.append(fd)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def noted(*args: Any, **options: Any) -> Child:
        children.append(Child(*args, **options))
        return children[-1]

    monkeypatch.setattr(End, "connect", refuse)
    monkeypatch.setattr(keeping, "Child", noted)
    kept = start()
    kept.thread.join()
    assert kept.keeper.error is not None
    assert kept.keeper.error.endswith(os.strerror(errno.EMFILE))
    [fd] = given
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(fd)
    [child] = children
    assert child.status is not None


def test_one_whose_end_takes_too_long_is_not_the_last(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the kernel cannot end now: there is another one all the same."""
    real_stop = Child.stop

    def stop(child: Child, number: int = signal.SIGTERM, seconds: float = 30.0) -> int:
        monkeypatch.undo()
        real_stop(child, number, seconds)
        raise subprocess.TimeoutExpired("courier", seconds)

    monkeypatch.setattr(Child, "stop", stop)
    kept = start(pauses=2)
    for number in range(2):
        kept.said(number)
        kept.end.say(b"\3")
    kept.thread.join()
    assert kept.pauses == [1, 2]
    assert "timed out" in kept.log[0]


@pytest.mark.timeout(30)
def test_settings_that_are_too_long_are_not_waited_for() -> None:
    """Nobody would read the rest of them out of the pipe."""
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(RefusedError, match=r"too long: see \[remote\]"):
        told(StoreSettings("redis://" + "h," * (1 << 20), Path("/k")))
    assert set(os.listdir("/proc/self/fd")) == before


def test_password_is_read_by_the_courier_alone(tmp_path: Path) -> None:
    """Again before each connection; that of a file which is not there yet, too."""
    password = tmp_path / "password"
    with open(told(StoreSettings("redis://h", Path("/k"), password_file=password)), "rb") as file:
        assert json.load(file)["password_file"] == str(password)


def test_files_of_tls_are_named_where_there_is_tls(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"

    def tls(url: str) -> object:
        with open(told(StoreSettings(url, Path("/k"), ca=ca)), "rb") as file:
            return json.load(file)["tls"]

    with pytest.raises(RefusedError, match=f"ca {ca}: No such file or directory"):
        tls("rediss://h")
    ca.touch()
    assert tls("rediss://h") == {"ca": str(ca)}
    assert tls("redis://h") is None


SERVER = """
import sys, threading
from pathlib import Path
from preswapd.remote.keeping import Keeper
from preswapd.remote.settings import StoreSettings
from preswapd.version import VERSION

class End:
    heard = 0
    def connect(self, fd): pass
    def serve(self): threading.Event().wait()
    def disconnect(self): pass

store = StoreSettings("redis://h", Path("/k"))
Keeper(End(), store, [sys.executable, sys.argv[1]], lambda *said: None).run()
"""
HANGS = """
import os, signal, time
from preswapd.host.prctl import set_death_signal
set_death_signal(signal.SIGKILL)
print(os.getpid(), flush=True)
while True:
    time.sleep(600)
"""


def test_it_dies_with_the_server(tmp_path: Path) -> None:
    """As it has asked for: also where it hangs, and does not see that its socket is closed."""
    hangs = tmp_path / "hangs.py"
    hangs.write_text(HANGS)
    command = [sys.executable, "-c", SERVER, str(hangs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        server.kill()
        wait_for(lambda: state_of(pid), lambda state: state in ("", "Z"))


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
