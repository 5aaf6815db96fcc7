# SPDX-License-Identifier: BSD-3-Clause
"""Devices come and go: the rows "adopt" and "remove" of docs/concurrency.md.

The entry in the arena's table says how far it got, so that a kill anywhere is finished by the next
start: a creation or removal is undone, an adoption leaves the disk file and sidecar as they were.
"""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from preswapd.errors import RefusedError
from preswapd.host.disk_locks import lock_disk_file
from preswapd.paths import InstancePaths
from preswapd.preswap.device._device import Device, Epochs, Sampler
from preswapd.preswap.device._table import Entry, Table
from preswapd.preswap.files.disk_file import open_disk_file
from preswapd.preswap.files.durable import remove_file
from preswapd.preswap.files.maps import born, create_map, open_map, pending
from preswapd.preswap.files.removing import remove_state
from preswapd.preswap.files.saved_map import saved_pieces
from preswapd.preswap.files.sidecar import Sidecar
from preswapd.preswap.files.zone import zone
from preswapd.preswap.footprint import check_room
from preswapd.preswap.inherit import anew, move_zone_to_disk, put_right
from preswapd.preswap.record import Record
from preswapd.preswap.renewal import finish
from preswapd.preswap.survey import WITNESS, Judged
from preswapd.tmem._tmem import Host
from preswapd.units import PAGE_SIZE

if TYPE_CHECKING:
    from preswapd.remote._remote import Remote


@dataclass
class Served:
    """A device, its entry in the table, and what lies on disk about it."""

    device: Device
    entry: Entry
    record: Record
    complaint: str | None = None
    is_restoring: bool = False  # no map of it is saved


class Maker:
    """Serves and removes the devices of one arena."""

    def __init__(
        self,
        host: Host,
        table: Table,
        pool: int,
        paths: InstancePaths,
        boot_id: str,
        remote: "Remote | None" = None,
    ) -> None:
        self.host = host
        self.table = table
        self.pool = pool
        self.paths = paths
        self.boot_id = boot_id
        self.remote = remote
        self.epochs = Epochs()
        self.sampler = Sampler()

    def adopt(self, judged: Judged) -> Served:
        """Serves a device again that disk knows and shared memory does not, by its saved map.

        Where that does not hold nothing is known of it but the zone.
        """
        old, pages = judged.sidecar, judged.sidecar.size // PAGE_SIZE
        self.finish_leftovers(old.name)
        check_room(self.host, old.name, old.size)
        entry = self.entered(old.name, old.size, "adopting")
        try:
            if judged.is_believed:
                pieces = saved_pieces(self.paths.saved_map(old.name), pages)
            elif old.guest == "coming":
                # Nothing has changed here yet: all as it was announced.
                pieces = pending(pages)
            else:
                pieces = born(pages, zone(pages))
            create_map(self.paths.map(old.name), old.size, pieces)
            sidecar = replace(old, type=entry.type, arena=self.host.uuid, boot_id=self.boot_id)
            # One that was touched stays as it is until it is changed: it may be accepted yet.
            if not judged.is_believed:
                # Whoever was told of the pages that are not known any more must not get others.
                sidecar = replace(sidecar, life=0)
            if not judged.holds:
                # Its entry is as new as that: only the disk file bears the one before.
                sidecar = anew(sidecar, judged)
                prev = judged.identity.token or 0
                # Of a guest that has gone the zone would be its past.
                is_past = old.renewing or old.moved != 0
                sidecar = replace(sidecar, prev=prev, moved=0, renewing=is_past, restore="")
            return self.serve(entry, sidecar, judged)
        except (OSError, MemoryError) as error:
            self.undo(entry)
            raise cannot_make(old.name, error) from None
        except RefusedError:
            self.undo(entry)
            raise

    def keep(self, entry: Entry, judged: Judged) -> Served:
        """Serves a device on, whose pages shared memory holds."""
        return self.serve(entry, judged.sidecar, judged)

    def serve(self, entry: Entry, sidecar: Sidecar, judged: Judged | None = None) -> Served:
        """Serves a device whose files are there; with what a start has to put right first."""
        path, complaint = self.paths.disk_file(entry.name), None
        disk_fd = open_disk_file(path)
        try:
            lock_disk_file(disk_fd, path)
            record = Record(self.paths, entry, sidecar, disk_fd)
            map_fd = open_map(self.paths.map(entry.name))
            try:
                if judged is not None:
                    complaint = put_right(record, judged, map_fd)
                entry.set_token(record.sidecar.token)
                device = Device(
                    self.host,
                    self.epochs,
                    self.sampler,
                    pool=self.pool,
                    entry=entry,
                    compress=sidecar.compress,
                    zone=zone(entry.size // PAGE_SIZE),
                    map_fd=map_fd,
                    disk_fd=disk_fd,
                    is_marked=not record.sidecar.clean,
                    on_mark=record.mark,
                )
            finally:
                os.close(map_fd)
        except BaseException:
            os.close(disk_fd)
            raise
        try:
            device.reserve_index()
            if self.remote is not None:
                device.use_remote(self.remote)
            move_zone_to_disk(device)
            if record.sidecar.renewing:
                finish(device, record)
            device.set_guest(record.sidecar.guest, record.sidecar.moved)
            device.life = record.sidecar.life
        except BaseException:
            device.close()
            raise
        if entry.state != "served":
            entry.set_state("served")
        return Served(device, entry, record, complaint)

    def remove(self, served: Served) -> None:
        """Removes the device with all its pages; its clients get ESHUTDOWN from now on."""
        served.entry.set_state("removing")
        served.device.stop()
        served.device.empty()
        served.device.close()
        self.finish(served.entry)

    def finish(self, entry: Entry) -> None:
        """Undoes what a kill or an error interrupted; missing files are as good as removed."""
        remove_file(self.paths.map(entry.name))
        if entry.state != "adopting":
            remove_state(self.paths, entry.name)
        entry.set_state("free")

    def undo(self, entry: Entry) -> None:
        """After an error.  What can't be undone now is left to the next start or creation."""
        with suppress(OSError):
            self.finish(entry)

    def entered(self, name: str, size: int, state: str) -> Entry:
        try:
            try:
                return self.table.add(name, size, state)
            except OSError:
                # The last device of so many takes the place that is no device's.
                for entry in self.table.entries(WITNESS):
                    entry.set_state("free")
                return self.table.add(name, size, state)
        except OSError as error:
            raise cannot_make(name, error) from None

    def finish_leftovers(self, name: str) -> None:
        """Removes what an error left half removed: two entries of one name would share files."""
        try:
            for entry in self.table.entries(name):
                self.finish(entry)
        except OSError as error:
            raise cannot_make(name, error) from None


def cannot_make(name: str, error: Exception) -> RefusedError:
    return RefusedError(f"the device {name} cannot be made: {reason_of(error)}")


def reason_of(error: Exception) -> str:
    if not isinstance(error, OSError):
        return "not enough memory"
    where = "" if error.filename is None else f" ({error.filename})"
    return f"{error.strerror}{where}"
