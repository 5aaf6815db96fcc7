# SPDX-License-Identifier: BSD-3-Clause
"""A courier is kept at work: the process that speaks to the store, which never has the key.

It may end, hang or be killed at any time: until another one is there reads go to the disk files.
"""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from preswapd.errors import RefusedError, with_place
from preswapd.host import plain_files
from preswapd.host.children import Child
from preswapd.host.inherited import NO_JIT, without_chance
from preswapd.log import WARNING, Log
from preswapd.remote.settings import StoreSettings
from preswapd.version import VERSION

# Before another one is started; doubled each time, until one has lived for the longest.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
# It says something every ten seconds.
HUNG_SECONDS = 35.0
# Who has not looked for so long was stopped itself, and the courier too where a unit was frozen.
STOPPED_SECONDS = 10.0
# It ends by itself when its end of the socket is closed, or has done so already.
NO_SIGNAL, GRACE_SECONDS = 0, 2.0
# They are meant for this process alone.
OURS = {"LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET"}


class ServersEnd(Protocol):
    """The server's end of the socket to it."""

    def connect(self, fd: int) -> None: ...
    def disconnect(self) -> None: ...
    def serve(self) -> str: ...
    @property
    def heard(self) -> int:
        """How often it has said how the store is."""


class Keeper:
    """Keeps one courier at the other end."""

    def __init__(
        self,
        end: ServersEnd,
        settings: StoreSettings,
        command: Sequence[str],
        log: Log,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.end = end
        self.settings = settings
        self.command = command
        self.log = log
        self.pause = pause
        self.clock = clock
        self.child: Child | None = None
        self.starts = 0
        self.error: str | None = None  # why the last one ended
        self.heard, self.heard_at = 0, clock()
        self.looked_at = clock()

    def run(self) -> NoReturn:
        """In a thread of its own, which may not end before it: the kernel would kill it then."""
        seconds = FIRST_PAUSE
        while True:
            begun = self.clock()
            try:
                self.error = self.keep_one()
            except Exception as error:
                # As of one that cannot be killed now: nobody would start another one.
                self.error = with_place(error)
            if self.clock() - begun > LONGEST_PAUSE:
                seconds = FIRST_PAUSE
            self.log(
                WARNING,
                f"the courier to the store is gone, {self.error}: pages are read from disk, and"
                f" another one is started in {seconds:g} s",
            )
            self.pause(seconds)
            seconds = min(2 * seconds, LONGEST_PAUSE)

    def keep_one(self) -> str:
        """Until it is gone: why."""
        try:
            child = self.started()
        except (OSError, RefusedError) as error:
            return f"as it could not be started: {error}"
        try:
            why = self.end.serve()
        finally:
            self.child = None
            self.end.disconnect()
            status = child.stop(NO_SIGNAL, GRACE_SECONDS)
        return why if status < 0 else f"it ended with {child.ending}"

    def started(self) -> Child:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs, open(told(self.settings), "rb") as settings:
                child = Child(
                    [*self.command, "--fd", str(theirs.fileno())],
                    output=None,
                    stdin=settings.fileno(),
                    pass_fds=[theirs.fileno()],
                    env=environment(),
                    ends_by_itself=True,
                )
            self.starts += 1
            self.heard_at = self.clock()
            try:
                self.end.connect(ours.fileno())
            except BaseException:
                child.kill()
                raise
            ours.detach()
        self.child = child
        return child

    def look(self) -> None:
        """To be called about once a second: one that hangs is killed."""
        child, now = self.child, self.clock()
        if now - self.looked_at > STOPPED_SECONDS:
            self.heard_at = now
        self.looked_at = now
        if self.heard != self.end.heard:
            self.heard, self.heard_at = self.end.heard, now
        elif child is not None and now - self.heard_at > HUNG_SECONDS:
            self.heard_at = now
            self.log(WARNING, f"the courier to the store hangs, process {child.pid}")
            # Who keeps it waits for its end.
            child.send_signal(signal.SIGKILL)


def told(settings: StoreSettings) -> int:
    """A descriptor to read the courier's settings from, as JSON.  OSError, RefusedError."""
    said = json.dumps(
        {
            "version": VERSION,
            "url": settings.url,
            "ttl_s": settings.ttl,
            "timeout_ms": settings.timeout,
            "password_file": settings.password_file and str(settings.password_file),
            "tls": tls_of(settings),
        }
    )
    reading, writing = os.pipe()
    try:
        # Nobody reads yet: what does not fit into the pipe would wait for ever.
        os.set_blocking(writing, False)
        if os.write(writing, said.encode()) < len(said):
            raise RefusedError("what the courier is to be told is too long: see [remote]")
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return reading


def tls_of(settings: StoreSettings) -> dict[str, str] | None:
    if not settings.url.startswith("rediss://"):
        return None
    paths = {"ca": settings.ca, "cert": settings.cert, "key": settings.key}
    given = {name: path for name, path in paths.items() if path is not None}
    for name, path in given.items():
        try:
            plain_files.read(path)
        except OSError as error:
            # OpenSSL would not say which of them it is.
            raise RefusedError(f"{name} {path}: {error.strerror}") from None
    return {name: str(path) for name, path in given.items()}


def environment() -> dict[str, str]:
    ours = without_chance(os.environ)
    return {name: value for name, value in ours.items() if name not in OURS} | NO_JIT
