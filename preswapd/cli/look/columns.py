"""Every column there is, with its definition; what `--help` and the documentation say is from here.

Sizes add up.  Of a device, in pages of its own: SIZE = USED + FREE and USED = TMEM + DISK + LOST.
Of a pool, in pages that were put: ORIG = SAME + RAW + STAGED + PACKED, which is the TMEM of all of
its devices; in the host's memory: LIMIT = USED + FREE and USED = PAYLOAD + OVERHEAD.
"""

from collections.abc import Callable
from datetime import datetime

from preswapd.cli.look.rows import Subject
from preswapd.cli.look.table import Column, Kind, Value
from preswapd.units import PAGE_SIZE


def figure(key: str) -> Callable[[Subject], Value]:
    return lambda row: row.figures.get(key)


def pages(plus: tuple[str, ...], minus: tuple[str, ...] = ()) -> Callable[[Subject], Value]:
    """Figures in pages, added up and taken away, in bytes; one that an older server lacks is 0."""
    return lambda row: (
        PAGE_SIZE
        * (
            sum(row.figures.get(key, 0) for key in plus)
            - sum(row.figures.get(key, 0) for key in minus)
        )
    )


def rate(key: str) -> Callable[[Subject], Value]:
    return lambda row: row.rate(key)


def room(row: Subject) -> int:
    return max(0, int(row.figures["mem_limit"] - row.figures["mem_used_total"]))


def ratio(row: Subject) -> float | None:
    used = row.figures["mem_used_total"]
    return row.figures["orig_data_size"] / used if row.figures["stored_pages"] and used else None


def hits(row: Subject) -> float | None:
    source = row.figures if row.rates is None else row.rates
    reads = source["loads"] + source["disk_reads"]
    return 100 * source["loads"] / reads if reads else None


def latency(operation: str, quantile: str) -> Callable[[Subject], Value]:
    """Seconds; None from a server that does not measure it."""

    def value(row: Subject) -> Value:
        of_operation = row.figures.get("latency")
        for key in (operation, quantile):
            of_operation = of_operation.get(key) if isinstance(of_operation, dict) else None
        return of_operation if isinstance(of_operation, int | float) else None

    return value


def clock(row: Subject) -> str:
    return datetime.fromtimestamp(row.time).strftime("%H:%M:%S")


USED_PAGES = ("preswap_pages", "disk_pages", "lost_pages")

INSTANCE = Column("INSTANCE", "the server's name", Kind.TEXT, lambda row: row.instance)
HITS = Column(
    "HIT%",
    "of the pages that were read, those that came from tmem; in a watch since the row before",
    Kind.PERCENT,
    hits,
)

# From servers that measure it.
DEVICE_LATENCIES = (
    Column("READ-P50", "half of the reads took less", Kind.SECONDS, latency("read", "p50")),
    Column("READ-P99", "99 % of the reads took less", Kind.SECONDS, latency("read", "p99")),
)

DEVICE_COLUMNS = (
    Column(
        "NAME",
        "the device, which is also its export and its label",
        Kind.TEXT,
        lambda row: row.name,
    ),
    INSTANCE,
    Column(
        "SIZE", "what the guest sees as the disk's size: USED + FREE", Kind.SIZE, figure("size")
    ),
    Column(
        "USED",
        "pages that hold something, swap header included: TMEM + DISK + LOST",
        Kind.SIZE,
        pages(USED_PAGES),
    ),
    Column(
        "TMEM",
        "pages in compressed memory, at their full size",
        Kind.SIZE,
        pages(("preswap_pages",)),
    ),
    Column("DISK", "pages in the disk file", Kind.SIZE, pages(("disk_pages",))),
    Column(
        "LOST",
        "damaged pages: reads are I/O errors until the guest writes or trims them",
        Kind.SIZE,
        pages(("lost_pages",)),
    ),
    Column(
        "FREE",
        "never written, or trimmed since: reads as zeros and takes no room",
        Kind.SIZE,
        lambda row: (
            row.figures["size"] - PAGE_SIZE * sum(row.figures.get(key, 0) for key in USED_PAGES)
        ),
    ),
    Column("CLIENTS", "NBD connections now", Kind.COUNT, figure("connections")),
    Column("COMPRESS", "its codec", Kind.TEXT, lambda row: row.figures.get("compress")),
    Column(
        "STORES",
        "pages written to tmem since the server's start",
        Kind.COUNT,
        figure("succ_stores"),
    ),
    Column(
        "REJECTS",
        "pages that tmem did not take, and that went to disk",
        Kind.COUNT,
        figure("failed_stores"),
    ),
    Column("LOADS", "pages read from tmem", Kind.COUNT, figure("loads")),
    Column("DISKREADS", "pages read from the disk file", Kind.COUNT, figure("disk_reads")),
    Column("DISKWRITES", "pages written to the disk file", Kind.COUNT, figure("disk_writes")),
    Column(
        "ERRORS", "reads and writes of the disk file that failed", Kind.COUNT, figure("disk_errors")
    ),
    Column("TRIMS", "pages that the guest gave back", Kind.COUNT, figure("trims")),
    Column("MOVED", "pages that a shrink moved to disk", Kind.COUNT, figure("written_back_pages")),
    Column("READS", "NBD read requests", Kind.COUNT, figure("read_requests")),
    Column("WRITES", "NBD write requests", Kind.COUNT, figure("write_requests")),
    HITS,
    *DEVICE_LATENCIES,
)
DEVICE_DEFAULT = ("NAME", "INSTANCE", "SIZE", "USED", "TMEM", "DISK", "CLIENTS", "COMPRESS")

