# SPDX-License-Identifier: BSD-3-Clause
from collections.abc import Callable

from typing_extensions import Buffer

# Of requests.
FLAG_FUA: int
FLAG_FAST_ZERO: int
FLAG_MAY_TRIM: int

class Connection:
    """One client of an export; nbdkit's handle.  Offsets and counts in bytes.

    Errors are OSError with the client's errno: ESHUTDOWN when the export is being removed, EROFS
    where it cannot be written.  ConnectionAbortedError: of a change, after a newer connection has
    changed something.
    """

    name: str
    size: int
    is_writable: bool
    caches: bool  # what is read once is faster then
    def close(self) -> None: ...
    def pread(self, buf: Buffer, offset: int) -> None:
        """Fills the writable buffer."""

    def pwrite(self, buf: Buffer, offset: int, flags: int = 0) -> None: ...
    def flush(self) -> None: ...
    def trim(self, count: int, offset: int, flags: int = 0) -> None: ...
    def zero(self, count: int, offset: int, flags: int = 0) -> None: ...
    def extents(self, count: int, offset: int) -> list[tuple[int, int, bool]]:
        """(offset, length, whether it is a hole), at most 512, from offset on."""

class Content(Connection):
    """What a function says, read-only: read(offset, count) returns so many bytes, or raises
    OSError."""

    def __init__(self, name: str, size: int, read: Callable[[int, int], bytes]) -> None: ...
