# SPDX-License-Identifier: BSD-3-Clause
"""The statistics, and every figure in them: its key, its type and its meaning, written once.

The types are those of the answer to `GET /v1/stats`.  What a field means is written beside its
type, and goes from there into the help of the commands, the manual page, Prometheus' text and the
tables of the documentation (tools/tables).  A field that is NotRequired came later than the
others: an older server does not send it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import (
    Annotated,
    NotRequired,
    TypedDict,
    get_args,
    get_origin,
    get_type_hints,
)

GAUGE, COUNTER, HISTOGRAM, TEXT = "gauge", "counter", "histogram", "text"
BYTES, SECONDS = "bytes", "seconds"


@dataclass(frozen=True)
class Figure:
    """What one field says.  A gauge is true now; a counter begins at 0 with the server."""

    kind: str
    meaning: str  # as in a table: a sentence without its capital letter and its full stop
    unit: str = ""  # none: pages, or events
    internal: str = ""  # why it is no promise, and not in the documentation
    key: str = ""  # the field's name, which it gets from there


def gauge(meaning: str, unit: str = "", *, internal: str = "") -> Figure:
    return Figure(GAUGE, meaning, unit, internal)


def counter(meaning: str, unit: str = "", *, internal: str = "") -> Figure:
    return Figure(COUNTER, meaning, unit, internal)


class TmemFigures(TypedDict):
    """The pool, which all devices of a server share."""

    mem_limit: Annotated[
        int,
        gauge(
            "the most memory that the pool may take: the lower of pool_limit and governed_limit",
            BYTES,
        ),
    ]
    governed: NotRequired[
        Annotated[bool, gauge("whether that is governed_limit, which `preswapd govern` sets")]
    ]
    mem_used_total: Annotated[int, gauge("memory that the pool takes from the host", BYTES)]
    mem_used_max: Annotated[
        int, gauge("the most memory that the pool has taken since the server's start", BYTES)
    ]
    frozen: NotRequired[
        Annotated[bool, gauge("whether new pages go to disk instead, because the pool is frozen")]
    ]
    metadata_size: Annotated[
        int, gauge("memory besides the pool's: the index, the maps of the devices", BYTES)
    ]
    stored_pages: Annotated[int, gauge("pages in the pool, same-filled ones included")]
    same_filled_pages: Annotated[
        int, gauge("pages filled with one repeated value, stored without payload")
    ]
    huge_pages: Annotated[
        int, gauge("pages stored at full size: not compressed yet, or no smaller when compressed")
    ]
    staged_pages: NotRequired[
        Annotated[int, gauge("pages just written, stored at full size until they are compressed")]
    ]
    orig_data_size: Annotated[int, gauge("size of the pages in the pool before compression", BYTES)]
    compr_data_size: Annotated[int, gauge("size of the pages in the pool after compression", BYTES)]
    puts: Annotated[int, counter("pages offered to the pool")]
    good_puts: Annotated[int, counter("pages offered to the pool that it took")]
    no_mem_puts: Annotated[int, counter("pages offered to the pool that it rejected")]
    dup_puts_replaced: Annotated[int, counter("puts that replaced the page stored before")]
    dup_puts_flushed: Annotated[int, counter("rejected puts that dropped the page stored before")]
    gets: Annotated[int, counter("pages that the pool was asked for")]
    found_gets: Annotated[int, counter("pages that the pool was asked for and had")]
    flushes: Annotated[int, counter("pages that the pool was asked to drop")]
    flushes_found: Annotated[int, counter("pages that the pool was asked to drop and had")]
    pool_limit_hit: Annotated[
        int, counter("puts rejected because the pool was at its limit, or closed to new pages")
    ]
    reject_alloc_fail: Annotated[
        int, counter("puts rejected because the host had no memory left to give, or to spare")
    ]
    checksum_errors: Annotated[int, counter("reads of a damaged or lost page")]
    recompressed_pages: NotRequired[
        Annotated[int, counter("pages compressed again, denser, because they were idle")]
    ]
    recompress_saved: NotRequired[
        Annotated[int, counter("memory saved by compressing pages again", BYTES)]
    ]
    live_slot_bytes: Annotated[
        int,
        gauge(
            "slots that hold a page: payload, headers and rounding",
            BYTES,
            internal="it depends on how slabs are laid out",
        ),
    ]
    moved_pages: Annotated[
        int,
        counter(
            "pages copied out of slabs that were nearly empty",
            internal="it depends on how the pool is packed",
        ),
    ]
    ephemeral_pages: Annotated[
        int,
        gauge(
            "pages in ephemeral pools", internal="cached_pages and cached_bytes of images tell it"
        ),
    ]
    ephemeral_bytes: NotRequired[
        Annotated[
            int,
            gauge(
                "those pages as they are stored, with their headers",
                BYTES,
                internal="cached_pages and cached_bytes of images tell it",
            ),
        ]
    ]
    evicted_pages: Annotated[
        int,
        counter(
            "ephemeral pages dropped to make room",
            internal="cached_pages and cached_bytes of images tell it",
        ),
    ]


class Latency(TypedDict):
    """Requests of one kind since the server's start; times in seconds, None without requests."""

    count: int
    sum: float
    p50: float | None
    p99: float | None
    p999: float | None
    buckets: list[tuple[float, int]]  # (seconds, requests that took at most so long)


