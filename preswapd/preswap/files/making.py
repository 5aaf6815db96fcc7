# SPDX-License-Identifier: BSD-3-Clause
"""What lies on disk of devices that are being made, of many at once.

Each is synced by itself, so that none misses an error, but at the same time as others: the file
system then writes its journal once for many.  One by one those of 511 devices took 12 seconds, so
they take 0.3.  One syncfs(2) for all would be as fast, but it waits for what others have written,
and before Linux 5.8 it tells of no errors.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from preswapd.paths import StatePaths
from preswapd.preswap.files.disk_file import make_disk_file
from preswapd.preswap.files.durable import Fresh, sync_directory
from preswapd.preswap.files.header import swap_header
from preswapd.preswap.files.saved_map import reserve
from preswapd.preswap.files.sidecar import Sidecar
from preswapd.preswap.files.zone import zone
from preswapd.units import PAGE_SIZE

# Devices that are synced at once.
SYNCS = 32


class Making:
    """Of one device.  `error`: why it cannot be made; what it has got its name is left to a
    removal."""

    def __init__(self, paths: StatePaths, sidecar: Sidecar) -> None:
        self.paths = paths
        self.sidecar = sidecar
        self.error: OSError | MemoryError | None = None
        self.data: list[Fresh] = []
        self.described: list[Fresh] = []
        self.is_synced = False

    @property
    def files(self) -> list[Fresh]:
        return self.data + self.described

    def write(self) -> None:
        name, size = self.sidecar.name, self.sidecar.size
        pages = size // PAGE_SIZE
        disk_file, found = make_disk_file(
            self.paths.disk_file(name),
            size,
            swap_header(name, size),
            zone(pages),
            self.sidecar.token,
        )
        if disk_file is not None:
            self.data.append(disk_file)
        saved_map = Fresh(self.paths.saved_map(name))
        self.data.append(saved_map)
        reserve(saved_map, pages)
        self.sidecar = replace(self.sidecar, inode=found.inode, bare=found.token is None)
        sidecar = Fresh(self.paths.sidecar(name))
        self.described.append(sidecar)
        sidecar.write(self.sidecar.content())

    def sync(self) -> None:
        if not self.is_synced:
            for file in self.files:
                file.sync()
            self.is_synced = True

    def publish_data(self) -> None:
        for file in self.data:
            file.publish()

    def publish_sidecar(self) -> None:
        for file in self.described:
            file.publish()

    def sync_names(self) -> None:
        sync_directory(self.paths.state_dir)

    def close(self) -> None:
        for file in self.files:
            if self.error is None:
                file.close()
            else:
                file.give_up()


def make_files(makings: Sequence[Making]) -> None:
    """The sidecar last, which makes the device one that a start serves or refuses."""
    try:
        each(makings, Making.write)
        sync_all(makings)
        each(makings, Making.publish_data)
        once(makings, Making.sync_names)
        each(makings, Making.publish_sidecar)
        once(makings, Making.sync_names)
    finally:
        for making in makings:
            making.close()


def sync_all(makings: Sequence[Making]) -> None:
    if len(makings) > 1:
        at_once(list(makings))
    # One needs no thread, and perhaps none could be started.
    each(makings, Making.sync)


def at_once(waiting: list[Making]) -> None:
    def work() -> None:
        # Another thread may take the last one.
        with suppress(IndexError):
            while True:
                attempt(Making.sync, waiting.pop())

    threads = []
    with suppress(RuntimeError):
        for _ in range(min(SYNCS, len(waiting))):
            thread = threading.Thread(target=work, name="sync", daemon=True)
            thread.start()
            threads.append(thread)
    for thread in threads:
        thread.join()


def each(makings: Sequence[Making], step: Callable[[Making], None]) -> None:
    for making in makings:
        attempt(step, making)


def attempt(step: Callable[[Making], None], making: Making) -> None:
    if making.error is None:
        try:
            step(making)
        except (OSError, MemoryError) as error:
            making.error = error


def once(makings: Sequence[Making], step: Callable[[Making], None]) -> None:
    """What is done for all of them."""
    good = [making for making in makings if making.error is None]
    each(good[:1], step)
    for making in good[1:]:
        making.error = good[0].error
