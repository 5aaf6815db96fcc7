# SPDX-License-Identifier: BSD-3-Clause
"""What keeps the ages of an instance's pages right: device/epochs.h says what they are."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from preswapd.preswap.device._device import Device, Epochs

# What was written back and is read soon after is a refault.  It is remembered for one to two of
# these times: five to ten minutes.
REMEMBERED_SECONDS = 300.0


class Ages:
    """To be kept a few times a second; `devices` are those that are served by then."""

    def __init__(self, epochs: Epochs, devices: Callable[[], Sequence[Device]]) -> None:
        self.epochs = epochs
        self.devices = devices
        self.next_forgetting = time.monotonic() + REMEMBERED_SECONDS

    def keep(self) -> None:
        devices = self.devices()
        self.epochs.set_turn(sum(device.preswap_pages for device in devices))
        if self.epochs.are_scarce:
            self.epochs.change_over()
            # One that is made from now on has new numbers only.
            for device in self.devices():
                with suppress(OSError):  # it is being removed
                    device.renumber()
        if time.monotonic() >= self.next_forgetting:
            self.next_forgetting = time.monotonic() + REMEMBERED_SECONDS
            for device in devices:
                with suppress(OSError):
                    device.forget_left()
