# SPDX-License-Identifier: BSD-3-Clause
from collections.abc import Callable

from typing_extensions import Buffer

from preswapd.block._export import Connection

# nbdkit.set_error: to be set where nbdkit asks; an exception is EIO to the client otherwise.
set_error: Callable[[int], None] | None
# Told of each client whose request was longer than LARGEST_REQUEST; the request is refused.
on_too_long: Callable[[Connection], None] | None
# Told of each client that changes something after a newer one has: nothing was done, and it is to
# be dropped without an answer.
on_superseded: Callable[[Connection], None] | None

def held() -> int:
    """Bytes of the buffers of all worker threads, as far as they are within LARGEST_REQUEST."""

# Flags are nbdkit's.  Errors are OSError, with set_error told before.
def pread(h: Connection, buf: Buffer, offset: int, flags: int) -> None: ...
def pwrite(h: Connection, buf: Buffer, offset: int, flags: int) -> None: ...
def flush(h: Connection, flags: int) -> None: ...
def trim(h: Connection, count: int, offset: int, flags: int) -> None: ...
def zero(h: Connection, count: int, offset: int, flags: int) -> None: ...
def extents(h: Connection, count: int, offset: int, flags: int) -> list[tuple[int, int, int]]:
    """(offset, length, type) as nbdkit wants them, at most 512, from offset on."""
