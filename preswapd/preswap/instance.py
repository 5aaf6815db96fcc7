"""One instance: a tmem host, its devices, and what an operator does with them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import cast

from preswapd.api.figures import Statistics, TmemFigures
from preswapd.api.kinds import check_compress, check_device_size
from preswapd.api.settings import NO_LIMIT
from preswapd.errors import RefusedError
from preswapd.log import ERROR, INFO, NOTICE, WARNING, Log
from preswapd.paths import check_device_name
from preswapd.preswap.creation import Served
from preswapd.preswap.device._device import Device, give_back
from preswapd.preswap.files.header import swap_header
from preswapd.preswap.files.image import written_pages
from preswapd.preswap.opening import POOL, open_instance
from preswapd.preswap.settings import (
    DeviceSpec,
    Settings,
    check_number_of_devices,
)
from preswapd.preswap.shrink import Shrink, ShrinkProgress, ShrinkResult
from preswapd.preswap.tuning import Tuning
from preswapd.preswap.upkeep import Upkeep
from preswapd.units import PAGE_SIZE, format_size
from preswapd.version import VERSION

# A clean stop waits so long for requests that a slow disk still holds; without them it is no
# less safe, only not clean.
PARK_MILLISECONDS = 1000
# Between two looks whether anything is to be compressed; the first page ends the wait.
SETTLE_MILLISECONDS = 1000


@dataclass(frozen=True)
class SwapoffResult:
    """What a swapoff flush dropped, in pages; seconds since the request before it."""

    pages: int
    disk_pages: int
    recent_io_seconds: float | None


class Instance:
    """The devices of one arena.

    `changes` keeps operators apart; requests of guests never wait for it.
    """

    def __init__(self, settings: Settings, log: Log) -> None:
        opened = open_instance(settings)
        self.name = settings.instance
        self.settings = settings
        self.log = log
        self.host = opened.host
        self.maker = opened.maker
        self.served = opened.served
        self.recovery = opened.recovery
        self.devices = {name: served.device for name, served in opened.served.items()}
        self.changes = threading.Lock()
        self.shrinking = threading.Lock()
        for complaint in opened.complaints:
            log(ERROR, complaint)
        self.tuning = Tuning(settings, opened.host, POOL)
        for complaint in self.tuning.restore(self.devices):
            log(WARNING, complaint)
        self.upkeep = Upkeep(self.served, log)

    # --- looking ---

    def pages_in_tmem(self, name: str | None = None) -> int:
        """Of one device, or of all."""
        devices = dict(self.devices)
        return sum(
            device.preswap_pages for found, device in devices.items() if name in (None, found)
        )

    def stats(self) -> Statistics:
        """All but `server`, which is known to the process around it."""
        devices = list(self.devices.items())
        figures = {name: device.stats() for name, device in devices}
        # tmem stands below the API, and its types.
        tmem = cast(TmemFigures, self.host.stats())
        tmem["metadata_size"] += sum(device.metadata_size() for _, device in devices)
        tmem["checksum_errors"] += sum(one["lost_reads"] for one in figures.values())
        return {
            "version": VERSION,
            "instance": self.name,
            "page_size": PAGE_SIZE,
            "tmem": tmem,
            "devices": figures,
            "sysctl": self.tuning.values(dict(devices)),
        }

    # --- devices come and go ---

    def create(self, name: str, size: int, compress: str | None = None) -> None:
        """UsageError for a bad value, RefusedError when it cannot be made."""
        check_device_name(name)
        check_device_size(size)
        codec = check_compress(compress or self.settings.compress)
        with self.changes:
            if name in self.devices:
                raise RefusedError(f"there is a device {name} already")
            check_number_of_devices(len(self.devices) + 1)
            served = self.maker.create(DeviceSpec(name, size), codec)
            self.served[name] = served
            self.devices[name] = served.device
        self.log(INFO, f"created device {name} of {format_size(size)}")

    def remove(self, name: str, *, force: bool = False) -> None:
        """With all its pages.  RefusedError with a client connected, unless forced."""
        with self.changes:
            served = self.unused(name, force)
            del self.devices[name]
            del self.served[name]
            try:
                self.maker.remove(served)
            finally:
                # At worst a device that is made again under this name begins with the settings,
                # after a restart.
                with suppress(OSError):
                    self.tuning.forget(served.device)
            give_back(self.host)
        self.log(INFO, f"removed device {name}")

    def mkswap(self, name: str, *, force: bool = False) -> None:
        """A fresh swap header.  RefusedError with a client connected, unless forced."""
        with self.changes:
            device = self.unused(name, force).device
            device.write_page_zero(swap_header(name, device.size))
        self.log(INFO, f"wrote a swap header to {name}")

    def unused(self, name: str, force: bool) -> Served:
        served = self.served.get(name)
        if served is None:
            raise RefusedError(f"there is no device {name} any more")
        if served.device.connections and not force:
            raise RefusedError(
                f"a client is connected to {name}: detach it first, or force it (--yes)"
            )
        return served

    def swapoff(self, name: str) -> SwapoffResult:
        """Drops all pages but the swap header, in tmem and on disk."""
        with self.changes:
            device = self.unused(name, force=True).device
            header = device.disk_map[0]
            result = SwapoffResult(
                device.preswap_pages, device.disk_pages - header, device.seconds_since_io
            )
            device.forget(1, device.pages - 1)
            device.punch(0, device.pages)
            for first, pages in written_pages(device.disk_file(), device.size):
                device.punch(first, pages, all=True)
            self.host.maintain(all=True)
        dropped = f"dropped {result.pages} pages in memory, {result.disk_pages} on disk"
        self.log(INFO, f"swapoff of {name}: {dropped}")
        return result

    # --- memory ---

    def shrink(
        self,
        pages: int,
        name: str | None = None,
        *,
        progress: Callable[[ShrinkProgress], None] = lambda step: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> ShrinkResult:
        """Moves pages to disk until `pages` are left, in one device or in all.

        Puts beyond that are rejected meanwhile, so that it ends under load.
        """
        if not self.shrinking.acquire(blocking=False):
            raise RefusedError("a shrink is under way already")
        try:
            devices = self.chosen(name)
            work = Shrink(devices, pages, progress, cancelled, lambda: give_back(self.host))
            before, began = work.left(), time.monotonic()
            if before > pages:
                of = "" if name is None else f" of {name}"
                self.log(INFO, f"shrink{of} from {before} to {pages} pages begins")
            with self.held_down(pages, None if name is None else devices[0]):
                result = work.run()
            self.host.maintain(all=True)
            if before > pages or result.moved:
                self.tell_shrunk(result, time.monotonic() - began)
            return result
        finally:
            self.shrinking.release()

    def tell_shrunk(self, result: ShrinkResult, seconds: float) -> None:
        lost = f", {result.lost} lost" if result.lost else ""
        figures = f"{result.moved} pages moved to disk{lost}, {result.left} left in memory"
        if result.complete:
            self.log(INFO, f"shrink ended after {seconds:.1f} s: {figures}")
        else:
            self.log(WARNING, f"shrink stopped after {seconds:.1f} s ({result.reason}): {figures}")

    def chosen(self, name: str | None) -> list[Device]:
        devices = dict(self.devices)
        if name is None:
            return list(devices.values())
        if name not in devices:
            raise RefusedError(f"there is no device {name} any more")
        return [devices[name]]

    @contextmanager
    def held_down(self, pages: int, device: Device | None) -> Iterator[None]:
        """No new page enters tmem beyond so many: of the device, or of all together."""
        if device is None:
            self.host.set_max_pages(POOL, pages)
        else:
            self.tuning.hold_down(device, pages)
        try:
            yield
        finally:
            if device is None:
                self.host.set_max_pages(POOL, NO_LIMIT)
            else:
                self.tuning.let_go(device)

    def set(self, key: str, value: str) -> int | str:
        """The setting's new value; UsageError or RefusedError when nothing was changed."""
        with self.changes:
            now = self.tuning.set(key, value, dict(self.devices))
        self.log(NOTICE, f"set {key} = {now}")
        return now

    # --- in the background ---

    def maintain(self) -> None:
        """Called some times a second: memory and disk space go back, disk errors are told."""
        self.host.maintain()
        self.upkeep.turn()

    def compress_later(self) -> None:
        """From now on writes are taken at the speed of a copy; settle() must be called for ever."""
        self.host.set_staging(True)

    def settle(self) -> None:
        """Compresses what was written, or waits for it a moment."""
        self.host.settle(SETTLE_MILLISECONDS)

    # --- the end ---

    def close(self) -> None:
        """What a clean stop writes.  No request is answered any more: the process ends next."""
        # Whoever comes later than this waits for ever; a removal that hangs is not waited for.
        self.changes.acquire(timeout=PARK_MILLISECONDS / 1000)
        for served in list(self.served.values()):
            try:
                self.close_device(served)
            except OSError as error:
                # It stays dirty, which is safe, and the others need not.
                text = f"{served.device.name} was not left clean: {error.strerror}"
                self.log(ERROR, text)

    def close_device(self, served: Served) -> None:
        device = served.device
        ended = device.park(PARK_MILLISECONDS)
        if not ended or device.preswap_pages or device.quarantined or not device.tmem_dirty:
            return
        for first, pages in written_pages(device.disk_file(), device.size):
            device.punch_parked(first, pages)
        device.sync()
        path = self.settings.paths.sidecar(device.name)
        replace(served.sidecar, tmem_dirty=False).write(path)