class DeviceFigures(TypedDict):
    """One device."""

    size: Annotated[int, gauge("size of the disk, as the guest sees it", BYTES)]
    compress: Annotated[
        str, Figure(TEXT, "codec of the pages written from now on: lz4, zstd or none")
    ]
    connections: Annotated[int, gauge("NBD clients connected now")]
    awaited: NotRequired[
        Annotated[
            bool,
            gauge(
                "whether a client was connected when the server ended last, none is now, and none"
                " since then has asked for more than the scan zone"
            ),
        ]
    ]
    away: NotRequired[
        Annotated[
            float,
            gauge(
                "how long there was no server while a client wanted one, if no request has come"
                " since; after more than its reconnect time QEMU has paused a guest that was"
                " swapping",
                SECONDS,
            ),
        ]
    ]
    parked: NotRequired[
        Annotated[
            int,
            gauge(
                "how much memory `preswapctl park` has left to the virtual machine that has the"
                " device; 0: it is not parked",
                BYTES,
            ),
        ]
    ]
    preswap_pages: Annotated[int, gauge("pages in tmem")]
    disk_pages: Annotated[int, gauge("pages in the disk file")]
    held_pages: NotRequired[
        Annotated[int, gauge("pages in tmem or in the disk file that a guest may still need")]
    ]
    quota: NotRequired[
        Annotated[
            int, gauge("the most pages of the device that may be in tmem: all, without a quota")
        ]
    ]
    lost_pages: Annotated[
        int, gauge("lost pages: reading one is an I/O error until it is written or trimmed")
    ]
    unknown_pages: Annotated[
        int,
        gauge(
            "pages that no guest has written or trimmed, as far as the server knows: reading one"
            " is an I/O error until one does"
        ),
    ]
    pending_pages: NotRequired[
        Annotated[
            int,
            gauge("pages to be fetched from the host that the guest came from"),
        ]
    ]
    source: NotRequired[
        Annotated[str, Figure(TEXT, "the device over there, an NBD URI; empty: none")]
    ]
    guest: NotRequired[
        Annotated[
            str,
            Figure(
                TEXT,
                "where its guest is: here; coming, when it has changed nothing here and its pages"
                " are another host's; gone, when another host has taken the device: all but that"
                " host get I/O errors",
            ),
        ]
    ]
    quarantined: Annotated[bool, gauge("always false: unknown_pages has replaced the quarantine")]
    succ_stores: Annotated[int, counter("pages written to tmem")]
    failed_stores: Annotated[
        int, counter("pages that tmem rejected, written to the disk file instead")
    ]
    loads: Annotated[int, counter("pages read from tmem")]
    invalidates: Annotated[int, counter("pages dropped from tmem by a trim or a write of zeroes")]
    disk_reads: Annotated[int, counter("pages read from the disk file")]
    disk_writes: Annotated[int, counter("pages written to the disk file")]
    disk_errors: Annotated[int, counter("reads and writes of the disk file that failed")]
    trims: Annotated[int, counter("pages trimmed by the guest")]
    written_back_pages: Annotated[
        int,
        counter(
            "pages moved to disk (by a shrink or sync, to make room, or because they were idle)"
        ),
    ]
    written_back_room: NotRequired[
        Annotated[int, counter("pages moved to disk unasked, to make room for others")]
    ]
    written_back_idle: NotRequired[
        Annotated[int, counter("pages moved to disk unasked, because they were idle")]
    ]
    refaults: NotRequired[
        Annotated[
            int, counter("pages read from disk within ten minutes after they were moved there")
        ]
    ]
    promoted_pages: NotRequired[
        Annotated[int, counter("pages read from disk and taken back into tmem")]
    ]
    remote_reads: NotRequired[
        Annotated[
            int, counter("pages read from the store of the remote tier instead of the disk file")
        ]
    ]
    fetched_pages: NotRequired[
        Annotated[int, counter("pages fetched from the host that the guest came from")]
    ]
    fetch_errors: NotRequired[
        Annotated[int, counter("reads of pages that could not be fetched, which were I/O errors")]
    ]
    quarantined_reads: NotRequired[
        Annotated[int, counter("always 0: unknown_reads has replaced the quarantine")]
    ]
    read_requests: Annotated[int, counter("NBD read requests")]
    write_requests: Annotated[int, counter("NBD write requests")]
    latency: NotRequired[
        Annotated[
            dict[str, Latency],
            Figure(HISTOGRAM, "how long requests took, without their time in the socket", SECONDS),
        ]
    ]
    unknown_reads: Annotated[int, counter("reads of an unknown page, which were I/O errors")]
    lost_reads: Annotated[
        int, counter("reads of a lost page", internal="checksum_errors counts them too")
    ]
    punched_pages: Annotated[
        int,
        counter(
            "pages of the disk file given back to its file system",
            internal="it depends on when and in what steps that is done",
        ),
    ]
    stale_pages: Annotated[
        int,
        gauge(
            "trimmed pages whose blocks are still to be given back to the file system",
            internal="it depends on when and in what steps that is done",
        ),
    ]
    trim_requests: Annotated[
        int, counter("NBD trim requests", internal="trims counts what they are about")
    ]


