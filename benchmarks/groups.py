# SPDX-License-Identifier: BSD-3-Clause
"""Which loads are put on which servers.

The full product of servers, accesses, depths, contents and pools would take hours.  Left out, and
why:
  * depth 4 and other contents than 50 % run on five servers, the ones that anything is said of:
    reads do not depend on contents that fit, and the peers that do not compress not at all;
  * qemu-nbd, nbd-server, the file plugin and `null` have one configuration each: their speed
    is context, not a target;
  * pools without room to spare are written to only: a read does not know how full the pool is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.load import FILL, FILLED, INCOMPRESSIBLE, SWAP_READS, SWAP_WRITES, Load, pages
from benchmarks.servers import DISK, Server, classic, nbdkit, preswapd, qemu_nbd

LZ4, ZSTD, NONE = "preswapd lz4", "preswapd zstd", "preswapd none"
TIGHT = ", tight pool"
# The best configuration of nbdkit's memory plugin depends on the load: both are run.
MEMORY = ("nbdkit memory", "nbdkit memory -t 1")
MEMORY_ZSTD = "nbdkit memory zstd"
DIRECT = ("nbdkit file, cache=none", "qemu-nbd, O_DIRECT")

FEW = (*MEMORY, MEMORY_ZSTD, LZ4, ZSTD)
# 256 MiB of pages that halve take 136 MiB, headers and unfilled slabs included: so much, and
# hardly any room for pages that are not compressed yet.
TIGHT_POOL = "144M"
# The smallest there is, and filled with other pages before anything is measured.
NO_POOL = "4M"

SERVERS = (
    nbdkit("nbdkit null", "null", DISK),
    nbdkit(MEMORY[0], "memory", DISK),
    nbdkit(MEMORY[1], "memory", DISK, threads=1),
    nbdkit(MEMORY_ZSTD, "memory", DISK, "allocator=zstd"),
    nbdkit("nbdkit file, tmpfs", "file", "{folder}/disk"),
    qemu_nbd("qemu-nbd, tmpfs", "{folder}/disk"),
    classic("nbd-server, tmpfs", "{folder}/disk"),
    preswapd("lz4"),
    preswapd("zstd"),
    preswapd("none"),
)
TIGHT_SERVERS = (
    preswapd("lz4", TIGHT_POOL, note=TIGHT),
    preswapd("zstd", TIGHT_POOL, note=TIGHT),
)
DISK_SERVERS = (
    nbdkit(DIRECT[0], "file", "{disk}/disk", "cache=none"),
    qemu_nbd(DIRECT[1], "{disk}/disk", "--cache=none", "--aio=native"),
    nbdkit("nbdkit file, page cache", "file", "{disk}/disk"),
    preswapd("lz4", NO_POOL, note=", full pool"),
)

BIG = "--bs=128k"
READ_16 = pages("4 KiB random read, depth 16", "randread", 16)
WRITE_16 = pages("4 KiB random write, depth 16", "randwrite", 16)
READ_1 = pages("4 KiB random read, depth 1", "randread", 1)
WRITE_1 = pages("4 KiB random write, depth 1", "randwrite", 1)
READ_4 = pages("4 KiB random read, depth 4", "randread", 4)
WRITE_4 = pages("4 KiB random write, depth 4", "randwrite", 4)
SWAP_OUT = Load("128 KiB writes, depth 16", "randwrite", BIG, 16)
SWAP_IN = Load("4-32 KiB random reads, depth 16", "randread", f"--bssplit={SWAP_READS}", 16)
MIXED = Load(
    "mixed: 70 % reads of 4-32 KiB, 128 KiB writes",
    "randrw",
    f"--rwmixread=70 --bssplit={SWAP_READS},{SWAP_WRITES}",
    16,
)


@dataclass(frozen=True)
class Mix:
    """Loads, and the names of the servers that they are put on; all of the group's if none are."""

    loads: Sequence[Load]
    servers: Sequence[str] = ()


@dataclass(frozen=True)
class Group:
    """Servers that run beside each other, and the loads that are put on them in turn."""

    name: str
    title: str
    servers: Sequence[Server]
    mixes: Sequence[Mix]
    peers: Sequence[str]  # what ratios are to: the best of these in the same round
    # What the servers hold before the first round.
    fill: Load = FILL
    fresh: bool = False  # each round starts new servers, and each load runs once over its part
    awake: bool = False  # the machine's processors do not halt meanwhile


PLENTY = tuple(server.name for server in SERVERS)

WARM = Group(
    "warm",
    "every page was written before",
    (*SERVERS, *TIGHT_SERVERS),
    (
        Mix((READ_16, READ_1, WRITE_1, SWAP_IN, MIXED), PLENTY),
        Mix((WRITE_16, SWAP_OUT)),
        Mix((READ_4, WRITE_4), FEW),
    ),
    MEMORY,
)
AWAKE = Group(
    "awake",
    "the same, by processors that do not halt",
    tuple(server for server in SERVERS if server.name in (*FEW, NONE)),
    (Mix((READ_16, WRITE_16, READ_1, WRITE_1, SWAP_OUT)),),
    MEMORY,
    awake=True,
)
CONTENTS = Group(
    "contents",
    "other contents, every page was written before",
    tuple(server for server in SERVERS if server.name in FEW),
    tuple(
        Mix(
            (
                pages(f"4 KiB random write, depth 16, {content}", "randwrite", 16, content),
                Load(f"128 KiB writes, depth 16, {content}", "randwrite", BIG, 16, content),
            )
        )
        for content in ("0 %", "75 %", FILLED)
    ),
    MEMORY,
)
COLD = Group(
    "cold",
    "first touch: servers just started, each page written once",
    tuple(server for server in SERVERS if server.name in FEW),
    (
        Mix(
            (
                pages("first 4 KiB random writes, depth 16", "randwrite", 16),
                Load("first 128 KiB writes, depth 16", "write", BIG, 16, start="264m"),
            )
        ),
    ),
    MEMORY,
    fresh=True,
)
FULL = Group(
    "full",
    "a full pool: everything goes to disk",
    DISK_SERVERS,
    (
        Mix(
            (
                pages("4 KiB random read from disk, depth 16", "randread", 16),
                pages("4 KiB random write to disk, depth 16", "randwrite", 16, "0 %"),
                Load("128 KiB writes to disk, depth 16", "randwrite", BIG, 16, "0 %"),
            )
        ),
    ),
    DIRECT,
    # Pages that do not compress leave the small pool no room at all.
    fill=INCOMPRESSIBLE,
)
GROUPS = (WARM, AWAKE, CONTENTS, COLD, FULL)