POOL_COLUMNS = (
    INSTANCE,
    Column("LIMIT", "the most that USED may be", Kind.SIZE, figure("mem_limit")),
    Column(
        "USED",
        "what the host has given to the pool: PAYLOAD + OVERHEAD",
        Kind.SIZE,
        figure("mem_used_total"),
    ),
    Column("FREE", "LIMIT - USED; 0 where a limit was lowered below USED", Kind.SIZE, room),
    Column(
        "PEAK", "the most that USED was since the server's start", Kind.SIZE, figure("mem_used_max")
    ),
    Column("PAYLOAD", "what the pages were compressed to", Kind.SIZE, figure("compr_data_size")),
    Column(
        "OVERHEAD",
        "headers, rounding, and slabs that are not full",
        Kind.SIZE,
        lambda row: row.figures["mem_used_total"] - row.figures["compr_data_size"],
    ),
    Column("META", "what comes on top of USED: index and maps", Kind.SIZE, figure("metadata_size")),
    Column(
        "ORIG",
        "pages in the pool, at their full size: SAME + RAW + STAGED + PACKED",
        Kind.SIZE,
        figure("orig_data_size"),
    ),
    Column("RATIO", "ORIG / USED", Kind.RATIO, ratio),
    Column(
        "SAME",
        "pages of one repeated value, which take no payload",
        Kind.SIZE,
        pages(("same_filled_pages",)),
    ),
    Column(
        "RAW",
        "pages that compression did not make smaller",
        Kind.SIZE,
        pages(("huge_pages",), ("staged_pages",)),
    ),
    Column(
        "STAGED",
        "pages that were just written and are compressed next",
        Kind.SIZE,
        pages(("staged_pages",)),
    ),
    Column(
        "PACKED",
        "pages that are compressed",
        Kind.SIZE,
        pages(("stored_pages",), ("same_filled_pages", "huge_pages")),
    ),
    Column("DEVICES", "that share the pool", Kind.COUNT, figure("devices")),
    Column("PUTS", "pages offered since the server's start", Kind.COUNT, figure("puts")),
    Column("REJECTS", "pages not taken for want of memory", Kind.COUNT, figure("no_mem_puts")),
    Column("GETS", "pages asked for", Kind.COUNT, figure("gets")),
    Column("DAMAGED", "reads of a damaged or lost page", Kind.COUNT, figure("checksum_errors")),
    HITS,
)
POOL_DEFAULT = (
    "INSTANCE",
    "LIMIT",
    "USED",
    "PAYLOAD",
    "ORIG",
    "RATIO",
    "SAME",
    "STAGED",
    "META",
)

# What a second look can tell; only where there is one.
TIME = Column("TIME", "of day", Kind.TEXT, clock)
DEVICE_RATES = (
    TIME,
    Column("STORES/S", "pages written to tmem, a second", Kind.RATE, rate("succ_stores")),
    Column("REJECTS/S", "pages that went to disk instead", Kind.RATE, rate("failed_stores")),
    Column("LOADS/S", "pages read from tmem", Kind.RATE, rate("loads")),
    Column("DISKR/S", "pages read from the disk file", Kind.RATE, rate("disk_reads")),
    Column("DISKW/S", "pages written to the disk file", Kind.RATE, rate("disk_writes")),
    Column("TRIMS/S", "pages given back", Kind.RATE, rate("trims")),
    Column("READS/S", "NBD read requests", Kind.RATE, rate("read_requests")),
    Column("WRITES/S", "NBD write requests", Kind.RATE, rate("write_requests")),
)
POOL_RATES = (
    TIME,
    Column("PUTS/S", "pages offered, a second", Kind.RATE, rate("puts")),
    Column("REJECTS/S", "pages not taken for want of memory", Kind.RATE, rate("no_mem_puts")),
    Column("GETS/S", "pages asked for", Kind.RATE, rate("gets")),
    Column("DISKR/S", "pages read from disk files", Kind.RATE, rate("disk_reads")),
    Column("DISKW/S", "pages written to disk files", Kind.RATE, rate("disk_writes")),
)
DEVICE_WATCH = (
    "TIME",
    "NAME",
    "USED",
    "TMEM",
    "DISK",
    "STORES/S",
    "REJECTS/S",
    "LOADS/S",
    "DISKR/S",
    "DISKW/S",
    "TRIMS/S",
    "HIT%",
)
POOL_WATCH = (
    "TIME",
    "INSTANCE",
    "USED",
    "PAYLOAD",
    "ORIG",
    "RATIO",
    "STAGED",
    "PUTS/S",
    "REJECTS/S",
    "GETS/S",
    "DISKR/S",
    "DISKW/S",
    "HIT%",
)