class ImageFigures(TypedDict):
    """One disk image; all counts are pages where nothing else is said."""

    path: Annotated[str, Figure(TEXT, "the file or block device that the image is")]
    size: Annotated[int, gauge("size of the disk, as its clients see it", BYTES)]
    writable: Annotated[bool, gauge("whether its client may write to it")]
    compress: Annotated[str, Figure(TEXT, "codec of the pages cached from now on")]
    cache: Annotated[
        int | None, gauge("the most bytes that its cached pages may take; null: no limit", BYTES)
    ]
    admit: Annotated[
        str, Figure(TEXT, "at which read of a page it is cached: its first or its second")
    ]
    cached: Annotated[
        bool, gauge("whether pages are cached now; not while the file was changed a moment ago")
    ]
    state: NotRequired[
        Annotated[
            str,
            Figure(
                TEXT,
                "cached, or cached and longer than its clients were told (grown); else reads go to"
                " the file, as that was just opened (not settled), was changed (changed), is"
                " shorter than they were told (shrunk), or as the arena has no pool left (no pool)",
            ),
        ]
    ]
    direct: NotRequired[
        Annotated[bool, gauge("whether the file is read past the host's page cache")]
    ]
    replaced: Annotated[
        bool, gauge("whether another file has its path now; the one that was opened is served")
    ]
    shared: NotRequired[
        Annotated[
            bool, gauge("whether pages are shared with other hosts through the store of [remote]")
        ]
    ]
    digest: NotRequired[
        Annotated[
            str | None,
            Figure(TEXT, "SHA-256 of the file, as which its pages are shared; null: they are not"),
        ]
    ]
    connections: Annotated[int, gauge("NBD clients connected now")]
    reads: Annotated[int, counter("pages that clients read")]
    hits: Annotated[int, counter("pages that clients read and that were cached")]
    misses: Annotated[
        int,
        counter(
            "pages that clients read and that came from the file, or from the store of [remote]"
        ),
    ]
    puts: Annotated[int, counter("pages that were cached")]
    writes: Annotated[int, counter("pages that its client wrote")]
    evicted: Annotated[int, counter("pages that were dropped from the cache to make room")]
    evicted_by_itself: Annotated[
        int, counter("of those, pages that went because the image has no larger `cache`")
    ]
    cached_pages: Annotated[int, gauge("pages that are cached")]
    cached_bytes: Annotated[
        int, gauge("those pages as they are stored, compressed, with their headers", BYTES)
    ]
    disk_reads: Annotated[
        int, counter("pages read from the file, also those that were read ahead of a client")
    ]
    disk_writes: Annotated[int, counter("pages written to the file")]
    disk_errors: Annotated[int, counter("reads and writes of the file that failed")]
    remote_reads: NotRequired[
        Annotated[
            int,
            counter("pages that came from the store, also those that were read ahead of a client"),
        ]
    ]
    remote_misses: NotRequired[
        Annotated[int, counter("pages that the store was asked for and did not have")]
    ]
    remote_late: NotRequired[
        Annotated[int, counter("pages that did not come from the store in time")]
    ]
    remote_away: NotRequired[
        Annotated[
            int, counter("pages that the store was not asked for, or could not give, as it is away")
        ]
    ]
    remote_wrong: NotRequired[
        Annotated[
            int,
            counter("pages from the store that were not what the file has; they are read from it"),
        ]
    ]
    remote_sets: NotRequired[
        Annotated[int, counter("pages read from the file that were given to the store")]
    ]
    remote_sets_dropped: NotRequired[
        Annotated[int, counter("pages that were not, as it was away or too slow")]
    ]
    read_requests: Annotated[int, counter("NBD read requests")]
    write_requests: Annotated[int, counter("NBD write requests")]
    latency: Annotated[
        dict[str, Latency],
        Figure(HISTOGRAM, "how long requests took, without their time in the socket", SECONDS),
    ]


