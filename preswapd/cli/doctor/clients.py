# SPDX-License-Identifier: BSD-3-Clause
"""doctor's check of a device's client: is it there, and does its guest go on?"""

from collections.abc import Iterator

from preswapd.api.figures import DeviceFigures
from preswapd.cli.attach.disk import RECONNECT_SECONDS
from preswapd.cli.doctor.finding import FIX, NOTE, Finding
from preswapd.cli.steer.in_use import kept_pages


def check_client(name: str, device: DeviceFigures) -> Iterator[Finding]:
    away = device.get("away", 0.0)
    if away > RECONNECT_SECONDS and kept_pages(device):
        yield Finding(
            FIX,
            name,
            f"there was no server for {away:.0f} s, and no request has come since: a guest that"
            " wanted its swap meanwhile is paused",
            "query-status in QEMU's monitor tells; where it says io-error, cont (virsh resume,"
            " qm resume)",
        )
    elif device.get("awaited"):
        text = "its client has not come back since the server's restart: an idle guest comes later"
        yield Finding(NOTE, name, text)
    elif device["connections"] == 0:
        yield Finding(NOTE, name, "no client is connected")
