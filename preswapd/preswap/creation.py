# SPDX-License-Identifier: BSD-3-Clause
"""Devices come and go: the rows "create" and "remove" of docs/concurrency.md.

The entry in the arena's table says how far it got, so that a kill anywhere is finished by the next
start: a creation or removal is undone, an adoption leaves the disk file and sidecar as they were.
"""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from preswapd.errors import PreswapError, RefusedError
from preswapd.paths import InstancePaths
from preswapd.preswap.device._device import Device
from preswapd.preswap.device._table import Entry, Table
from preswapd.preswap.files.disk_file import (
    check_unclaimed,
    create_disk_file,
    data_ranges,
    is_block_device,
    open_disk_file,
    remove_disk_file,
)
from preswapd.preswap.files.header import swap_header
from preswapd.preswap.files.maps import create_map, open_map, remove_map
from preswapd.preswap.files.sidecar import Sidecar, remove_sidecar
from preswapd.preswap.footprint import check_room
from preswapd.preswap.settings import DeviceSpec
from preswapd.tmem._tmem import Host
from preswapd.units import PAGE_SIZE

PAGE_ZERO = [(0, PAGE_SIZE)]


@dataclass
class Served:
    """A device with what its files and the table say of it."""

    device: Device
    entry: Entry
    sidecar: Sidecar


class Maker:
    """Makes and removes the devices of one arena."""

    def __init__(
        self, host: Host, table: Table, pool: int, paths: InstancePaths, boot_id: str
    ) -> None:
        self.host = host
        self.table = table
        self.pool = pool
        self.paths = paths
        self.boot_id = boot_id

    def create(self, spec: DeviceSpec, compress: str) -> Served:
        """Creates a device with a swap header; RefusedError leaves nothing behind."""
        self.finish_leftovers(spec.name)
        check_unclaimed(self.paths.disk_file(spec.name), spec.size)
        check_room(self.host, spec.name, spec.size)
        entry = self.entered(spec.name, spec.size, "creating")
        try:
            create_disk_file(
                self.paths.disk_file(spec.name), spec.size, swap_header(spec.name, spec.size)
            )
            create_map(self.paths.map(spec.name), spec.size, PAGE_ZERO)
            sidecar = self.sidecar(entry, compress, dirty=False)
            sidecar.write(self.paths.sidecar(spec.name))
            return self.open(entry, sidecar)
        except (OSError, MemoryError) as error:
            self.undo(entry)
            raise cannot_make(spec.name, error) from None

    def adopt(self, old: Sidecar) -> Served:
        """Serves a device again that disk knows and shared memory does not: as a disk that lost its
        cache."""
        self.finish_leftovers(old.name)
        check_room(self.host, old.name, old.size)
        entry = self.entered(old.name, old.size, "adopting", quarantined=old.tmem_dirty)
        try:
            on_disk = self.written(self.paths.disk_file(old.name), old.size)
            create_map(self.paths.map(old.name), old.size, on_disk)
            sidecar = self.sidecar(entry, old.compress, dirty=old.tmem_dirty)
            sidecar.write(self.paths.sidecar(old.name))
            return self.open(entry, sidecar)
        except (OSError, MemoryError) as error:
            self.undo(entry)
            raise cannot_make(old.name, error) from None

    def open(self, entry: Entry, sidecar: Sidecar) -> Served:
        """Serves a device whose files are there."""
        path = self.paths.sidecar(entry.name)
        dirty = replace(sidecar, tmem_dirty=True)
        map_fd = open_map(self.paths.map(entry.name))
        try:
            disk_fd = open_disk_file(self.paths.disk_file(entry.name))
            try:
                device = Device(
                    self.host,
                    pool=self.pool,
                    entry=entry,
                    compress=sidecar.compress,
                    map_fd=map_fd,
                    disk_fd=disk_fd,
                    tmem_dirty=sidecar.tmem_dirty,
                    on_first_put=partial(dirty.write, path),
                )
            except BaseException:
                os.close(disk_fd)
                raise
        finally:
            os.close(map_fd)
        device.reserve_index()
        if entry.state != "served":
            entry.set_state("served")
        return Served(device, entry, sidecar)

    def remove(self, served: Served) -> None:
        """Removes the device with all its pages; its clients get ESHUTDOWN from now on."""
        served.entry.set_state("removing")
        served.device.stop()
        served.device.empty()
        served.device.close()
        self.finish(served.entry)

    def finish(self, entry: Entry) -> None:
        """Undoes what a kill or an error interrupted; missing files are as good as removed."""
        remove_map(self.paths.map(entry.name))
        if entry.state != "adopting":
            # The sidecar first: one without its disk file would keep the next start after a reboot
            # of the host from serving anything.
            remove_sidecar(self.paths.sidecar(entry.name))
            remove_disk_file(self.paths.disk_file(entry.name))
        entry.set_state("free")

    def undo(self, entry: Entry) -> None:
        """After an error.  What can't be undone now is left to the next start or creation."""
        with suppress(OSError):
            self.finish(entry)

    def written(self, disk_file: Path, size: int) -> list[tuple[int, int]]:
        """Byte ranges that read as they were written.

        A block device has no holes: all but page 0 would be what its last user left there.
        """
        if is_block_device(disk_file):
            return PAGE_ZERO
        with open(disk_file, "rb") as file:
            return list(data_ranges(file.fileno(), size))

    def entered(self, name: str, size: int, state: str, *, quarantined: bool = False) -> Entry:
        try:
            return self.table.add(name, size, state, quarantined=quarantined)
        except OSError as error:
            raise cannot_make(name, error) from None

    def finish_leftovers(self, name: str) -> None:
        """Removes what an error left half removed: two entries of one name would share files."""
        try:
            for entry in self.table.entries(name):
                self.finish(entry)
        except OSError as error:
            raise cannot_make(name, error) from None

    def sidecar(self, entry: Entry, compress: str, *, dirty: bool) -> Sidecar:
        return Sidecar(
            name=entry.name,
            size=entry.size,
            type=entry.type,
            compress=compress,
            arena=self.host.uuid,
            boot_id=self.boot_id,
            tmem_dirty=dirty,
        )


def cannot_make(name: str, error: Exception) -> PreswapError:
    return RefusedError(f"the device {name} cannot be made: {reason_of(error)}")


def reason_of(error: Exception) -> str:
    if not isinstance(error, OSError):
        return "not enough memory"
    where = "" if error.filename is None else f" ({error.filename})"
    return f"{error.strerror}{where}"
