# SPDX-License-Identifier: BSD-3-Clause
from collections.abc import Callable, Sequence

from bitarray import bitarray
from typing_extensions import Buffer

from preswapd.api.figures import DeviceFigures
from preswapd.block._export import Connection as Export
from preswapd.preswap.device._table import Entry
from preswapd.remote._remote import Remote
from preswapd.tmem._tmem import Host

PAGE_SIZE: int
EXTENT_PAGES: int
# Of what read_contents() and write_contents() need; what it has stands behind its first page.
SPACE_BYTES: int
PACKED_BYTES: int
# Of requests.
FLAG_FUA: int
FLAG_FAST_ZERO: int

def transfer_buffers() -> int:
    """Bytes of the buffers that threads keep for transfers from and to the disk."""

class Extents:
    """The extents of a device with pages in tmem, the coldest first."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> tuple[tuple[float, float], int, int]:
        """When its pages were used and then when they were put, as means that only compare; pages
        in tmem, number of the extent."""

def least_weight(step: int) -> int:
    """Of a step of `Device.weigh()`: 64ths of a turn of the pool times bytes."""

def step_pages(step: int) -> float:
    """The least distance of a step of `Device.reads()`, in pages."""

def step_seconds(step: int) -> float:
    """The least seconds of a step of `Epochs.reused()` and `Device.idle_pages()`."""

class Epochs:
    """When pages were used last: what the devices of an instance share.  MemoryError."""

    def set_turn(self, pages: int) -> None:
        """So many pages are in the pool: ages in turns count by it."""

    def begin(self) -> int:
        """A new epoch begins: its number."""

    @property
    def are_scarce(self) -> bool:
        """change_over() is due, and then renumber() of each device."""

    def change_over(self) -> None: ...
    def reused(self) -> list[int]:
        """Pages that were read again, by how long before they had been touched: in steps of
        step_seconds(), since the start."""

class Sampler:
    """How far apart the uses of pages are: what the devices of an instance share.

    One page in 2^shift is followed, or fewer where they are many.  MemoryError.
    """

    def __init__(self, shift: int = ...) -> None: ...
    def turn(self) -> None:
        """A new period begins, and reads of the one before the last are forgotten."""

    def state(self) -> tuple[int, int]:
        """In how many pages one is followed, and how many are."""

class Device:
    """One swap device.  Pages of 4096 bytes; extents of EXTENT_PAGES pages.

    What its owner does with it raises OSError when the device is being removed.
    """

    name: str
    compress: str  # may be set: pages that are stored already keep theirs
    configured_compress: str  # the sidecar's
    size: int
    preswap_map: bitarray
    max_pages: int
    # A page read from disk comes back where it weighs less; 0, as at first: none does; None: where
    # there is room.
    promoted_below: int | None
    life: int  # whoever pulls names it; 0: nobody may
    # Called before the first change of a guest that is coming, and for pages that are PENDING
    # (first page, how many); OSError: the request fails.
    on_take: Callable[[], None] | None
    on_fetch: Callable[[int, int], bytes] | None
    def __init__(
        self,
        host: Host,
        epochs: Epochs,
        sampler: Sampler,
        *,
        pool: int,
        entry: Entry,
        compress: str,
        zone: Sequence[range],
        map_fd: int,
        disk_fd: int,
        is_marked: bool,
        on_mark: Callable[[], None],
    ) -> None:
        """Takes over disk_fd.  map_fd: one state byte for each page, allocated in full.

        zone: ranges of pages that are always on disk.  on_mark() is called before the first change
        of a device that is not marked; if it raises OSError, that is the request's error, nothing
        changes, and it is asked again at the next.  When the device cannot be opened, disk_fd is
        still the caller's.
        """

    @property
    def type(self) -> int: ...
    @property
    def pages(self) -> int: ...
    @property
    def connections(self) -> int: ...
    @property
    def preswap_pages(self) -> int: ...
    @property
    def disk_pages(self) -> int: ...
    @property
    def disk_traffic(self) -> int:
        """Pages that guests have read from disk, and written to it because tmem rejected them."""

    @property
    def is_marked(self) -> bool:
        """It has changed since its map was saved, or that was never saved."""

    @property
    def disk_errors(self) -> int: ...
    @property
    def last_disk_error(self) -> int:
        """The newest errno of the disk file, 0 for none."""

    @property
    def seconds_since_io(self) -> float | None:
        """Seconds since the last read, write, trim or zero; None before the first."""

    @property
    def is_asked(self) -> bool:
        """Whether a client has asked for more than what somebody reads who only looks what this is:
        anything but the scan zone and the extents.  QEMU flushes its disk before it ends."""

    @property
    def events(self) -> int:
        """A number that grows with each request of a client, of any kind, and with each error."""

    def use_remote(self, remote: Remote | None) -> None:
        """What goes to disk from now on goes there too, and is looked for there first; None: no
        more.  ValueError: it had another one before.  MemoryError."""

    def connect(self) -> Connection:
        """Its first request waits until what is in flight now has ended.  OSError: it is shut."""

    def close(self) -> None:
        """No request begins any more; waits for those in flight, then frees what it holds."""

    def is_on_disk(self, page: int) -> bool: ...
    def state_bytes(self, first: int = 0, most: int = ...) -> bytes:
        """A copy of the map, or of a part of it: one state byte for each page."""

    def stats(self) -> DeviceFigures: ...
    def metadata_size(self) -> int:
        """Bytes of the map, the bitmaps, and what is kept of each page's age."""

    def reserve_index(self) -> None:
        """The index's upper levels; MemoryError when there is no room for them."""

    def write_page_zero(self, page: Buffer) -> None:
        """Written through to disk, and synced."""

    def writeback(self, extent: int, most: int = ...) -> tuple[int, int, int]:
        """Moves at most `most` of the extent's pages to disk: moved, lost, errno or 0."""

    def writeback_idle(self, extent: int, seconds: float, most: int = ...) -> tuple[int, int, int]:
        """The same, of pages that were not touched for so long."""

    def writeback_next_idle(
        self, page: int, seconds: float, most: int = ...
    ) -> tuple[int, int, int]:
        """The same of the first extent from `page` on that has such pages: the page to go on with,
        the device's end at the latest; moved, 0 also where a long look found none; errno or 0."""

    def writeback_next_heavy(
        self, page: int, least: int, beside: int, most: int = ...
    ) -> tuple[int, int, int]:
        """As before, of pages that had this weight, in steps, or a greater one at the last
        weigh(), and were not touched since; and of those beside them that had nearly as much."""

    def weigh(self, since: int) -> list[int]:
        """Weighs the pages in tmem: how many have each step of weight.  since: the epoch that has
        just begun."""

    def ages(self, seconds: Sequence[float]) -> list[tuple[int, int]]:
        """Pages in tmem that were not touched for so long, and bytes that they take, for each."""

    def idle_pages(self) -> list[int]:
        """Pages in tmem and on disk, by the time since they were touched: in steps of
        step_seconds()."""

    def reads(self) -> tuple[list[int], list[int], list[int], int, int]:
        """Reads of both periods by their distance, in steps of step_pages(): for the pool, and the
        least and the most for the guest, see sampler.h; reads of pages whose last use was not seen;
        and how many were looked at, of which the others are estimates."""

    def renumber(self) -> None:
        """After Epochs.change_over()."""

    def forget_left(self) -> None:
        """What was written back before the last call is no refault any more."""

    def coldest(self) -> Extents: ...
    def punch(self) -> None:
        """Gives disk space back where pages were trimmed."""

    def punch_unused(self) -> None:
        """Gives back all blocks of the disk file where no page is on disk, as a process before
        this one may have left them."""

    def settle(self) -> None:
        """Compresses pages in tmem that the process before this one left uncompressed."""

    def recompress(
        self, codec: str, first: int, *, since: float, before: float, nanoseconds: int
    ) -> tuple[int, int, int, int, int]:
        """From page `first` on compresses pages in tmem once more that were touched last in that
        time (of time.monotonic()), until it has had a processor for so long.

        The page to go on with; how many pages became smaller, and how many found no room to; ns
        with a processor, and in all.
        """

    def read_contents(
        self, page: int, zone: bool, space: Buffer, packed: Buffer | None = None
    ) -> tuple[int, int, int, int, int, int, int, int]:
        """What the next extent from `page` on holds that has pages of the zone, or outside of it,
        of which anything is known: see contents.h.

        The page to go on with; the extent's first page, how many it has, 0 where there is none;
        how many of them are bytes, how many zeros, how many were lost; how many others stand in
        `packed`, of PACKED_BYTES, as they are compressed in memory, in how many bytes.  Around the
        end of the first page of `space` stands a byte for each page, what it is, and then the
        bytes.  OSError.
        """

    def write_contents(self, first: int, zone: bool, space: Buffer, length: int) -> tuple[int, int]:
        """That, into an extent of which nothing is known: how many pages were bytes, how many
        zeros.  ValueError: it does not fit, and nothing was changed; OSError."""

    def write_packed(self, first: int, space: Buffer, packed: Buffer) -> int:
        """The same with what read_contents() has left in `packed`: how many pages it was."""

    def extent_pages(self, first: int) -> int:
        """Pages of the extent that begins with this one.  ValueError: none does."""

    def clear_zone(self) -> None:
        """All of the zone becomes zeros, the swap header too."""

    def shut(self) -> bool:
        """From now on no client connects; False, and nothing changes, where one is connected."""

    def unshut(self) -> None:
        """Clients may connect again."""

    def mend(self) -> int | None:
        """Where the disk file was cut off, makes pages behind its end lost: how many, or None."""

    def forget(self) -> None:
        """Drops all pages but the zone's, in tmem and on disk: they are UNKNOWN."""

    def make_known(self) -> int:
        """UNKNOWN pages become zeros: how many."""

    def stop(self) -> None:
        """No request begins any more (ESHUTDOWN); returns when those in flight have ended."""

    @property
    def is_stopped(self) -> bool:
        """Since stop() has been called: it is being removed."""

    def empty(self) -> None:
        """After stop(): drops all pages and the index's upper levels."""

    def park(self, milliseconds: int) -> bool:
        """From now on new requests wait; True when those in flight have ended in time."""

    def resume(self) -> None:
        """What was parked goes on."""

    def ensure_marked(self) -> None:
        """As before its first change; the caller keeps it from being removed.  OSError."""

    def note_marked(self) -> None:
        """Its sidecar says so already."""

    @property
    def guest(self) -> str:
        """Where its guest is: here; coming, as long as it has changed nothing here; or gone, when
        another host has taken the device."""

    def set_guest(self, where: str, taker: int = 0) -> None:
        """Parked, unless nobody is connected.  taker: the arrival that may pull from it then."""

    def pull(self, life: int, taker: int) -> Connection:
        """A client that reads for the arrival `taker` on another host, as long as this life of the
        device lasts: ESHUTDOWN afterwards, or when another one has taken it."""

    def renew(self, *, pending: bool) -> None:
        """Parked: drops all pages; they are PENDING, or UNKNOWN and the zone on disk."""

    def keep(self, first: int, content: Buffer) -> None:
        """Pages that were asked for after the guest had come take the place of those that are
        PENDING still."""

    def take_states(self, first: int, states: Buffer) -> None:
        """State bytes of the other host: PENDING pages that it has nothing of become what it says,
        but those of the zone."""

    def give_up(self) -> None:
        """PENDING pages become LOST, those of the zone what the disk file has."""

    def unmark(self) -> None:
        """Parked, and with its map saved: the next change marks it."""

    def sync(self) -> None:
        """Syncs the disk file: what was written to it survives the host's reboot."""

class Connection(Export):
    """One client of a device."""

    device: Device
    def __init__(self, device: Device) -> None: ...
