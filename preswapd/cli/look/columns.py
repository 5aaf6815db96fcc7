# SPDX-License-Identifier: BSD-3-Clause
"""Every column there is, with its definition; what `--help` and the documentation say is from here.

A column that is simply a figure has its meaning from the figure.

Sizes add up.  Of a device, in pages of its own: SIZE = USED + FREE and USED = TMEM + DISK + LOST.
Of a pool, in pages that were put: ORIG = SAME + RAW + STAGED + PACKED, which is the TMEM of all of
its devices and the CACHED of all of its images; in the host's memory: LIMIT = USED + FREE and USED
= PAYLOAD + OVERHEAD.
"""

from collections.abc import Callable
from datetime import datetime

from preswapd.api.figures import BYTES, DEVICE, IMAGE, REMOTE, TEXT, TMEM, Figure
from preswapd.cli.look.rows import Subject
from preswapd.cli.look.table import Column, Kind, Value
from preswapd.units import PAGE_SIZE, format_duration

# --- columns that are a figure; `adds` to its meaning what only the table can say ---


def plain(name: str, figure: Figure, adds: str = "") -> Column:
    kind = Kind.SIZE if figure.unit == BYTES else Kind.TEXT if figure.kind == TEXT else Kind.COUNT
    return Column(name, figure.meaning + adds, kind, lambda row: row.figures.get(figure.key))


def in_bytes(name: str, figure: Figure, adds: str = "") -> Column:
    """A figure in pages, shown as their size."""
    return Column(name, figure.meaning + adds, Kind.SIZE, pages(figure))


def per_second(name: str, figure: Figure, adds: str = "") -> Column:
    meaning = f"{figure.meaning}{adds}, per second"
    return Column(name, meaning, Kind.RATE, lambda row: row.rate(figure.key))


# --- values that are made of several ---


def pages(*plus: Figure, minus: tuple[Figure, ...] = ()) -> Callable[[Subject], Value]:
    """Figures in pages, added up and taken away, in bytes; one that an older server lacks is 0."""
    return lambda row: PAGE_SIZE * (total(row, plus) - total(row, minus))


def total(row: Subject, figures: tuple[Figure, ...]) -> int:
    return sum(row.figures.get(figure.key, 0) for figure in figures)


def quota(row: Subject) -> int | None:
    """None for a device that may have all of its pages in tmem."""
    size = row.figures["size"]
    found = PAGE_SIZE * row.figures.get("quota", size)
    return int(found) if found < size else None


def frozen(row: Subject) -> str | None:
    """Of a device too: its row has it from its pool."""
    return yes_or_no(row.figures.get("frozen"))


def governed(row: Subject) -> str | None:
    return yes_or_no(row.figures.get("governed"))


def parked(row: Subject) -> int | None:
    """None for one that is not, and from a server that is too old to say."""
    return row.figures.get("parked") or None


def yes_or_no(found: bool | None) -> str | None:
    """None from a server that is too old to say."""
    return None if found is None else "yes" if found else "no"


def room(row: Subject) -> int:
    return max(0, int(row.figures["mem_limit"] - row.figures["mem_used_total"]))


def ratio(row: Subject) -> float | None:
    used = row.figures["mem_used_total"]
    return row.figures["orig_data_size"] / used if row.figures["stored_pages"] and used else None


def hits(row: Subject) -> float | None:
    source = row.figures if row.rates is None else row.rates
    reads = source["loads"] + source["disk_reads"] + source.get("remote_reads", 0)
    return 100 * source["loads"] / reads if reads else None


def image_hits(row: Subject) -> float | None:
    source = row.figures if row.rates is None else row.rates
    reads = source["hits"] + source["misses"]
    return 100 * source["hits"] / reads if reads else None


def image_ratio(row: Subject) -> float | None:
    stored = row.figures["cached_bytes"]
    return PAGE_SIZE * row.figures["cached_pages"] / stored if stored else None


def image_state(row: Subject) -> str | None:
    """None from a server that is too old to say."""
    state = row.figures.get("state")
    also = [word for word in ("replaced", "shared") if row.figures.get(word)]
    return ",".join([state, *also]) if state else state


