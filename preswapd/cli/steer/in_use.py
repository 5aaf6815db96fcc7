# SPDX-License-Identifier: BSD-3-Clause
"""Whether a guest needs a device, as far as the server can tell, and what it would lose."""

from preswapd.api.figures import DeviceAnswer, DeviceFigures
from preswapd.api.messages import AWAITED
from preswapd.errors import RefusedError
from preswapd.units import format_pages

# A request so recent means that somebody is still using the device.
RECENT_SECONDS = 10.0


TAKEN = "another host has taken it, and may still fetch its pages"


def in_use(device: DeviceAnswer) -> str | None:
    if device.get("guest") == "gone":
        return TAKEN
    if device.get("awaited"):
        return f"{AWAITED}. Is it still in use as swap?"
    return recent_io(device)


def recent_io(device: DeviceAnswer) -> str | None:
    seconds = device.get("seconds_since_io")
    if seconds is not None and seconds < RECENT_SECONDS:
        return f"it had I/O {seconds:.1f} s ago: is it still in use as swap?"
    return None


def check_not_awaited(device: DeviceAnswer) -> None:
    """RefusedError: nobody can tell from here whether that guest goes on."""
    if device.get("awaited"):
        raise RefusedError(
            f"{device['name']}: {AWAITED}; if that guest has ended, --force goes ahead"
        )


def check_not_taken(device: DeviceAnswer) -> None:
    """RefusedError: nobody can tell from here whether that host's guest goes on."""
    if device.get("guest") == "gone":
        raise RefusedError(f"{device['name']}: {TAKEN}; if its guest has ended, --force goes ahead")


def kept_pages(device: DeviceFigures) -> int:
    if "held_pages" in device:
        return device["held_pages"]
    # An older server; page 0, the swap header, is always on disk.
    return max(0, device["preswap_pages"] + device["disk_pages"] - 1)


def at_stake(device: DeviceAnswer, instance: str) -> str | None:
    """What a guest may still need of it; None where there is no client and no page."""
    found = []
    if pages := kept_pages(device):
        found.append(f"holds {format_pages(pages)}")
    if device["connections"]:
        found.append("has a client connected")
    return f"{device['name']} of {instance} {' and '.join(found)}" if found else None
