# SPDX-License-Identifier: BSD-3-Clause
"""A device begins anew, whatever was in it: the row "release; arrival" of docs/concurrency.md.

Its guest was released (its pages are gone), or one is to arrive from another host (they are
PENDING).
"""

import os

from preswapd.preswap.device._device import Device
from preswapd.preswap.files.disk_file import make_zone
from preswapd.preswap.files.header import swap_header
from preswapd.preswap.files.zone import zone
from preswapd.preswap.record import Record
from preswapd.units import PAGE_SIZE


def renew(device: Device, record: Record, source: int = 0, arrival: int = 0) -> None:
    """The device is parked.  After an error it serves nobody, until this is done again.

    The sidecar says first what becomes of it: a kill in the middle is finished by the next start.
    """
    device.life = 0
    device.set_guest("gone")
    record.change(life=0, source=source, arrival=arrival, taken=False, moved=0, renewing=True)
    finish(device, record)
    device.set_guest(record.sidecar.guest)


def finish(device: Device, record: Record) -> None:
    """Nothing is in flight.  Nothing of an earlier stay is left."""
    if record.sidecar.clean:
        record.mark()
    device.note_marked()
    device.renew(pending=bool(record.sidecar.source))
    clear_zone(record)
    record.note(renewing=False)


def clear_zone(record: Record) -> None:
    """As it was born: a fresh guest looks there."""
    name, size = record.sidecar.name, record.sidecar.size
    make_zone(record.disk_fd, swap_header(name, size), zone(size // PAGE_SIZE))
    os.fsync(record.disk_fd)