def is_writable(row: Subject) -> str:
    """An older server has read-only images alone."""
    return "yes" if row.figures.get("writable") else "no"


def share(row: Subject) -> float | None:
    """Of the pool's memory, which was looked at a moment earlier."""
    used = row.figures["mem_used_total"]
    return min(100.0, 100 * row.figures["bytes"] / used) if used else None


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


# --- the columns ---

# Of a pool, what its devices count.
OF_ALL = ", of all devices"
USED_PAGES = (DEVICE["preswap_pages"], DEVICE["disk_pages"], DEVICE["lost_pages"])

FROZEN = Column("FROZEN", TMEM["frozen"].meaning, Kind.TEXT, frozen)
INSTANCE = Column("INSTANCE", "the server's name", Kind.TEXT, lambda row: row.instance)
HITS = Column(
    "HIT%",
    "share of the pages read that came from tmem; with --watch since the row before",
    Kind.PERCENT,
    hits,
)

QUOTA = Column(
    "QUOTA",
    "the most of the device that may be in tmem, by its quota; - without one",
    Kind.SIZE,
    quota,
)

# Shown unasked where one is parked.
PARKED = Column("PARKED", DEVICE["parked"].meaning, Kind.SIZE, parked)

STORE = plain("STORE", REMOTE["remote_bytes"], "; - without a remote tier")

# Only from servers that measure it.
LATENCIES = (
    Column(
        "READ-P50",
        "half of the reads took no longer than this",
        Kind.SECONDS,
        latency("read", "p50"),
    ),
    Column(
        "READ-P99",
        "99 % of the reads took no longer than this",
        Kind.SECONDS,
        latency("read", "p99"),
    ),
)

DEVICE_COLUMNS = (
    Column(
        "NAME",
        "the device's name, also that of its NBD export and its swap label",
        Kind.TEXT,
        lambda row: row.name,
    ),
    INSTANCE,
    plain("SIZE", DEVICE["size"], ": USED + FREE"),
    Column(
        "USED",
        "pages that hold something, swap header included: TMEM + DISK + LOST",
        Kind.SIZE,
        pages(*USED_PAGES),
    ),
    in_bytes("TMEM", DEVICE["preswap_pages"], ", at their full size"),
    in_bytes("DISK", DEVICE["disk_pages"]),
    in_bytes("LOST", DEVICE["lost_pages"]),
    Column(
        "FREE",
        "pages never written, or trimmed since: they read as zeros and take no room",
        Kind.SIZE,
        lambda row: row.figures["size"] - PAGE_SIZE * total(row, USED_PAGES),
    ),
    in_bytes("PENDING", DEVICE["pending_pages"]),
    plain("CLIENTS", DEVICE["connections"]),
    plain("GUEST", DEVICE["guest"]),
    plain("SOURCE", DEVICE["source"]),
    plain("COMPRESS", DEVICE["compress"]),
    QUOTA,
    FROZEN,
    PARKED,
    plain("STORES", DEVICE["succ_stores"]),
    plain("REJECTS", DEVICE["failed_stores"]),
    plain("LOADS", DEVICE["loads"]),
    plain("DISKREADS", DEVICE["disk_reads"]),
    plain("STOREREADS", DEVICE["remote_reads"]),
    plain("DISKWRITES", DEVICE["disk_writes"]),
    plain("ERRORS", DEVICE["disk_errors"]),
    plain("TRIMS", DEVICE["trims"]),
    plain("MOVED", DEVICE["written_back_pages"]),
    plain("MOVED-ROOM", DEVICE["written_back_room"]),
    plain("MOVED-IDLE", DEVICE["written_back_idle"]),
    plain("REFAULTS", DEVICE["refaults"]),
    plain("BACK", DEVICE["promoted_pages"]),
    plain("READS", DEVICE["read_requests"]),
    plain("WRITES", DEVICE["write_requests"]),
    HITS,
    *LATENCIES,
)
IMAGE_COLUMNS = (
    Column(
        "NAME", "the image's name, also that of its NBD export", Kind.TEXT, lambda row: row.name
    ),
    INSTANCE,
    plain("SIZE", IMAGE["size"]),
    Column("WRITABLE", IMAGE["writable"].meaning, Kind.TEXT, is_writable),
    plain("CLIENTS", IMAGE["connections"]),
    in_bytes("CACHED", IMAGE["cached_pages"], ", at their full size"),
    plain("MEMORY", IMAGE["cached_bytes"]),
    Column("RATIO", "CACHED / MEMORY", Kind.RATIO, image_ratio),
    Column(
        "HIT%",
        "share of the pages read that were cached; in top since the frame before",
        Kind.PERCENT,
        image_hits,
    ),
    plain("HITS", IMAGE["hits"]),
    plain("MISSES", IMAGE["misses"]),
    plain("PUTS", IMAGE["puts"]),
    plain("EVICTED", IMAGE["evicted"]),
    plain("DISKREADS", IMAGE["disk_reads"]),
    plain("DISKWRITES", IMAGE["disk_writes"]),
    plain("ERRORS", IMAGE["disk_errors"]),
    plain("STOREREADS", IMAGE["remote_reads"]),
    plain("STOREMISSES", IMAGE["remote_misses"]),
    plain("STORELATE", IMAGE["remote_late"]),
    plain("STOREAWAY", IMAGE["remote_away"]),
    plain("STOREWRONG", IMAGE["remote_wrong"]),
    plain("STORESETS", IMAGE["remote_sets"]),
    plain("READS", IMAGE["read_requests"]),
    plain("COMPRESS", IMAGE["compress"]),
    *LATENCIES,
    Column(
        "STATE",
        f"{IMAGE['state'].meaning}; replaced: another file has its path now; shared: its pages are,"
        " with other hosts",
        Kind.TEXT,
        image_state,
    ),
    plain("PATH", IMAGE["path"]),
)
IMAGE_DEFAULT = (
    "NAME",
    "INSTANCE",
    "SIZE",
    "WRITABLE",
    "CLIENTS",
    "CACHED",
    "MEMORY",
    "HIT%",
    "EVICTED",
    "STATE",
    "PATH",
)

