# SPDX-License-Identifier: BSD-3-Clause
"""doctor's checks of a device that moves from one host to another (`create --from`)."""

from collections.abc import Callable, Iterator

from preswapd.api.figures import DeviceFigures
from preswapd.api.messages import PullStatus
from preswapd.cli.doctor.finding import FIX, NOTE, OK, Finding
from preswapd.units import format_pages


def check_moving(
    name: str, figures: DeviceFigures, status: PullStatus | None, control: Callable[..., str]
) -> Iterator[Finding]:
    """`name` is what it is called here, `control` a command of preswapctl about it."""
    pending = figures.get("pending_pages", 0)
    if figures.get("guest") == "gone":
        yield Finding(
            NOTE,
            name,
            "another host has taken it: its pages wait here to be fetched, and whoever else asks"
            " for them gets I/O errors",
            "see there how far it is (preswapctl pull); if that host will never fetch them",
            control("swapoff"),
        )
    elif pending and not figures.get("source"):
        yield Finding(
            FIX,
            name,
            f"{format_pages(pending)} are on another host, and nothing says where: reads of them"
            " are I/O errors",
            "give them up, and reboot the guest when it meets one",
            control("pull", "--abandon"),
        )
    elif status is not None and status.source:
        yield from check_pull(name, status, control)


def check_pull(name: str, status: PullStatus, control: Callable[..., str]) -> Iterator[Finding]:
    left = f"{format_pages(status.pending)} are on {status.source}"
    if status.complete:
        if status.trouble:
            yield Finding(
                NOTE,
                name,
                f"all its pages are here, and {status.source} keeps them until it is told, which"
                f" fails: {status.trouble}",
                "bring that server back; if it will never be, forget it",
                control("pull", "--abandon"),
            )
    elif status.trouble:
        yield Finding(
            FIX,
            name,
            f"{left}, and cannot be had now: {status.trouble}",
            "bring that server, or the way to it, back; if it will never be, this makes them I/O"
            " errors for good",
            control("pull", "--abandon"),
        )
    elif status.taken:
        yield Finding(OK, name, f"{left} still, and are being fetched")
    else:
        yield Finding(NOTE, name, f"{left}, until its guest comes from there")
