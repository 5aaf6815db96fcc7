# SPDX-License-Identifier: BSD-3-Clause
"""Section `memory`: what the host pays beside the compressed bytes, and what comes back.

Each kind of pages is stored, then a random half of them is trimmed over NBD, one by one, and the
pool is watched for ten seconds.
"""

from dataclasses import replace
from pathlib import Path

from benchmarks import storing
from benchmarks.capture import captured
from benchmarks.load import FILL, run
from benchmarks.sections import Figures, Progress
from benchmarks.servers import Server, preswapd, running
from benchmarks.text import columns, mib
from preswapd.units import PAGE_SIZE

# docs/arena-format.md: in front of each stored page, same-filled ones too.
HEADER = 32
WATCHED_SECONDS = 10.0
# A device with as many pages as are stored, and the first MiB, which stays empty.
SYNTHETIC = 256 << 20
QUICK = 16 << 20
COMPRESS = "lz4"


def measure(progress: Progress, quick: bool) -> Figures:
    file, _ = captured(quick, progress)
    size = QUICK if quick else SYNTHETIC
    progress("a server with nothing in it")
    with running(server(size)) as serving:
        idle = {"resident": serving.resident(), "tmem": serving.tmem()}
    loaded = {}
    for name, kind in (("synthetic, 50 %", None), ("real", file)):
        progress(f"storing pages: {name}")
        loaded[name] = stored(kind, size)
    return {"idle": idle, "loaded": loaded}


def server(size: int) -> Server:
    return preswapd(COMPRESS, size=str(size + 2 * storing.START))


def stored(file: Path | None, size: int) -> Figures:
    """The file's pages, or so many bytes of fio's."""
    size = file.stat().st_size if file else size
    with running(server(size)) as serving:
        if file:
            storing.write(serving, file)
        else:
            run(serving, replace(FILL, start=str(storing.START)), None, str(size))
        tmem = storing.at_rest(serving)
        resident = serving.resident()
        freed = storing.free_half(serving, size // PAGE_SIZE)
        seen = storing.watch(serving, WATCHED_SECONDS, used_to_live)
        return {
            "tmem": tmem,
            "resident": resident,
            "metadata_per_page": metadata_per_page(tmem),
            "freed_pages": freed,
            "after_freeing": {"used_to_live": seen, "tmem": serving.tmem()},
        }


def metadata_per_page(tmem: dict[str, int]) -> float:
    """Bytes, the headers that lie among the pages included."""
    return tmem["metadata_size"] / max(tmem["stored_pages"], 1) + HEADER


def used_to_live(tmem: dict[str, int]) -> float:
    """Memory of the pool for each byte that pages were compressed to."""
    return tmem["mem_used_total"] / max(tmem["compr_data_size"], 1)


def table(figures: Figures) -> str:
    parts = [pool(figures), freeing(figures), residents(figures)]
    return "\n\n".join(parts)


def pool(figures: Figures) -> str:
    """From the compressed bytes to all that the host gives, and what each step adds."""
    heads = ("", "compressed MiB", "slots", "pool", "all", "metadata B/page")
    rows = []
    for name, one in figures["loaded"].items():
        tmem = one["tmem"]
        payload, slots = tmem["compr_data_size"], tmem["live_slot_bytes"]
        used = tmem["mem_used_total"]
        added = [slots / payload, used / slots, (used + tmem["metadata_size"]) / used]
        rows.append(
            [
                name,
                mib(payload),
                *(f"+{100 * (step - 1):.1f} %" for step in added),
                f"{one['metadata_per_page']:.1f}",
            ]
        )
    title = (
        "What comes on top of compressed bytes: headers and rounding (slots), slabs that are not"
        " full (pool), index and maps (all)"
    )
    return columns(title, heads, rows)


def freeing(figures: Figures) -> str:
    heads = ("", "before", "at once", "after 1 s", "3 s", "10 s")
    rows = []
    for name, one in figures["loaded"].items():
        seen = one["after_freeing"]["used_to_live"]
        after = [at_time(seen, seconds) for seconds in (0, 1, 3, WATCHED_SECONDS)]
        rows.append([name, *(f"{ratio:.3f}" for ratio in (used_to_live(one["tmem"]), *after))])
    return columns("Pool for each compressed byte, when a random half is freed", heads, rows)


def at_time(seen: list[tuple[float, float]], seconds: float) -> float:
    """The first figure from then on, or the last one."""
    return next((figure for when, figure in seen if when >= seconds), seen[-1][1])


def residents(figures: Figures) -> str:
    named = {"idle": figures["idle"]["resident"]}
    named |= {name: one["resident"] for name, one in figures["loaded"].items()}
    parts = ("all", "private", "files", "shared")
    rows = [[name, *(mib(one[part]) for part in parts)] for name, one in named.items()]
    return columns("Resident memory of the server, MiB; shared is the pool", ("", *parts), rows)
