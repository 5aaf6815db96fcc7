# SPDX-License-Identifier: BSD-3-Clause
"""Which devices are saved or restored now: nobody connects to them, nor changes them, meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from preswapd.api.messages import AWAITED, SavedDevice, SaveReport
from preswapd.api.save_file import NoSaveError
from preswapd.errors import PreswapError, RefusedError, with_place
from preswapd.log import ERROR, INFO, WARNING, Log
from preswapd.preswap.creation import Served
from preswapd.preswap.device._device import Device
from preswapd.preswap.saves.restoring import Read, Restoring, known_pages
from preswapd.preswap.saves.saving import Saving
from preswapd.units import format_pages

SAVED = "is being saved"
RESTORED = "is being restored"
# What one takes: an extent as it is packed, and as the device has it.  Seen were 3 to 5 MiB.
TRANSFER_BYTES = 5 << 20
STUCK = (
    "was restored in part, which could not be undone: restart the server, which knows none of its"
    " pages then, and loses no other device's"
)


class RestoreFailedError(PreswapError):
    """Nothing is known of the device, as before."""


class Restored(NamedTuple):
    saved: SavedDevice
    report: SaveReport


class Transfers:
    """Of one instance.  `find`: a device that is served and free, with all of its pages here, or
    RefusedError; `is_awaited`: its client may be coming back.  `changes` and `saving` are the
    instance's locks."""

    def __init__(
        self,
        instance: str,
        changes: threading.Lock,
        saving: threading.Lock,
        find: Callable[[str], Served],
        is_awaited: Callable[[str], bool],
        log: Log,
    ) -> None:
        self.instance = instance
        self.changes = changes
        self.saving = saving
        self.find = find
        self.is_awaited = is_awaited
        self.log = log
        self.under_way: dict[str, str] = {}

    def check_free(self, name: str) -> None:
        """RefusedError while it is saved or restored."""
        if what := self.what_is_done(name):
            raise RefusedError(f"{name} {what}")

    def what_is_done(self, name: str) -> str | None:
        """To it now, as a sentence goes on; None: it is neither saved nor restored."""
        return self.under_way.get(name)

    def may_take(self) -> int:
        """Bytes of memory, at most, for what is saved and restored now."""
        return sum(what != STUCK for what in list(self.under_way.values())) * TRANSFER_BYTES

    def why_shut(self, name: str) -> str:
        """For a client that was not let in."""
        return f"{name} {self.what_is_done(name) or 'was shut to clients a moment ago'}"

    @contextmanager
    def shut(self, name: str, what: str, force: bool) -> Iterator[Served]:
        """Inside, nobody connects to it.  RefusedError where somebody is connected already, or,
        unless forced, may be coming back."""
        with self.changes:
            served = self.find(name)
            # In this order: one that only looks may leave between the two.
            is_awaited = self.is_awaited(name)
            if not served.device.shut():
                raise RefusedError(
                    f"a client is connected to {name}: save its guest (`virsh save`) or shut it"
                    f" down, or swapoff in it and `preswapctl detach {name}`"
                )
            if is_awaited and not force:
                served.device.unshut()
                raise RefusedError(f"{name}: {AWAITED}; if its guest has ended, force it (--force)")
            self.under_way[name] = what
        try:
            yield served
        finally:
            # Without the lock: whoever holds it waits for a disk, perhaps.
            if self.under_way[name] != STUCK:
                del self.under_way[name]
                served.device.unshut()

    # --- out ---

    @contextmanager
    def save(self, name: str, *, force: bool = False) -> Iterator[Saving]:
        """What is there is taken from `blocks()` inside.  RefusedError as above."""
        with self.shut(name, SAVED, force) as served:
            begun = time.monotonic()
            saving = Saving(served.device, self.instance)
            try:
                yield saving
            except BaseException:
                self.log(WARNING, f"save of {name} was broken off by its client")
                raise
            report, seconds = saving.report, time.monotonic() - begun
            if saving.failure:
                self.log(WARNING, f"save of {name} failed: {saving.failure}")
                return
            lost = f", {report.lost} lost pages left out" if report.lost else ""
            self.log(INFO, f"saved {format_pages(report.pages)} of {name} in {seconds:.1f} s{lost}")

    # --- and in ---

    def restore(self, name: str, read: Read, *, force: bool = False) -> Restored:
        """RefusedError, and nothing was changed: as above, or something is known of it already.
        RestoreFailedError: nothing is known of it, as before."""
        with self.shut(name, RESTORED, force) as served:
            self.check_blank(served.device)
            with self.saving:
                served.is_restoring = True
            begun = time.monotonic()
            restoring = Restoring(served)
            try:
                self.carry_out(restoring, read)
            finally:
                if self.under_way[name] != STUCK:
                    with self.saving:
                        served.is_restoring = False
            assert restoring.saved is not None
            report, seconds = restoring.report, time.monotonic() - begun
            self.log(INFO, f"restored {format_pages(report.pages)} of {name} in {seconds:.1f} s")
            return Restored(restoring.saved, report)

    def check_blank(self, device: Device) -> None:
        if known := known_pages(device):
            raise RefusedError(
                f"{format_pages(known)} of {device.name} are known already, or lost: a restore is"
                " for a device that is new or has lost its memory; `preswapctl swapoff"
                f" {device.name}` drops them, if no guest needs them"
            )

    def carry_out(self, restoring: Restoring, read: Read) -> None:
        name = restoring.device.name
        try:
            restoring.begin()
        except OSError as error:
            raise RestoreFailedError(f"{name} was not restored: {error.strerror}") from None
        try:
            restoring.take(read)
        except Exception as error:
            text = f"{name} was not restored: {self.reason(error)}; {self.undo(restoring)}"
            self.log(WARNING, text)
            raise RestoreFailedError(text) from None

    def reason(self, error: Exception) -> str:
        if isinstance(error, NoSaveError | PreswapError):
            return str(error)
        if isinstance(error, OSError):
            return error.strerror or str(error)
        self.log(ERROR, f"a restore failed: {with_place(error)}")
        return f"internal error, {type(error).__name__}: {error}"

    def undo(self, restoring: Restoring) -> str:
        """What became of it."""
        name = restoring.device.name
        try:
            restoring.undo()
        except Exception as error:
            # Nobody gets in any more, and its entry says what a start has to do.
            self.under_way[name] = STUCK
            self.log(ERROR, f"{name} {STUCK} ({with_place(error)})")
            return f"{name} {STUCK}"
        return "none of its pages is known"
