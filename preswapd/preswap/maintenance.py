# SPDX-License-Identifier: BSD-3-Clause
"""Maintenance of an instance's devices: what is done without being asked, a little at a time."""

import os
from collections.abc import Mapping
from contextlib import suppress

from preswapd.log import ERROR, Log, Throttle
from preswapd.preswap.creation import Served
from preswapd.preswap.device._device import Device


class DiskErrors:
    """Logs the disk errors of one device: the first of a burst, then at most one line a minute."""

    def __init__(self, device: Device, log: Log) -> None:
        self.device = device
        self.log = log
        self.told = 0
        self.throttle = Throttle()

    def tell(self) -> None:
        count = self.device.disk_errors
        if count > self.told and self.throttle.passes():
            text = f"{os.strerror(self.device.last_disk_error)} ({count - self.told} errors)"
            self.told = count
            self.log(ERROR, f"disk file of {self.device.name}: {text}")


class Maintenance:
    """Looks after the devices that are served; devices may come and go between two turns.

    Blocks to punch are left in the disk file of a clean device: it would be marked for them, and
    after a sync a reboot of the host would lose all.
    """

    def __init__(self, served: Mapping[str, Served], log: Log) -> None:
        self.served = served
        self.log = log
        self.to_compress = [found.device for found in served.values()]
        self.to_punch = list(self.to_compress)
        self.errors: dict[Device, DiskErrors] = {}

    def turn(self) -> None:
        devices = [found.device for found in list(self.served.values())]
        self.errors = {
            device: self.errors.get(device, DiskErrors(device, self.log)) for device in devices
        }
        for device in devices:
            # It is being removed, or its disk fails, which is logged below.
            if device.is_marked:
                with suppress(OSError):
                    device.punch()
            with suppress(OSError):
                self.mend(device)
            self.errors[device].tell()
        self.tidy()

    def tidy(self) -> None:
        """Does what the process before this one left undone, of one device: pages to compress,
        blocks to punch."""
        # It is being removed, or its disk fails, which is logged.
        if self.to_compress and self.is_served(device := self.to_compress.pop()):
            with suppress(OSError):
                device.settle()
        self.to_punch = [device for device in self.to_punch if self.is_served(device)]
        marked = next((device for device in self.to_punch if device.is_marked), None)
        if marked is not None:
            self.to_punch.remove(marked)
            with suppress(OSError):
                marked.punch_unused()

    @property
    def has_more(self) -> bool:
        """To tidy at the next turn."""
        return bool(self.to_compress) or any(device.is_marked for device in self.to_punch)

    def is_served(self, device: Device) -> bool:
        served = self.served.get(device.name)
        return served is not None and served.device is device

    def mend(self, device: Device) -> None:
        """Where somebody cut its disk file off, its pages are lost, and must not read as zeros."""
        lost = device.mend()
        if lost is not None:
            self.log(ERROR, f"disk file of {device.name} was cut off: {lost} pages are lost")
