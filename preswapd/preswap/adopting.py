# SPDX-License-Identifier: BSD-3-Clause
"""Devices that only disk knows: a start serves those that there is memory for."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from preswapd.preswap.creation import Served
from preswapd.preswap.footprint import NoRoomError

Found = TypeVar("Found")


def adopt_all(
    adopt: Callable[[Found], Served],
    found: Iterable[Found],
    devices: list[Served],
    complaints: list[str],
) -> None:
    """Adds them to `devices`, and complaints of those that there is no memory for.

    Other guests get their disks all the same.  Where it is none at all, the start is refused, and
    systemd tries it again.
    """
    refused = None
    for one in found:
        try:
            devices.append(adopt(one))
        except NoRoomError as error:
            refused = error
            complaints.append(
                f"{error}; the other devices are served, and its files stay: free memory, then"
                " restart the server"
            )
    if refused is not None and not devices:
        raise refused
