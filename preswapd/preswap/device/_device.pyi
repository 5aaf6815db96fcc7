from collections.abc import Callable

from bitarray import bitarray
from typing_extensions import Buffer

from preswapd.api.figures import DeviceFigures
from preswapd.preswap.device._table import Entry
from preswapd.tmem._tmem import Host

PAGE_SIZE: int
EXTENT_PAGES: int
FLAG_FUA: int
FLAG_FAST_ZERO: int

# nbdkit.set_error: to be set where nbdkit asks; an exception is EIO to the client otherwise.
set_error: Callable[[int], None] | None

class Extents:
    """The extents of a device with pages in tmem, the coldest first."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> tuple[float, int, int]:
        """Mean sequence number, pages in tmem, number of the extent."""

class Device:
    """One swap device.  Pages of 4096 bytes; extents of EXTENT_PAGES pages.

    What its owner does with it raises OSError when the device is being removed.
    """

    name: str
    compress: str  # may be set: pages that are stored already keep theirs
    configured_compress: str  # the sidecar's
    size: int
    preswap_map: bitarray
    disk_map: bitarray
    max_pages: int
    tmem_dirty: bool
    def __init__(
        self,
        host: Host,
        *,
        pool: int,
        entry: Entry,
        compress: str,
        map_fd: int,
        image_fd: int,
        tmem_dirty: bool,
        on_first_put: Callable[[], None],
    ) -> None:
        """Takes over image_fd.  map_fd: one state byte for each page, allocated in full.

        on_first_put() is called before a page enters tmem for the first time; if it raises
        OSError, tmem stays closed to the device and it is asked again at the next write.
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
    def disk_errors(self) -> int: ...
    @property
    def last_disk_error(self) -> int:
        """The newest errno of the disk file, 0 for none."""

    @property
    def quarantined(self) -> bool:
        """Dirty after a reboot: reads of all but page 0 fail until a guest starts with it."""

    @property
    def seconds_since_io(self) -> float | None:
        """None when there was no request yet."""

    def connect(self) -> Connection:
        """Its first request waits until what is in flight now has ended."""

    def close(self) -> None:
        """Nothing begins any more, what is in flight ends, and what it holds is given back."""

    def state_bytes(self) -> bytes:
        """A copy of the map: one state byte for each page."""

    def stats(self) -> DeviceFigures: ...
    def metadata_size(self) -> int:
        """Bytes of the map and the four bitarrays."""

    def write_page_zero(self, page: Buffer) -> None:
        """Written through to disk, and synced."""

    def writeback(self, extent: int, most: int = ...) -> tuple[int, int, int]:
        """Moves at most so many of the extent's pages to disk: moved, lost, errno or 0."""

    def coldest(self) -> Extents: ...
    def punch(self, first: int, pages: int, all: bool = False) -> None:
        """Gives disk space back where pages were trimmed (all: wherever no page is on disk)."""

    def recompress(self) -> None:
        """Compresses pages in tmem that are not yet, as the process before this one left them."""

    def mend(self) -> int | None:
        """Where the disk file was cut off, pages behind its end become lost: how many."""

    def disk_file(self) -> int:
        """A descriptor of the disk file, the caller's to close."""

    def forget(self, first: int, pages: int) -> None:
        """The pages read as zeros afterwards, as after a trim."""

    def stop(self) -> None:
        """No request begins any more (ESHUTDOWN); returns when those in flight have ended."""

    def empty(self) -> None:
        """After stop(): drops all pages and the index's upper levels."""

    def park(self, milliseconds: int) -> bool:
        """Requests wait for ever from now on; True when those in flight have ended in time."""

    def punch_parked(self, first: int, pages: int) -> None:
        """punch() of whatever is not on disk there, after park() returned True."""

    def sync(self) -> None:
        """What was written to the disk file survives the host's reboot."""

class Connection:
    """One client of a device; nbdkit's handle.  Errors are OSError with the client's errno."""

    device: Device
    def __init__(self, device: Device) -> None: ...
    def close(self) -> None: ...
    def pread(self, buf: Buffer, offset: int, flags: int = 0) -> None:
        """Fills the writable buffer."""

    def pwrite(self, buf: Buffer, offset: int, flags: int = 0) -> None: ...
    def flush(self, flags: int = 0) -> None: ...
    def trim(self, count: int, offset: int, flags: int = 0) -> None: ...
    def zero(self, count: int, offset: int, flags: int = 0) -> None: ...
    def extents(self, count: int, offset: int, flags: int = 0) -> list[tuple[int, int, int]]:
        """(offset, length, type) as nbdkit wants them, at most 512, from offset on."""

def reserve_index(device: Device) -> None:
    """The index's upper levels; MemoryError when there is no room for them."""

def give_back(host: Host) -> None:
    """Empty slabs go back to the system at once."""

# nbdkit's callbacks: put into the plugin's namespace as they are.
def pread(h: Connection, buf: Buffer, offset: int, flags: int) -> None: ...
def pwrite(h: Connection, buf: Buffer, offset: int, flags: int) -> None: ...
def flush(h: Connection, flags: int) -> None: ...
def trim(h: Connection, count: int, offset: int, flags: int) -> None: ...
def zero(h: Connection, count: int, offset: int, flags: int) -> None: ...
def extents(h: Connection, count: int, offset: int, flags: int) -> list[tuple[int, int, int]]: ...