class RemoteFigures(TypedDict):
    """The remote tier, which all devices of a server share; all counts are pages where nothing
    else is said."""

    remote_used: Annotated[bool, gauge("whether the remote tier is used: vm.remote")]
    remote_nodes: Annotated[int, gauge("nodes of the store that the server knows of")]
    remote_nodes_up: Annotated[int, gauge("nodes of the store that answer")]
    remote_open: Annotated[
        bool,
        gauge(
            "whether the store is left alone for a moment, as three reads in a row got no answer in"
            " time, or all of its nodes are away"
        ),
    ]
    remote_pages: Annotated[int, gauge("pages of devices that the store should have")]
    remote_bytes: Annotated[
        int, gauge("those pages as the store has them, compressed and sealed", BYTES)
    ]
    remote_reads: Annotated[
        int, counter("pages read from the store, and so not from the disk file")
    ]
    remote_misses: Annotated[
        int, counter("pages that the store had dropped when they were read: read from disk")
    ]
    remote_late: Annotated[
        int, counter("pages that the store did not send in time: read from disk")
    ]
    remote_away: Annotated[
        int, counter("pages of which the store's node was known to be away: read from disk")
    ]
    remote_wrong: Annotated[
        int,
        counter(
            "answers of the store that were not the page that was set: damaged, exchanged or"
            " forged; read from disk"
        ),
    ]
    remote_sets: Annotated[
        int,
        counter(
            "pages that the store took: when they went to disk, or of an image that hosts share"
        ),
    ]
    remote_sets_dropped: Annotated[
        int, counter("pages that were not sent, as the store was away or too slow")
    ]
    remote_sets_refused: Annotated[
        int, counter("pages that the store did not take, as it is full or read-only, say")
    ]
    remote_courier_starts: Annotated[int, counter("starts of the process that speaks to the store")]
    latency: Annotated[
        dict[str, Latency], Figure(HISTOGRAM, "how long reads of the store took", SECONDS)
    ]


class DeviceAnswer(DeviceFigures):
    """The answer to `GET /v1/devices/NAME`."""

    name: str
    seconds_since_io: float | None  # None before the first request


class ServerFigures(TypedDict, total=False):
    """Which run of the server answers; ServerFacts has the rest of what it says of itself."""

    pid: int
    start_time: Annotated[float, gauge("when the server started, in seconds since 1970", SECONDS)]
    tls_refused: Annotated[
        int,
        counter(
            "clients that came over TCP and were not let in: without TLS, without a certificate or"
            " key that counts, too slow, or too many at once"
        ),
    ]


class Statistics(TypedDict):
    """The answer to `GET /v1/stats`, which is what `preswapctl --json stats` prints."""

    version: str
    instance: str
    page_size: int
    tmem: TmemFigures
    devices: dict[str, DeviceFigures]
    refused: NotRequired[dict[str, str]]
    images: NotRequired[dict[str, ImageFigures]]
    refused_images: NotRequired[dict[str, str]]
    remote: NotRequired[RemoteFigures]
    sysctl: NotRequired[dict[str, int | str]]
    server: NotRequired[ServerFigures]


def catalogue(answer: type) -> dict[str, Figure]:
    """The figures in a part of the answer, by key."""
    hints = get_type_hints(answer, include_extras=True)
    return {key: replace(found, key=key) for key, hint in hints.items() for found in said(hint)}


def said(hint: object) -> Iterator[Figure]:
    if get_origin(hint) is NotRequired:
        (hint,) = get_args(hint)
    yield from (found for found in getattr(hint, "__metadata__", ()) if isinstance(found, Figure))


TMEM, DEVICE, IMAGE, REMOTE, SERVER = map(
    catalogue, (TmemFigures, DeviceFigures, ImageFigures, RemoteFigures, ServerFigures)
)
