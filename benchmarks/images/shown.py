# SPDX-License-Identifier: BSD-3-Clause
"""The tables of the section `images`."""

from collections.abc import Sequence

from benchmarks.images.misses import COMPARED, STATES, slower
from benchmarks.sections import Figures
from benchmarks.text import columns, mib


def table(figures: Figures) -> str:
    parts = [recording_table(figures)]
    parts += [boots_table(figures, state) for state in STATES]
    parts += [limited_table(figures), misses_table(figures), burst_table(figures)]
    return "\n\n".join(parts)


def recording_table(figures: Figures) -> str:
    seen = figures["recording"]
    rows = [
        ["reads", str(seen["reads"])],
        ["MiB that they ask for", mib(seen["bytes"])],
        ["MiB of different pages", mib(4096 * seen["pages"])],
        ["thinking, s", f"{seen['thinking']:.1f}"],
        ["the same, as it is replayed", f"{seen['thinking'] / figures['speed']:.1f}"],
    ]
    return columns("What one boot reads of its root disk", ("", ""), rows)


def boots_table(figures: Figures, state: str) -> str:
    title = {
        "cold": "Clients that boot at once, nothing in memory yet",
        "warm": "The same clients once more",
    }[state]
    return boots_rows(title, figures["boots"], state)


def limited_table(figures: Figures) -> str:
    limited = figures["limited"]
    if "missing" in limited:
        return f"No disk of so many requests a second: {limited['missing']}"
    title = f"Nothing in memory yet, a disk of {limited['requests']:,} requests a second"
    return boots_rows(title, limited["boots"], "cold")


def boots_rows(title: str, boots: Figures, state: str) -> str:
    rows: list[Sequence[str]] = []
    for clients, by_name in boots.items():
        for name, of_states in by_name.items():
            seen = of_states[state]
            memory = seen["memory"]
            rows.append(
                [
                    name,
                    clients,
                    f"{seen['seconds']:.2f}",
                    f"{seen['median']:.0f}",
                    f"{seen['p99']:.0f}",
                    mib(seen["disk"]),
                    mib(sum(memory.values())),
                    *(mib(memory[part]) for part in ("cache", "arena", "process")),
                ]
            )
    heads = ("", "clients", "s", "median us", "p99 us", "read MiB", "memory MiB")
    return columns(title, (*heads, "page cache", "arena", "process"), rows)


def misses_table(figures: Figures) -> str:
    rows = []
    for name, by_server in figures["misses"].items():
        for state, word in zip(STATES, ("misses", "hits"), strict=True):
            rates = [middle(by_server[who][state]) for who in COMPARED]
            ratio = slower(figures["misses"], name, state)
            rows.append([f"{name}, {word}", *(f"{rate:.0f}" for rate in rates), f"{ratio:.2f}"])
    title = "Requests a second; time: preswapd's for one, to nbdkit's"
    return columns(title, ("", *COMPARED, "time"), rows)


def middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def burst_table(figures: Figures) -> str:
    found = figures["burst"]
    rows = [
        [
            name,
            f"{one['seconds']:.2f}",
            mib(one["cached_before"]),
            mib(one["cached_after"]),
            *(str(one[count]) for count in ("stores", "rejected", "disk_writes")),
        ]
        for name, one in ((word, found[word]) for word in ("empty", "full"))
    ]
    title = (
        f"{mib(found['size'])} MiB are written to a swap device as fast as it takes them;"
        f" the pool, of {mib(found['pool'])} MiB, is empty, or full of an image's pages"
    )
    heads = ("", "s", "image MiB before", "after", "pages", "rejected", "to disk")
    return columns(title, heads, rows)
