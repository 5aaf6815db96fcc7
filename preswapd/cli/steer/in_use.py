# SPDX-License-Identifier: BSD-3-Clause
"""Whether a guest still swaps to a device, as far as its last request tells."""

from preswapd.api.figures import DeviceAnswer

# A request so recent means that somebody is still using the device.
RECENT_SECONDS = 10.0


def in_use(device: DeviceAnswer) -> str | None:
    seconds = device.get("seconds_since_io")
    if seconds is not None and seconds < RECENT_SECONDS:
        return f"it had I/O {seconds:.1f} s ago: is it still in use as swap?"
    return None