DEVICE_DEFAULT = (
    "NAME",
    "INSTANCE",
    "SIZE",
    "USED",
    "TMEM",
    "DISK",
    "CLIENTS",
    "COMPRESS",
    "QUOTA",
    "FROZEN",
)

POOL_COLUMNS = (
    INSTANCE,
    plain("LIMIT", TMEM["mem_limit"]),
    Column("GOVERNED", TMEM["governed"].meaning, Kind.TEXT, governed),
    plain("USED", TMEM["mem_used_total"], ": PAYLOAD + OVERHEAD"),
    Column("FREE", "LIMIT - USED; 0 while the limit is below USED", Kind.SIZE, room),
    plain("PEAK", TMEM["mem_used_max"]),
    plain("PAYLOAD", TMEM["compr_data_size"]),
    Column(
        "OVERHEAD",
        "headers, rounding, and slabs that are not full",
        Kind.SIZE,
        lambda row: row.figures["mem_used_total"] - row.figures["compr_data_size"],
    ),
    plain("META", TMEM["metadata_size"]),
    plain("ORIG", TMEM["orig_data_size"], ": SAME + RAW + STAGED + PACKED"),
    Column("RATIO", "ORIG / USED", Kind.RATIO, ratio),
    in_bytes("SAME", TMEM["same_filled_pages"]),
    Column(
        "RAW",
        "pages that compression did not make smaller",
        Kind.SIZE,
        pages(TMEM["huge_pages"], minus=(TMEM["staged_pages"],)),
    ),
    in_bytes("STAGED", TMEM["staged_pages"]),
    Column(
        "PACKED",
        "pages that are compressed, at their full size",
        Kind.SIZE,
        pages(TMEM["stored_pages"], minus=(TMEM["same_filled_pages"], TMEM["huge_pages"])),
    ),
    Column(
        "IMAGES",
        "of USED, what is cached of disk images: it goes when swap needs the room",
        Kind.SIZE,
        lambda row: row.figures.get("ephemeral_bytes"),
    ),
    Column(
        "DEVICES",
        "devices that share the pool",
        Kind.COUNT,
        lambda row: row.figures.get("devices"),
    ),
    FROZEN,
    plain("PUTS", TMEM["puts"]),
    plain("REJECTS", TMEM["no_mem_puts"]),
    plain("GETS", TMEM["gets"]),
    plain("DAMAGED", TMEM["checksum_errors"]),
    plain("MOVED", DEVICE["written_back_pages"], OF_ALL),
    plain("MOVED-ROOM", DEVICE["written_back_room"], OF_ALL),
    plain("MOVED-IDLE", DEVICE["written_back_idle"], OF_ALL),
    plain("REFAULTS", DEVICE["refaults"], OF_ALL),
    plain("BACK", DEVICE["promoted_pages"], OF_ALL),
    plain("SAVED", TMEM["recompress_saved"]),
    STORE,
    plain("STOREREADS", REMOTE["remote_reads"]),
    plain("STOREMISSES", REMOTE["remote_misses"]),
    plain("STORELATE", REMOTE["remote_late"]),
    plain("STORESETS", REMOTE["remote_sets"]),
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
    "FROZEN",
)

