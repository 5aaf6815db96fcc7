# SPDX-License-Identifier: BSD-3-Clause
"""A start serves those devices that it can, and says which it can't: other guests need theirs."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple, TypeVar

from preswapd.errors import RefusedError
from preswapd.host.disk_locks import lock_disk_file
from preswapd.paths import StatePaths
from preswapd.preswap.creation import Served, cannot_make
from preswapd.preswap.files.disk_file import alone, is_block_device
from preswapd.preswap.footprint import NoRoomError

Found = TypeVar("Found")


class Refused(NamedTuple):
    """Why a device is not served.  Nothing of it is touched until the next start, and nobody else
    gets its disk file, if there is one: the descriptor holds its lock."""

    why: str
    descriptor: int | None


def serve_all(
    serve: Callable[[Found], Served],
    found: Iterable[tuple[str, Found]],
    refused: dict[str, RefusedError],
) -> list[Served]:
    """Those that can be served; the others are added to `refused`."""
    devices = []
    for name, one in found:
        try:
            devices.append(serve(one))
        except RefusedError as error:
            refused[name] = error
        except (OSError, MemoryError) as error:
            refused[name] = cannot_make(name, error)
    return devices


def complaint(name: str, error: RefusedError) -> str:
    if isinstance(error, NoRoomError):
        way = "its files stay: free memory, then restart the server"
    else:
        way = "its pages wait: put that right, then restart the server"
    return f"{name} is not served: {error}; the other devices are served, and {way}"


def all_refused(paths: StatePaths, errors: Mapping[str, RefusedError]) -> dict[str, Refused]:
    return {name: Refused(str(error), locked(paths, name)) for name, error in errors.items()}


def locked(paths: StatePaths, name: str) -> int | None:
    path = paths.disk_file(name)
    # Not to wait for who writes to a pipe.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    with suppress(OSError):
        descriptor = os.open(path, flags | alone(path))
        with suppress(OSError, RefusedError):
            if path.is_file() or is_block_device(path):
                lock_disk_file(descriptor, path)
                return descriptor
        os.close(descriptor)
    return None
