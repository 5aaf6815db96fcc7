"""The statistics in Prometheus' text format."""

from collections.abc import Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]

# The figures with a promised meaning; further ones in the statistics are not exported.
TMEM_GAUGES = ("stored_pages", "same_filled_pages", "huge_pages", "staged_pages")
TMEM_BYTES = (
    "mem_limit",
    "mem_used_total",
    "mem_used_max",
    "orig_data_size",
    "compr_data_size",
    "metadata_size",
)
TMEM_COUNTERS = (
    "puts",
    "good_puts",
    "no_mem_puts",
    "dup_puts_replaced",
    "dup_puts_flushed",
    "gets",
    "found_gets",
    "flushes",
    "flushes_found",
    "pool_limit_hit",
    "reject_alloc_fail",
    "checksum_errors",
)
DEVICE_GAUGES = ("connections", "preswap_pages", "disk_pages", "lost_pages")
DEVICE_BYTES = ("size",)
DEVICE_COUNTERS = (
    "loads",
    "succ_stores",
    "failed_stores",
    "invalidates",
    "disk_reads",
    "disk_writes",
    "disk_errors",
    "trims",
    "written_back_pages",
    "read_requests",
    "write_requests",
)


def metrics_text(stats: Json) -> str:
    return "".join(f"{line}\n" for line in lines(stats))


def lines(stats: Json) -> Iterator[str]:
    instance = {"instance": stats["instance"]}
    yield from family(
        "preswapd_build_info", "gauge", [({**instance, "version": stats["version"]}, 1)]
    )
    pool = [(instance, stats["tmem"])]
    for name, kind, key in figures(TMEM_GAUGES, TMEM_BYTES, TMEM_COUNTERS):
        yield from family(f"preswapd_tmem_{name}", kind, samples(pool, key))
    devices = [
        ({**instance, "device": name}, counters) for name, counters in stats["devices"].items()
    ]
    for name, kind, key in figures(DEVICE_GAUGES, DEVICE_BYTES, DEVICE_COUNTERS):
        yield from family(f"preswapd_device_{name}", kind, samples(devices, key))


def figures(
    gauges: tuple[str, ...], sizes: tuple[str, ...], counters: tuple[str, ...]
) -> Iterator[tuple[str, str, str]]:
    """The metric's name, its type and the figure's name in the statistics."""
    yield from ((key, "gauge", key) for key in gauges)
    yield from ((f"{key}_bytes", "gauge", key) for key in sizes)
    yield from ((f"{key}_total", "counter", key) for key in counters)


def samples(
    sources: list[tuple[dict[str, str], Json]], key: str
) -> list[tuple[dict[str, str], float]]:
    return [(labels, source[key]) for labels, source in sources if key in source]


def family(name: str, kind: str, values: list[tuple[dict[str, str], float]]) -> Iterator[str]:
    """All samples of one metric; nothing where there are none."""
    if values:
        yield f"# TYPE {name} {kind}"
    for labels, value in values:
        written = ",".join(f'{label}="{escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{written}}} {value}"


def escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
