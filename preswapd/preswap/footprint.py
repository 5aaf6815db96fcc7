# SPDX-License-Identifier: BSD-3-Clause
"""The memory that a device takes beside its pages, which it gets only where there is room for it.

A map of the largest size is larger than many a memory cgroup, and taking it there is no error but a
SIGKILL, at which all guests of the instance stall.
"""

from preswapd.api.kinds import SMALLEST_DEVICE
from preswapd.errors import RefusedError
from preswapd.host.filesystems import free_bytes, total_bytes
from preswapd.preswap.files.maps import map_bytes
from preswapd.preswap.settings import Settings
from preswapd.tmem._tmem import Host
from preswapd.units import PAGE_SIZE, exact_size, format_size

# Five bits a page (in tmem, shadowed, to punch, twice whether it left tmem lately), two bytes for
# the epoch in which it was touched, one for its weight, and the upper levels of its index.
PRIVATE_BITS = 5 + 16 + 8 + 1 / 4
# However small the device is: the upper levels for each of its 16 objects, and how far apart its
# reads were.
LEAST_PRIVATE = 96 << 10
# A part of the file system of shared memory that the pool leaves to others.
SHM_RESERVE_SHARE = 20


class NoRoomError(RefusedError):
    """There is not enough memory for the device."""


def private_bytes(size: int) -> int:
    return int(size // PAGE_SIZE * PRIVATE_BITS / 8) + LEAST_PRIVATE


def check_room(host: Host, name: str, size: int, taken: int = 0) -> None:
    """NoRoomError when making it would have somebody killed; `taken`: what others are about to take
    of the room."""
    wanted = map_bytes(size) + private_bytes(size)
    room, limiter = host.room()
    room = max(room - taken, 0)
    if wanted > room:
        raise NoRoomError(refusal(name, size, wanted, room, limiter or "this host"))


def check_shared_memory(settings: Settings, name: str, size: int) -> None:
    """NoRoomError when its map would take the reserve that other programs have there."""
    shm_dir = settings.paths.shm_dir
    if total_bytes(shm_dir) == 0:  # it has no limit of its own
        return
    room = max(free_bytes(shm_dir) - shm_reserve(settings), 0)
    if map_bytes(size) > room:
        raise NoRoomError(refusal(name, size, map_bytes(size), room, f"the tmpfs of {shm_dir}"))


def refusal(name: str, size: int, wanted: int, room: int, limiter: str) -> str:
    fits = (room - LEAST_PRIVATE) * size // max(wanted, 1)
    way = f"{typed(fits)} would fit" if fits >= SMALLEST_DEVICE else "give it more"
    return (
        f"the device {name} cannot be made: it takes {format_size(wanted)} of memory beside its"
        f" pages, and {limiter} allows {format_size(room)} more: {way}"
    )


def typed(size: int) -> str:
    """A little less, as it can be typed: a rounded size may be no whole number of bytes."""
    step = next(step for step in (1 << 30, 1 << 20, SMALLEST_DEVICE) if size >= step)
    return exact_size(size // step * step)


def shm_reserve(settings: Settings) -> int:
    """By default 5 % of the file system of shared memory."""
    if settings.shm_reserve is not None:
        return settings.shm_reserve
    return total_bytes(settings.paths.shm_dir) // SHM_RESERVE_SHARE
