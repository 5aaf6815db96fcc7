# SPDX-License-Identifier: BSD-3-Clause
"""What is said over the control API: the server fills these objects in, the client returns them.

A leaf: whoever does the work (preswapd/preswap/) reports it in these words too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

# Of a device that is `awaited`: why nothing is taken from it.
AWAITED = (
    "the client that was connected when the server ended has not come back: an idle guest does when"
    " it next needs its swap, a paused one when it is resumed (cont)"
)


def is_an_image(name: str, instance: str) -> str:
    """To whoever takes it for a swap device."""
    return (
        f"{name} is an image of {instance} and no swap device: `preswapctl images {name}` shows it,"
        f" `preswapctl qemu-args {name}` gives it to a guest; it is served while the configuration"
        " names it, and swap takes its memory when needed"
    )


# What is asked of ages where nobody says: all pages; those of the moment, which a guest that swaps
# uses all the time; then ten minutes, after which a page is compressed again and its return no
# refault; and what may be set for idle pages to go.
AGES = (0, 10, 60, 600, 3600, 6 * 3600, 86400)


class Message:
    """A dataclass that travels as a JSON object; a newer peer's further fields are ignored."""

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value for name, value in body.items() if name in names})


@dataclass(frozen=True)
class ShrinkProgress(Message):
    """How far a shrink is, in pages; `left` may already include a move that `moved` does not."""

    moved: int
    left: int
    target: int


@dataclass(frozen=True)
class ShrinkResult(Message):
    """How a shrink ended, in pages."""

    moved: int  # from tmem to disk
    left: int  # still in tmem
    lost: int  # could not be read back from tmem
    complete: bool
    reason: str | None = None  # why it is not complete


@dataclass(frozen=True)
class ShrinkStatus(Message):
    """The shrink that is under way, or the last one since the server's start; in pages."""

    running: bool
    moved: int = 0
    left: int = 0
    target: int = 0
    device: str | None = None  # None: all devices
    result: Mapping[str, Any] | None = None  # a ShrinkResult, once it has ended
    error: str | None = None
    setting: str | None = None  # the key of the limit that it is for; None: it was asked for
    waiting: Sequence[str] = ()  # the settings whose pages go when it has ended
    sync: bool = False  # it is a sync: a shrink to 0 pages that saves the maps of the devices too
    idle: float | None = None  # only pages that were not used for so many seconds; None: any


@dataclass(frozen=True)
class Age(Message):
    """The pages in tmem that no guest has used for so many seconds."""

    older_than: float
    pages: int
    bytes: int  # memory that they take, compressed and with their headers


@dataclass(frozen=True)
class Parked(Message):
    """What `preswapctl park` has done to the virtual machine that has the device; in bytes."""

    left: int  # of its memory, by the order that QEMU got last
    whole: int
    qmp: str  # the socket of QEMU's monitor
    pid: int = 0  # QEMU's; 0: not known, or not to be seen from where the server runs
    since: float = 0.0  # seconds since 1970


@dataclass(frozen=True)
class PoolPoint(Message):
    """With a pool of this size that share of reads comes from memory."""

    pages: int
    bytes: int | None  # what so many pages take in the pool; None: it has too few to tell
    from_memory: float


@dataclass(frozen=True)
class GuestPoint(Message):
    """With so much more memory the guest does without that share of its swap-ins."""

    pages: int
    bytes: int
    least: float
    most: float


@dataclass(frozen=True)
class Advice(Message):
    """What the reads of guests say of a pool of another size, and of a guest with more memory."""

    seconds: float  # so long it was looked at them
    reads: int  # of pages, as the sample has it
    unseen: int  # of pages that were written before that: nothing is known of these
    sampled_reads: int
    sampled_pages: int
    one_in: int  # of so many pages one is followed
    trims: int  # pages that guests have trimmed since the server's start
    pool_limit: int  # bytes that the pool may take now
    page_bytes: float | None  # what a page takes in the pool now, on average; None as above
    pool: Sequence[PoolPoint] = ()
    guest: Sequence[GuestPoint] = ()

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        pool = [PoolPoint.from_json(point) for point in body["pool"]]
        guest = [GuestPoint.from_json(point) for point in body["guest"]]
        return super().from_json({**body, "pool": pool, "guest": guest})


@dataclass(frozen=True)
class PullStatus(Message):
    """A device whose pages come from another host; in pages."""

    source: str  # its NBD URI
    taken: bool  # the guest has changed something here, and the source serves this device alone
    pending: int  # still there
    fetched: int  # since the server's start
    rate: int = 0  # bytes a second at most; 0: no limit
    complete: bool = False  # all is here; the source may still have to hear of it
    trouble: str | None = None  # why nothing comes now


@dataclass(frozen=True)
class SwapoffResult(Message):
    """What a swapoff dropped, in pages."""

    pages: int  # from tmem
    disk_pages: int
    recent_io_seconds: float | None = None  # since the device's last request before it


@dataclass(frozen=True)
class SavedDevice(Message):
    """What a save says of itself."""

    device: str
    instance: str
    pages: int  # all that the device has
    time: float  # seconds since 1970
    preswapd: str  # the version that has saved it


@dataclass(frozen=True)
class SaveReport(Message):
    """What was saved or restored, in pages that are not in the scan zone."""

    pages: int  # with what they held
    zeros: int  # trimmed ones
    lost: int = 0  # left out of a save, as nobody knows what they held


@dataclass(frozen=True)
class RemoteStatus(Message):
    """The remote tier of an instance: what it is told, and how it is with its store."""

    url: str | None = None  # None: there is none
    used: bool = False  # as vm.remote says
    error: str | None = None  # why it does nothing, until the server is started again
    key_file: str = ""
    image_key_file: str | None = None
    image_error: str | None = None  # why images are not shared, though that is wanted
    password_file: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    timeout: float = 0.0  # milliseconds that a read waits for it
    max: int = 0  # bytes of devices' pages that it may have; 0: no limit
    ttl: int = 0  # seconds that it keeps a page
    open: bool = False  # it is left alone for a moment, as it did not answer in time
    courier: int | None = None  # the process that speaks to it
    courier_starts: int = 0
    courier_error: str | None = None  # why the last one ended
    store: Mapping[str, Any] | None = None  # what the courier said last; None: nothing, or gone


@dataclass(frozen=True)
class ServerFacts(Message):
    """What the server knows of its own process."""

    pid: int
    nbdkit: str
    threads: int
    threads_reason: str
    structured_replies: bool
    structured_replies_reason: str
    runtime_dir: str
    shm_dir: str
    state_dir: str
    start_time: float = 0.0  # seconds since 1970
    listen: str | None = None  # the address on which NBD is served over TCP too
    listen_error: str | None = None  # why nobody can connect there yet
    tls: str | None = None  # "x509" or "psk"; None: clients over TCP speak in the clear
    tls_keys: str | None = None  # the directory of certificates, or the file of keys
    tls_refused: int = 0  # clients over TCP that were not let in
