# SPDX-License-Identifier: BSD-3-Clause
"""What lies on disk about one device, and how it stays true: K2 and K3 of docs/concurrency.md."""

import errno
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from preswapd.paths import InstancePaths
from preswapd.preswap.device._table import Entry
from preswapd.preswap.files.identity import identity, new_token, write_token
from preswapd.preswap.files.saved_map import save_map
from preswapd.preswap.files.sidecar import Sidecar
from preswapd.units import PAGE_SIZE


class Record:
    """The sidecar of a device that is served, the token of its disk file, its saved map.

    `disk_fd` is the device's, and lives as long.  `is_half_saved`: an error came between, or the
    saved map was found damaged, and it is to be saved again though nothing changes.
    """

    def __init__(self, paths: InstancePaths, entry: Entry, sidecar: Sidecar, disk_fd: int) -> None:
        self.paths = paths
        self.entry = entry
        self.sidecar = sidecar
        self.disk_fd = disk_fd
        self.is_half_saved = False
        # A request marks it, and another host asks for its life: one sidecar at a time.
        self.lock = threading.RLock()

    @property
    def pages(self) -> int:
        return self.sidecar.size // PAGE_SIZE

    @property
    def saved_map(self) -> Path:
        return self.paths.saved_map(self.sidecar.name)

    def mark(self) -> None:
        """Before the first change since the map was saved: no start believes the map afterwards.

        The sidecar first: a disk file whose token is ahead of a clean sidecar's looks like
        another's.  Done again, it finishes what an error interrupted.
        """
        with self.lock:
            if self.sidecar.clean:
                self.write(dirty(self.sidecar, new_token()))
            self.bear_token()

    def change(self, **changes: Any) -> None:
        """What an older sidecar, put back, must not undo: its token is no more known then."""
        with self.lock:
            # What an error interrupted before: the disk file may not be two tokens behind.  Of a
            # clean device nothing was, and its disk file changes only when the sidecar says so.
            if not self.sidecar.clean:
                self.bear_token()
            self.renew(replace(dirty(self.sidecar, new_token()), **changes))

    def note(self, **changes: Any) -> None:
        """What an older sidecar may do without; a clean device stays clean."""
        with self.lock:
            self.write(replace(self.sidecar, **changes))

    def note_taken(self) -> None:
        """The source knows that the guest is here, whose first change comes now."""
        with self.lock:
            # It may have been given up meanwhile.
            self.change(taken=self.sidecar.source != 0)

    def renew(self, sidecar: Sidecar) -> None:
        """The same for a device whose map was not believed, or never saved."""
        self.write(sidecar)
        self.bear_token()

    def bear_token(self) -> None:
        token = self.sidecar.token
        write_token(self.disk_fd, self.sidecar.size, token)
        self.entry.set_token(token)

    def bear_late(self) -> None:
        """A disk file that could bear no token may have been made longer since; not synced."""
        if self.sidecar.bare:
            self.bear_token()

    def save(self, pieces: Iterable[bytes]) -> None:
        """The disk file is synced, and nothing of the device changes meanwhile; `pieces`: its map.

        The caller has unmarked the device: an error may come after the sidecar is clean.
        """
        self.is_half_saved = True
        began = self.sidecar
        found = identity(self.disk_fd, self.sidecar.size)
        checksum = save_map(self.saved_map, pieces)
        is_bare = found.token is None
        with self.lock:
            # A stop does not wait for ever for what an operator or another host has asked for.
            if began.renewing or self.sidecar.token != began.token:
                raise OSError(errno.EBUSY, "it is being changed as a whole")
            self.sidecar = replace(
                self.sidecar, clean=True, ctime=found.ctime, map=checksum, bare=is_bare
            )
            self.sidecar.write(self.paths.sidecar(self.sidecar.name))
        self.is_half_saved = False

    def note_restore(self, how_far: str) -> None:
        """Of a device that is marked; empty: there is none."""
        self.note(restore=how_far)

    def write(self, sidecar: Sidecar) -> None:
        sidecar.write(self.paths.sidecar(sidecar.name))
        self.sidecar = sidecar


def dirty(sidecar: Sidecar, token: int) -> Sidecar:
    return replace(
        sidecar, clean=False, tmem_dirty=True, token=token, prev=sidecar.token, ctime=0, map=""
    )
