# SPDX-License-Identifier: BSD-3-Clause
"""QEMU's monitor (QMP) from plain synchronous code: the library's client on a thread of its own."""

import asyncio
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from qemu.qmp import (
    ConnectError,
    EventListener,
    ExecuteError,
    QMPClient,
    QMPError,
    Runstate,
)

from preswapd.errors import PreswapError

ANSWER_SECONDS = 20.0
# QEMU greets at once, unless it serves another client: then it leaves this one waiting.
GREETING_SECONDS = 5.0
POLL_SECONDS = 0.05
# struct ucred: process, user, group.
CREDENTIALS = struct.Struct("iII")

T = TypeVar("T")
Event = dict[str, Any]

# Where nobody set up logging, the library's complaints about a QEMU that ended would go to stderr;
# whoever waits gets them as an exception.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())


class MonitorError(PreswapError):
    """No connection to QEMU, or it broke off."""


class MonitorBusyError(MonitorError):
    """QEMU takes one client at a time on such a socket, and seems to have one."""


class NoGreetingError(MonitorError):
    """Something else came first, or the connection ended before: the next one may be greeted."""


class CommandFailedError(MonitorError):
    """QEMU's answer to a command was an error: it did nothing."""


class Monitor:
    """Commands to QEMU, and a record of all its events since the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.pid = peer_pid(connection)
        self._loop = asyncio.new_event_loop()
        # For the same reason as above.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._client = QMPClient("guest")
        self._listener = EventListener()
        self._client.register_listener(self._listener)
        self._thread.start()
        try:
            self._wait(self._client.connect(connection))
        except BaseException:
            self.close()
            raise

    @classmethod
    def at(cls, path: Path) -> Self:
        """Connects to the Unix socket of `-qmp unix:PATH,server=on`, which takes one client.

        QEMU is not ready for the next client when it takes it: an event at that moment comes before
        the greeting, as the client before was to hear of it.
        """
        deadline = time.monotonic() + GREETING_SECONDS
        while True:
            try:
                with answering(path, deadline) as connection:
                    return cls(connection.dup())
            except NoGreetingError as error:
                if time.monotonic() > deadline:
                    raise MonitorError(f"{path}: {error}") from None
            time.sleep(POLL_SECONDS)

    def execute(self, command: str, **arguments: object) -> Any:
        return self._wait(self._client.execute(command, arguments))

    def events(self, *names: str) -> list[Event]:
        """All events so far with one of these names, oldest first."""
        return [dict(event) for event in self._listener.history if event["event"] in names]

    def wait_for(self, wanted: Callable[[Event], bool], seconds: float) -> Event | None:
        """The first event that is wanted, also one that came before; None when the time is over."""
        deadline = time.monotonic() + seconds
        while True:
            connected = self._client.runstate == Runstate.RUNNING
            for event in self._listener.history:
                if wanted(dict(event)):
                    return dict(event)
            if not connected:
                raise MonitorError("QEMU has ended, or closed its monitor")
            if time.monotonic() > deadline:
                return None
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Ends the connection and the thread; QEMU may be gone already."""
        try:
            self._wait(self._client.disconnect())
        except MonitorError:
            pass  # it broke off, which is as good
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(ANSWER_SECONDS)
            self._loop.close()

    def _wait(self, work: Coroutine[object, object, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(ANSWER_SECONDS)
        except TimeoutError:
            future.cancel()
            raise MonitorError(f"QEMU's monitor gave no answer in {ANSWER_SECONDS:.0f} s") from None
        except ExecuteError as error:
            raise CommandFailedError(f"QEMU: {error}") from error
        except ConnectError as error:
            raise NoGreetingError(f"QEMU's monitor: {error}") from error
        except (QMPError, EOFError, OSError) as error:
            raise MonitorError(f"QEMU's monitor: {error}") from error


@contextmanager
def answering(path: Path, deadline: float) -> Iterator[socket.socket]:
    """A connection on which something came that may be a greeting; it is still to be read."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(max(POLL_SECONDS, deadline - time.monotonic()))
            connection.connect(str(path))
            greeting = connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            raise busy(path) from None
        except BlockingIOError:  # as many wait already as it lets wait
            if time.monotonic() > deadline:
                raise busy(path) from None
            raise NoGreetingError("too many clients wait for it") from None
        except ConnectionResetError:
            greeting = b""
        except (FileNotFoundError, ConnectionRefusedError):
            raise MonitorError(f"{path}: no QEMU listens there") from None
        except OSError as error:
            # A path that is too long comes without a number.
            raise MonitorError(f"{path}: {error.strerror or error}") from None
        if not greeting:
            raise NoGreetingError("it ends each connection before it says anything")
        if greeting != b"{":
            raise MonitorError(f"{path} is not a QMP socket (QEMU's option -qmp makes one)")
        yield connection


def busy(path: Path) -> MonitorBusyError:
    return MonitorBusyError(
        f"{path}: QEMU does not answer: another client holds this socket, which takes one at a"
        " time, or QEMU hangs"
    )


def peer_pid(connection: socket.socket) -> int:
    """Of the process that has made the other end of a Unix socket; 0 of one not to be seen here."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid: int = CREDENTIALS.unpack(found)[0]
    return pid
