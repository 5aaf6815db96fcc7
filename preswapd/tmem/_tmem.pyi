# SPDX-License-Identifier: BSD-3-Clause
from collections.abc import Sequence
from os import PathLike

from typing_extensions import Buffer

PAGE_SIZE: int
# Flags of a pool; without PERSISTENT it is ephemeral, without SHARED private.
PERSISTENT: int
SHARED: int
EXCLUSIVE_GETS: int
COMPRESS: tuple[str, ...]

def compress_number(name: str) -> int:
    """Position in COMPRESS; ValueError for another name."""

class Host:
    """One arena file and the pools in it.  From any thread; the work runs without the GIL."""

    path: str
    limit: int
    def __init__(
        self,
        path: str | PathLike[str],
        limit: int,
        *,
        create: bool,
        boot_id: str = "",
        host_reserve: int = 0,
        shm_reserve: int = 0,
        cgroup_files: Sequence[tuple[str, str | None, str, str]] = (),
    ) -> None:
        """Creates the arena `path` (FileExistsError), or opens it (RefusedError with the reason).

        limit: bytes, of mem_used_total. host_reserve, shm_reserve: bytes of MemAvailable and of the
        arena's file system that puts leave alone. cgroup_files: hard limit, high limit (None: it
        has none), usage and statistics file of each memory cgroup of this process.
        An opened arena must be recovered before its use.
        """

    @property
    def largest_limit(self) -> int:
        """What it can use of its file system, as large as that was when the arena was opened."""

    def room(self) -> tuple[int, str | None]:
        """Bytes that may be taken now before somebody is killed for it, and the cgroup's file that
        allows no more; None: the host does."""

    def set_aside(self, size: int) -> None:
        """Memory that the process may come to take unasked: puts leave it alone too."""

    def owed(self) -> int:
        """Bytes by which a memory cgroup is too small for what is used and what is set aside."""

    def set_cap(self, size: int | None) -> None:
        """A limit below `limit`, in bytes; None: there is none."""

    @property
    def boot_id(self) -> str:
        """The boot id of the host when the arena was created: its pages belong to that boot."""

    @property
    def uuid(self) -> str:
        """The arena's own, 32 hexadecimal digits; drawn when it was created."""

    def table_reserve(self, size: int) -> None:
        """Makes room for the table of the layer above, 32768 bytes at most; OSError: no room."""

    def table_reserved(self) -> int:
        """Bytes of that table that may be touched."""

    def recover(self) -> dict[str, int]:
        """Rebuilds the index; counts of pages, damage and losers (docs/concurrency.md)."""

    def has_pool(self, pool: int) -> bool:
        """Whether there is one with this id, after a restart too."""

    def pool_stats(self, pool: int) -> dict[str, int]:
        """`pages`, their `bytes` as they are stored, how many were `evicted`, and how many of those
        because the pool was as large as it may be (`evicted_by_itself`)."""

    def new_pool(self, uuid: bytes = ..., flags: int = ...) -> int:
        """The new pool's id. A SHARED pool is joined by its uuid, 16 bytes, the secret of those
        who share it. ValueError: unknown flags, no uuid, or other flags than its first user's."""

    def destroy_pool(self, pool: int) -> int:
        """Returns how many pages it dropped; a shared pool goes when its last user has destroyed
        it.  KeyError, as in every call with a pool's id: there is no such pool."""

    def freeze(self, pool: int, frozen: bool) -> None:
        """A frozen pool rejects new pages; a put over a page that is there replaces it."""

    def set_max_pages(self, pool: int, pages: int) -> None:
        """New pages beyond that number are rejected."""

    def set_max_bytes(self, pool: int, size: int) -> None:
        """Of an ephemeral pool, as pool_stats() counts them: from then on what it puts beyond that
        makes its own oldest pages go.  ValueError: it is a persistent one."""

    def put_page(
        self,
        pool: int,
        object: int,
        index: int,
        page: Buffer,
        *,
        compress: str = "lz4",
        keep_old: bool = False,
    ) -> bool:
        """Copies 4096 bytes; False: rejected, and a page stored before is flushed
        unless keep_old."""

    def get_page(self, pool: int, object: int, index: int, into: Buffer) -> bool:
        """Fills 4096 bytes; PageDamagedError when the checksum does not fit.

        In a private ephemeral pool, and with EXCLUSIVE_GETS, the page is gone afterwards."""

    def flush_page(self, pool: int, object: int, index: int) -> bool:
        """Drops the page; returns whether it was there."""

    def flush_object(self, pool: int, object: int) -> int:
        """Returns how many pages it dropped."""

    def recompress_page(self, pool: int, object: int, index: int, compress: str) -> bool:
        """Where that codec is denser than the page's, and brings it into a shorter slot; whether it
        did.  It takes no memory that a put might miss."""

    def give_back(self) -> None:
        """Empty slabs go back to the system at once."""

    def set_spare(self, size: int) -> None:
        """So many bytes of the limit should be free for what is put next."""

    def lacking(self, milliseconds: int = 0) -> int:
        """Bytes that are lacking for that, negative where more are free; after waiting at most so
        long until some are."""

    def wake(self) -> None:
        """Ends that wait: something else is to be looked at."""

    def compact(self) -> None:
        """Moves pages out of the emptiest slabs where memory is lacking, 16 MiB at most."""

    def make_spare(self) -> None:
        """Evicts ephemeral pages until the spare room is free, or none are left."""

    def evict_all(self) -> int:
        """Evicts all ephemeral pages: how many."""

    def maintain(self, all: bool = False) -> None:
        """Gives empty slabs back (all: also those that fell empty just now) and moves pages out
        of sparse ones. To be called a few times a second, from any thread."""

    def pack(self) -> bool:
        """For some milliseconds moves pages closer together than maintain() does; whether there
        may be more to do. For pages that will stay for long."""

    def set_staging(self, on: bool) -> None:
        """On: where there is room, a put stores the page as it is, and settle() compresses it."""

    def settle(self, milliseconds: int = 0) -> None:
        """Compresses what is staged, after waiting at most that long for it. For a thread that does
        nothing else; while puts come in it pauses after each slab."""

    def stats(self) -> dict[str, int]:
        """Counters since it was opened, and gauges; api/figures.py has their meaning."""

    def close(self) -> None:
        """Once no thread uses it any more; the arena stays."""
