# SPDX-License-Identifier: BSD-3-Clause
from typing import Any

from preswapd.block._export import Connection as Export
from preswapd.precache.image.identity import Identity
from preswapd.remote._remote import Share
from preswapd.tmem._tmem import Host

def transfer_buffers() -> int:
    """Bytes of the buffers that threads keep for transfers from and to the disk."""

class Image:
    """One image that is open.  From any thread; the work runs without the interpreter lock."""

    name: str
    size: int
    compress: str
    def __init__(
        self,
        host: Host,
        *,
        name: str,
        fd: int,
        size: int,
        is_direct: bool,
        is_writable: bool,
        compress: str,
        admission_window: int = 0,
    ) -> None:
        """The descriptor, opened past the page cache or not, is its own from then on.

        admission_window: pages are cached at their second read, and a first one is remembered for
        at least so many others that are read from the file; 0: at their first."""

    def close(self) -> None:
        """Nothing begins any more, what is in flight ends, and the file is closed."""

    def connect(self) -> Connection: ...
    @property
    def connections(self) -> int: ...
    @property
    def is_file(self) -> bool:
        """Not a block device."""

    @property
    def is_direct(self) -> bool: ...
    @property
    def is_writable(self) -> bool: ...
    @property
    def descriptor(self) -> int: ...
    @property
    def pool(self) -> int | None: ...
    @property
    def is_cached(self) -> bool:
        """Whether what is cached is believed; asks the file."""

    @property
    def disk_errors(self) -> int: ...
    @property
    def last_disk_error(self) -> int: ...
    def look(self) -> Identity:
        """What the file is now, of a writable one without times; OSError."""

    def believe(self, pool: int | None, it: Identity) -> None:
        """While it is parked: pages go into that pool from now on, as long as the file is that."""

    @property
    def is_shared(self) -> bool: ...
    def share(self, share: Share) -> None:
        """Its pages are shared with other hosts, until believe() is called.

        The digest is that of the file that is believed.  ValueError: they are."""

    def park(self, milliseconds: int) -> bool:
        """Requests that begin now wait.  Whether those in flight have ended in time."""

    def resume(self) -> None: ...
    def stats(self) -> dict[str, Any]:
        """Its counters, and how long requests took."""

class Connection(Export):
    """One client of an image."""

    image: Image
    def __init__(self, image: Image) -> None: ...
