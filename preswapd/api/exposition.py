"""The statistics in Prometheus' text format."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Json = Mapping[str, Any]
Sample = tuple[dict[str, str], float]

GAUGE, COUNTER = "gauge", "counter"


class Figure(NamedTuple):
    """A figure of the statistics with a promised meaning; further ones are not exported."""

    key: str
    kind: str
    help: str
    unit: str = ""

    @property
    def name(self) -> str:
        unit = f"_{self.unit}" if self.unit else ""
        return f"{self.key}{unit}{'_total' if self.kind == COUNTER else ''}"


TMEM = (
    Figure("stored_pages", GAUGE, "Pages in the pool, same-filled ones included."),
    Figure("same_filled_pages", GAUGE, "Pages of one repeated value, stored without payload."),
    Figure("huge_pages", GAUGE, "Pages stored as they are, not or not yet compressed."),
    Figure("staged_pages", GAUGE, "Pages that compression has not come to yet."),
    Figure("mem_limit", GAUGE, "The most that the pool's memory may be.", "bytes"),
    Figure("mem_used_total", GAUGE, "Memory that the host has given to the pool.", "bytes"),
    Figure("mem_used_max", GAUGE, "Its peak since the server's start.", "bytes"),
    Figure("orig_data_size", GAUGE, "Pages in the pool at their full size.", "bytes"),
    Figure("compr_data_size", GAUGE, "What they were compressed to.", "bytes"),
    Figure("metadata_size", GAUGE, "Index and maps, on top of the pool's memory.", "bytes"),
    Figure("puts", COUNTER, "Pages offered to the pool."),
    Figure("good_puts", COUNTER, "Pages that the pool took."),
    Figure("no_mem_puts", COUNTER, "Pages that it rejected for want of memory."),
    Figure("dup_puts_replaced", COUNTER, "Puts that replaced a page."),
    Figure(
        "dup_puts_flushed", COUNTER, "Rejected puts that dropped the page they were to replace."
    ),
    Figure("gets", COUNTER, "Pages asked for."),
    Figure("found_gets", COUNTER, "Pages asked for that were there."),
    Figure("flushes", COUNTER, "Pages to be dropped."),
    Figure("flushes_found", COUNTER, "Pages to be dropped that were there."),
    Figure("pool_limit_hit", COUNTER, "Puts rejected at the pool's limit."),
    Figure("reject_alloc_fail", COUNTER, "Puts rejected because the host had no more memory."),
    Figure("checksum_errors", COUNTER, "Reads of a damaged or lost page."),
)
DEVICE = (
    Figure("connections", GAUGE, "NBD clients."),
    Figure("preswap_pages", GAUGE, "Pages in tmem."),
    Figure("disk_pages", GAUGE, "Pages in the disk file."),
    Figure("lost_pages", GAUGE, "Damaged pages, I/O errors until they are written or trimmed."),
    Figure("quarantined", GAUGE, "1 if reads fail until a freshly booted guest uses the device."),
    Figure("size", GAUGE, "Size of the disk.", "bytes"),
    Figure("loads", COUNTER, "Pages read from tmem."),
    Figure("succ_stores", COUNTER, "Pages written to tmem."),
    Figure("failed_stores", COUNTER, "Pages that tmem rejected and that went to disk."),
    Figure("invalidates", COUNTER, "Pages dropped from tmem by a trim or a write of zeroes."),
    Figure("quarantined_reads", COUNTER, "Reads that failed because the device is quarantined."),
    Figure("disk_reads", COUNTER, "Pages read from the disk file."),
    Figure("disk_writes", COUNTER, "Pages written to the disk file."),
    Figure("disk_errors", COUNTER, "Reads and writes of the disk file that failed."),
    Figure("trims", COUNTER, "Pages trimmed."),
    Figure("written_back_pages", COUNTER, "Pages that a shrink moved to disk."),
    Figure("read_requests", COUNTER, "NBD read requests."),
    Figure("write_requests", COUNTER, "NBD write requests."),
)
LATENCY = "preswapd_device_request_duration_seconds"
START = Figure("start_time", GAUGE, "When the server started, since 1970.", "seconds")


def metrics_text(*instances: Json) -> str:
    """Of one server, or of several with each of them under its own label."""
    return "".join(f"{line}\n" for line in lines(instances))


def lines(instances: tuple[Json, ...]) -> Iterator[str]:
    labelled = [({"instance": stats["instance"]}, stats) for stats in instances]
    builds = [({**labels, "version": stats["version"]}, 1.0) for labels, stats in labelled]
    yield from family("preswapd_build_info", GAUGE, "The server's version.", builds)
    servers = [(labels, stats.get("server", {})) for labels, stats in labelled]
    yield from families("preswapd", (START,), servers)
    pools = [(labels, stats["tmem"]) for labels, stats in labelled]
    yield from families("preswapd_tmem", TMEM, pools)
    devices = [
        ({**labels, "device": name}, counters)
        for labels, stats in labelled
        for name, counters in stats["devices"].items()
    ]
    yield from families("preswapd_device", DEVICE, devices)
    yield from histogram(
        LATENCY,
        "How long requests took, the socket left out.",
        [
            ({**labels, "operation": operation}, latency)
            for labels, counters in devices
            for operation, latency in counters.get("latency", {}).items()
        ],
    )


def families(
    prefix: str, figures: tuple[Figure, ...], sources: list[tuple[dict[str, str], Json]]
) -> Iterator[str]:
    for figure in figures:
        values = [
            (labels, source[figure.key]) for labels, source in sources if figure.key in source
        ]
        yield from family(f"{prefix}_{figure.name}", figure.kind, figure.help, values)


def histogram(name: str, help: str, values: list[tuple[dict[str, str], Json]]) -> Iterator[str]:
    if values:
        yield f"# HELP {name} {help}"
        yield f"# TYPE {name} histogram"
    for labels, latency in values:
        for end, count in latency["buckets"]:
            yield sample(f"{name}_bucket", {**labels, "le": number(end)}, count)
        yield sample(f"{name}_bucket", {**labels, "le": "+Inf"}, latency["count"])
        yield sample(f"{name}_sum", labels, latency["sum"])
        yield sample(f"{name}_count", labels, latency["count"])


def family(name: str, kind: str, help: str, values: list[Sample]) -> Iterator[str]:
    """All samples of one metric; nothing where there are none."""
    if values:
        yield f"# HELP {name} {help}"
        yield f"# TYPE {name} {kind}"
    for labels, value in values:
        yield sample(name, labels, value)


def sample(name: str, labels: dict[str, str], value: float) -> str:
    written = ",".join(f'{label}="{escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{written}}} {number(value)}"


def number(value: float) -> str:
    """Of a flag too, 0 or 1."""
    return str(int(value) if value == int(value) else value)


def escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