AGE_COLUMNS = (
    INSTANCE,
    Column(
        "UNUSED",
        "the pages of a row were neither written nor read for so long, or longer",
        Kind.TEXT,
        lambda row: format_duration(row.figures["older_than"]),
    ),
    Column("PAGES", "how many they are", Kind.COUNT, lambda row: row.figures["pages"]),
    Column(
        "ORIG",
        "their size before compression",
        Kind.SIZE,
        lambda row: PAGE_SIZE * row.figures["pages"],
    ),
    Column(
        "MEMORY",
        "memory that they take, compressed and with their headers",
        Kind.SIZE,
        lambda row: row.figures["bytes"],
    ),
    Column("POOL%", "MEMORY, as a share of all that the pool takes", Kind.PERCENT, share),
)
AGE_DEFAULT = tuple(column.name for column in AGE_COLUMNS)

# What a second look can tell; only where there is one.
TIME = Column("TIME", "time of day", Kind.TEXT, clock)
DEVICE_RATES = (
    TIME,
    per_second("STORES/S", DEVICE["succ_stores"]),
    per_second("REJECTS/S", DEVICE["failed_stores"]),
    per_second("LOADS/S", DEVICE["loads"]),
    per_second("DISKR/S", DEVICE["disk_reads"]),
    per_second("DISKW/S", DEVICE["disk_writes"]),
    per_second("TRIMS/S", DEVICE["trims"]),
    per_second("MOVED/S", DEVICE["written_back_pages"]),
    per_second("REFAULTS/S", DEVICE["refaults"]),
    per_second("BACK/S", DEVICE["promoted_pages"]),
    per_second("READS/S", DEVICE["read_requests"]),
    per_second("WRITES/S", DEVICE["write_requests"]),
)
IMAGE_RATES = (
    TIME,
    per_second("HITS/S", IMAGE["hits"]),
    per_second("MISSES/S", IMAGE["misses"]),
    per_second("PUTS/S", IMAGE["puts"]),
    per_second("EVICTED/S", IMAGE["evicted"]),
    per_second("DISKR/S", IMAGE["disk_reads"]),
)
POOL_RATES = (
    TIME,
    per_second("PUTS/S", TMEM["puts"]),
    per_second("REJECTS/S", TMEM["no_mem_puts"]),
    per_second("GETS/S", TMEM["gets"]),
    per_second("DISKR/S", DEVICE["disk_reads"], " of any device"),
    per_second("DISKW/S", DEVICE["disk_writes"], " of any device"),
    per_second("MOVED/S", DEVICE["written_back_pages"], OF_ALL),
    per_second("REFAULTS/S", DEVICE["refaults"], OF_ALL),
    per_second("BACK/S", DEVICE["promoted_pages"], OF_ALL),
    per_second("STORER/S", REMOTE["remote_reads"]),
    per_second("STOREW/S", REMOTE["remote_sets"]),
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
    "MOVED/S",
    "REFAULTS/S",
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
    "MOVED/S",
    "REFAULTS/S",
    "HIT%",
)
