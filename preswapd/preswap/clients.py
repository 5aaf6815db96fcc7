# SPDX-License-Identifier: BSD-3-Clause
"""Whose client was connected when the server ended, and how long there was no server for it.

QEMU notices that the server went away at its guest's next request, and comes back with it: in
seconds, in hours where the guest is idle.  Until then nobody is connected to the device, and the
guest needs every page of it.  When a request has waited for as long as QEMU waits, QEMU pauses the
guest, and it stays paused when the server is back.

An empty file in shared memory for each device that has a client tells the next start.  It outlives
a kill, and not the host's reboot, which ends the guests too.  Its mtime is that of the last beat of
the server, on the clock that counts from the host's boot and that nobody sets.  Until the guest has
asked for something its atime is earlier, by as long as there was no server: a guest that is paused
stays so, however often the server starts again.  (No content: that would need room.)

A client that leaves and has asked for nothing, or for the scan zone alone, was not that guest:
`nbdinfo`, say.  QEMU at least flushes.
"""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from preswapd.host.filesystems import is_there
from preswapd.log import WARNING, Log
from preswapd.paths import SharedMemoryPaths


class Clients:
    """Which devices have a client, and which had one when the process before this one ended."""

    def __init__(self, paths: SharedMemoryPaths, devices: Iterable[str], log: Log) -> None:
        self.paths = paths
        self.log = log
        self.here: set[str] = set()
        self.away = {
            device: seconds_away(path)
            for device in devices
            for path in [paths.client(device)]
            if is_there(path)
        }
        # Their QEMU has asked for nothing since then.
        self.silent = set(self.away)

    def note(self, device: str, *, connected: bool) -> None:
        """A client of the device has come, or the last one has gone; one caller at a time."""
        path = self.paths.client(device)
        try:
            if connected:
                self.here.add(device)
                path.touch(mode=0o600)
                beat(path, self.away.get(device, 0.0))
            else:
                self.here.discard(device)
                if device not in self.silent:
                    path.unlink(missing_ok=True)
        except OSError as error:
            # Served all the same: only the start after a kill would know less.
            self.log(WARNING, f"{path}: {error.strerror}")

    def forget(self, device: str) -> None:
        """It was removed, or made: what was known was of another device of its name."""
        self.has_asked(device)
        self.goes_on(device)
        self.note(device, connected=False)

    def has_asked(self, device: str) -> None:
        """The client that was awaited came back."""
        self.silent.discard(device)

    def goes_on(self, device: str) -> None:
        """Its guest does."""
        self.away.pop(device, None)

    def beat(self) -> None:
        """To be called about once a second: the server is there."""
        for device in self.here | self.silent:
            # Where somebody took the file away, it comes back with the next client.
            with suppress(OSError):
                beat(self.paths.client(device), self.away.get(device, 0.0))


def seconds_away(path: Path) -> float:
    """Without a server, the last time or once before, and no request since."""
    status = path.stat()
    now, before = since_boot() - status.st_mtime_ns, status.st_mtime_ns - status.st_atime_ns
    return max(0, now, before) / 1e9


def beat(path: Path, away: float) -> None:
    now = since_boot()
    os.utime(path, ns=(max(0, now - int(away * 1e9)), now))


def since_boot() -> int:
    """Nanoseconds, those in which the host slept included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
