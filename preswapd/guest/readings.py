# SPDX-License-Identifier: BSD-3-Clause
"""What a guest's kernel says of its memory and swap, read from its files under /proc."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SwapArea:
    """A line of /proc/swaps, in bytes."""

    path: str
    size: int
    used: int
    priority: int


@dataclass(frozen=True)
class SwapTraffic:
    """Of /proc/vmstat: pages since the guest's start."""

    swapped_in: int
    swapped_out: int


def swap_areas(text: str) -> list[SwapArea]:
    """The lines of /proc/swaps below the heading; a path with blanks has them as \\040."""
    return [
        SwapArea(path, int(size) * 1024, int(used) * 1024, int(priority))
        for path, _, size, used, priority in (line.split() for line in text.splitlines()[1:])
    ]


def vmstat(text: str) -> dict[str, int]:
    return {name: int(count) for name, count in (line.split() for line in text.splitlines())}


def swap_traffic(counters: dict[str, int]) -> SwapTraffic:
    return SwapTraffic(counters["pswpin"], counters["pswpout"])


# In the guest's log: it saw its disk fail, or lost a process to want of memory.
TROUBLE = (
    "I/O error",
    "Read-error on swap-device",
    "Write-error on swap-device",
    "Buffer I/O error",
    "swap_dup:",
    "swap_free:",
    "Bad swap",
    "Out of memory",
    "oom-kill",
    "BUG:",
    "Oops",
)


def troubles(log: str) -> list[str]:
    return [line for line in log.splitlines() if any(sign in line for sign in TROUBLE)]
