"""QEMU's monitor (QMP) from plain synchronous code: the library's client on a thread of its own."""

import asyncio
import logging
import socket
import threading
from collections.abc import Coroutine
from typing import TypeVar

from qemu.qmp import EventListener, QMPClient, QMPError

from preswapd.guest.faults import GuestError

ANSWER_SECONDS = 20.0

T = TypeVar("T")

# Where nobody set up logging, the library's complaints about a QEMU that ended would go to stderr;
# whoever waits gets them as an exception.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())


class Monitor:
    """Commands to QEMU, and a record of all its events since the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._loop = asyncio.new_event_loop()
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

    def execute(self, command: str, **arguments: object) -> object:
        return self._wait(self._client.execute(command, arguments))

    def events(self, *names: str) -> list[dict[str, object]]:
        """All events so far with one of these names, oldest first."""
        return [dict(event) for event in self._listener.history if event["event"] in names]

    def close(self) -> None:
        """Ends the connection and the thread; QEMU may be gone already."""
        try:
            self._wait(self._client.disconnect())
        except GuestError:
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
            raise GuestError(f"QEMU's monitor gave no answer in {ANSWER_SECONDS:.0f} s") from None
        except (QMPError, EOFError, OSError) as error:
            raise GuestError(f"QEMU's monitor: {error}") from error
