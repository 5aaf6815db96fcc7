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
    """Looks after the devices that are served; devices may come and go between two turns."""

    def __init__(self, served: Mapping[str, Served], log: Log) -> None:
        self.served = served
        self.log = log
        self.to_tidy = [found.device for found in served.values()]
        self.errors: dict[Device, DiskErrors] = {}

    def turn(self) -> None:
        devices = [found.device for found in list(self.served.values())]
        self.errors = {
            device: self.errors.get(device, DiskErrors(device, self.log)) for device in devices
        }
        for device in devices:
            # It is being removed, or its disk fails, which is logged below.
            with suppress(OSError):
                device.punch()
            with suppress(OSError):
                self.mend(device)
            self.errors[device].tell()
        if self.to_tidy:
            self.tidy(self.to_tidy.pop())

    def tidy(self, device: Device) -> None:
        """Does what the process before this one left undone: pages to compress, blocks to punch."""
        served = self.served.get(device.name)
        if served is None or served.device is not device:
            return
        # It is being removed, or its disk fails, which is logged.
        with suppress(OSError):
            device.recompress()
            device.punch_unused()

    def mend(self, device: Device) -> None:
        """Where somebody cut its disk file off, its pages are lost, and must not read as zeros."""
        lost = device.mend()
        if lost is not None:
            self.log(ERROR, f"disk file of {device.name} was cut off: {lost} pages are lost")
