# SPDX-License-Identifier: BSD-3-Clause
"""The source's side: what a server answers to another that pulls one of its devices.

The rows "take" and "let go" of docs/concurrency.md.
"""

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock

from preswapd.block._export import Connection, Content
from preswapd.block.digest import blake2b
from preswapd.host.kernel import machine_id
from preswapd.log import NOTICE, Log
from preswapd.preswap.creation import Served
from preswapd.preswap.device._device import Device
from preswapd.preswap.files.identity import new_token
from preswapd.preswap.moving.names import (
    ANSWER_BYTES,
    DONE,
    ELSEWHERE,
    LIFE,
    MAP,
    OTHER_LIFE,
    PULL,
    RELEASE,
    TAKE,
    Wanted,
    answer,
)
from preswapd.preswap.renewal import renew
from preswapd.preswap.settings import Settings

# How long whoever asks waits for an operator's change, and then for the requests in flight.
CHANGES_SECONDS = 4.0
PARK_MILLISECONDS = 4000


@dataclass(frozen=True)
class Origin:
    """Of an instance's devices.  `home`: this instance and no other, see names.py.  `occupied`:
    what is done to a device now, so that it cannot be pulled from, or None.  `resume` lets a parked
    device go on, unless the instance stops."""

    served: Mapping[str, Served]
    home: str
    changes: Lock
    occupied: Callable[[str], str | None]
    resume: Callable[[Device], None]
    log: Log

    def connect(self, wanted: Wanted) -> Connection:
        """OSError where there is no such device, or it cannot be had now."""
        served = self.served.get(wanted.device)
        if served is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        if wanted.word == PULL:
            return self.pulled(served, wanted)
        if wanted.word == MAP:
            return states_of(self.pulled(served, wanted), served.device)
        body = answer(self.answered(served, wanted))
        assert len(body) == ANSWER_BYTES
        return Content(wanted.export, len(body), lambda at, count: body[at : at + count])

    def pulled(self, served: Served, wanted: Wanted) -> Connection:
        sidecar = served.record.sidecar
        if sidecar.source or sidecar.life != wanted.life or not wanted.arrival:
            raise OSError(errno.ESHUTDOWN, os.strerror(errno.ESHUTDOWN))
        return served.device.pull(wanted.life, wanted.arrival)

    def answered(self, served: Served, wanted: Wanted) -> dict[str, object]:
        """OSError: not now, or the sidecar cannot be written."""
        if not self.changes.acquire(timeout=CHANGES_SECONDS):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        try:
            name = served.device.name
            if self.served.get(name) is not served:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            # Under the lock: neither a save nor a restore begins in here.
            what = self.occupied(name)
            if wanted.word == LIFE:
                return {**life_of(served, what), "home": self.home}
            if what is not None:
                raise OSError(errno.EBUSY, f"{name} {what}")
            return {"answer": self.settle(served, wanted), "home": self.home}
        finally:
            self.changes.release()

    def settle(self, served: Served, wanted: Wanted) -> str:
        sidecar = served.record.sidecar
        if sidecar.life != wanted.life or sidecar.source:
            return OTHER_LIFE
        if wanted.word == TAKE and sidecar.moved == wanted.arrival:
            return DONE
        if sidecar.moved != (wanted.arrival if wanted.word == RELEASE else 0):
            return ELSEWHERE
        with Parked(served.device, self.resume):
            if wanted.word == TAKE:
                self.take(served, wanted.arrival)
            else:
                self.release(served)
        return DONE

    def take(self, served: Served, arrival: int) -> None:
        """Nothing is in flight: the guest's last change here comes before its first there."""
        name = served.device.name
        try:
            served.record.change(moved=arrival)
        finally:
            # What was written may be on disk all the same: then it is another host's.
            if served.record.sidecar.moved:
                served.device.note_marked()
                served.device.set_guest("gone", arrival)
        self.log(NOTICE, f"another host has taken {name}: it alone reads what is here")

    def release(self, served: Served) -> None:
        pages = served.device.preswap_pages
        renew(served.device, served.record)
        self.log(
            NOTICE,
            f"another host has all of {served.device.name}: {pages} pages in memory"
            " and those on disk are dropped",
        )


class Parked:
    """A device whose requests wait; OSError when those in flight do not end in time."""

    def __init__(self, device: Device, resume: Callable[[Device], None]) -> None:
        self.device = device
        self.resume = resume

    def __enter__(self) -> None:
        if not self.device.park(PARK_MILLISECONDS):
            self.resume(self.device)
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def __exit__(self, *error: object) -> None:
        self.resume(self.device)


def home_of(settings: Settings) -> str:
    """Of this machine, and of one directory of it."""
    where = os.fsencode(settings.paths.state_dir.absolute())
    return blake2b(machine_id().encode() + where, digest_size=8).hexdigest()


def life_of(served: Served, what: str | None) -> dict[str, object]:
    """Drawn when it is first asked for: until then nobody can name it.  `what` is done to it."""
    record, refused = served.record, None
    if what is not None:
        refused = f"it {what}"
    elif record.sidecar.source:
        refused = "it has not got all of its own pages yet"
    elif record.sidecar.moved:
        refused = "another host has taken it"
    elif record.sidecar.renewing or served.device.guest != "here":
        refused = "it is being made anew"
    elif not record.sidecar.life:
        record.note(life=new_token())
        served.device.life = record.sidecar.life
    return {
        "device": served.device.name,
        "life": f"{record.sidecar.life:016x}",
        "size": served.device.size,
        "refused": refused,
    }


def states_of(pulled: Connection, device: Device) -> Connection:
    """What its pages are, as long as they may be pulled."""

    def read(offset: int, count: int) -> bytes:
        states = device.state_bytes(offset, count)
        # Afterwards: in another life they would be another guest's.
        pulled.extents(1, 0)
        return states

    return Content(device.name, device.pages, read)
