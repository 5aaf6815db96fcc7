# SPDX-License-Identifier: BSD-3-Clause
"""Connecting to QEMU's monitor at a moment that QEMU is not ready for.

What comes before a greeting is rarely to be seen with a real QEMU (7.2: an event 128 times in 31224
connections, while its guest was stopped and continued without pause), so it is played here.
"""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from preswapd import qmp
from preswapd.qmp import Monitor, MonitorBusyError, MonitorError
from tests.running import PATIENCE

EVENT = b'{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}\r\n'
GREETING = b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""},\
 "capabilities": []}}\r\n'


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a loaded host a connection can take a second."""
    monkeypatch.setattr(qmp, "GREETING_SECONDS", PATIENCE)


def answer(command: dict[str, object]) -> bytes:
    found: dict[str, object] = {"return": {"asked": command.get("execute")}}
    if "id" in command:
        found["id"] = command["id"]
    return json.dumps(found).encode() + b"\r\n"


@contextmanager
def played(path: Path, *before: bytes, ever: bytes | None = None) -> Iterator[list[int]]:
    """On each of the first connections that is all that comes; the next ones are greeted, or get
    `ever`.  Yields how many came."""
    came: list[int] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def play() -> None:
            while True:
                try:
                    connection = listening.accept()[0]
                except OSError:  # shut down below
                    return
                with connection, suppress(ConnectionError):
                    number = len(came)
                    came.append(number)
                    said = before[number] if number < len(before) else ever
                    connection.sendall(GREETING if said is None else said)
                    if said is not None:
                        continue
                    # Each command waits for the answer to the one before.
                    while command := connection.recv(1 << 16):
                        connection.sendall(answer(json.loads(command)))

        thread = threading.Thread(target=play)
        thread.start()
        try:
            yield came
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    "before",
    [
        pytest.param([EVENT + GREETING], id="event"),
        pytest.param([EVENT], id="event and end"),
        pytest.param([b""], id="end"),
        pytest.param([b"", EVENT + EVENT + GREETING, GREETING], id="all of it"),
    ],
)
def test_what_comes_before_the_greeting(tmp_path: Path, before: list[bytes]) -> None:
    with played(tmp_path / "qmp", *before) as came:
        with closing(Monitor.at(tmp_path / "qmp")) as monitor:
            assert monitor.execute("query-status") == {"asked": "query-status"}
        assert len(came) == len(before) + 1


@pytest.mark.parametrize("ever", [b"", EVENT, b"{"])
def test_greeting_that_never_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ever: bytes
) -> None:
    """The time is over once it has tried twice, however long that took."""
    tries: list[Path] = []
    once = qmp.answering

    @contextmanager
    def tried(path: Path, deadline: float) -> Iterator[socket.socket]:
        try:
            with once(path, deadline) as connection:
                yield connection
        finally:
            tries.append(path)

    def now() -> float:
        return 2 * PATIENCE if len(tries) == 2 else 0.0

    monkeypatch.setattr(qmp, "answering", tried)
    monkeypatch.setattr(qmp, "time", SimpleNamespace(monotonic=now, sleep=time.sleep))
    with played(tmp_path / "qmp", ever=ever):
        with pytest.raises(MonitorError) as raised:
            Monitor.at(tmp_path / "qmp")
        assert type(raised.value) is MonitorError
        assert str(raised.value).startswith(f"{tmp_path / 'qmp'}: ")
    assert len(tries) == 2


def test_more_clients_than_may_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU lets one wait, and the kernel one more; the next is not taken at all."""
    monkeypatch.setattr(qmp, "GREETING_SECONDS", 0.3)
    path = str(tmp_path / "qmp")
    with (
        socket.socket(socket.AF_UNIX) as listening,
        socket.socket(socket.AF_UNIX) as one,
        socket.socket(socket.AF_UNIX) as other,
    ):
        listening.bind(path)
        listening.listen(1)
        one.connect(path)
        other.connect(path)
        with pytest.raises(MonitorBusyError, match="another client"):
            Monitor.at(tmp_path / "qmp")


def test_socket_that_ends_meanwhile(tmp_path: Path) -> None:
    """What is said is that nobody listens there, and not how the last connection ended."""
    path = tmp_path / "qmp"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def end() -> None:
            connection = listening.accept()[0]
            listening.close()
            connection.close()

        thread = threading.Thread(target=end)
        thread.start()
        with pytest.raises(MonitorError, match="no QEMU listens there"):
            Monitor.at(path)
        thread.join()
