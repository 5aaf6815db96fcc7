# SPDX-License-Identifier: BSD-3-Clause
"""The statistics in Prometheus' text format."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from preswapd.api.figures import (
    COUNTER,
    DEVICE,
    GAUGE,
    IMAGE,
    REMOTE,
    SERVER,
    TMEM,
    Figure,
    Latency,
    Statistics,
)

Labels = dict[str, str]
Sample = tuple[Labels, float]

LATENCY = "preswapd_device_request_duration_seconds"
REMOTE_LATENCY = "preswapd_remote_request_duration_seconds"
IMAGE_LATENCY = "preswapd_image_request_duration_seconds"


def metrics_text(*instances: Statistics) -> str:
    """Of one server, or of several with each of them under its own label."""
    return "".join(f"{line}\n" for line in lines(instances))


def lines(instances: tuple[Statistics, ...]) -> Iterator[str]:
    labelled = [({"instance": stats["instance"]}, stats) for stats in instances]
    builds = [({**labels, "version": stats["version"]}, 1.0) for labels, stats in labelled]
    yield from family("preswapd_build_info", GAUGE, "The server's version.", builds)
    servers = [(labels, stats.get("server", {})) for labels, stats in labelled]
    yield from families("preswapd", SERVER, servers)
    pools = [(labels, stats["tmem"]) for labels, stats in labelled]
    yield from families("preswapd_tmem", TMEM, pools)
    devices = [
        ({**labels, "device": name}, figures)
        for labels, stats in labelled
        for name, figures in stats["devices"].items()
    ]
    yield from families("preswapd_device", DEVICE, devices)
    yield from histogram(LATENCY, sentence(DEVICE["latency"]), latencies(devices))
    yield from of_images(labelled)
    # Nothing where there is none.
    remote = [(labels, stats["remote"]) for labels, stats in labelled if "remote" in stats]
    yield from families("preswapd", REMOTE, remote)
    yield from histogram(REMOTE_LATENCY, sentence(REMOTE["latency"]), latencies(remote))


def of_images(labelled: list[tuple[Labels, Statistics]]) -> Iterator[str]:
    """Nothing where there are none."""
    images = [
        ({**labels, "image": name}, figures)
        for labels, stats in labelled
        for name, figures in stats.get("images", {}).items()
    ]
    refused = [
        {**labels, "image": name}
        for labels, stats in labelled
        for name in stats.get("refused_images", {})
    ]
    served = [*((labels, 1.0) for labels, _ in images), *((labels, 0.0) for labels in refused)]
    help = "Whether the image is served; else its clients are refused, and it is tried again."
    yield from family("preswapd_image_served", GAUGE, help, served)
    yield from families("preswapd_image", IMAGE, images)
    yield from histogram(IMAGE_LATENCY, sentence(IMAGE["latency"]), latencies(images))


def latencies(sources: Iterable[tuple[Labels, Mapping[str, Any]]]) -> list[tuple[Labels, Latency]]:
    return [
        ({**labels, "operation": operation}, latency)
        for labels, figures in sources
        for operation, latency in figures.get("latency", {}).items()
    ]


def families(
    prefix: str,
    figures: Mapping[str, Figure],
    sources: Iterable[tuple[Labels, Mapping[str, Any]]],
) -> Iterator[str]:
    for figure in exported(figures):
        values = [
            (labels, source[figure.key])
            for labels, source in sources
            if source.get(figure.key) is not None
        ]
        yield from family(metric(prefix, figure), figure.kind, sentence(figure), values)


def exported(figures: Mapping[str, Figure]) -> list[Figure]:
    """Those that are one number each, and promised."""
    return [
        figure
        for figure in figures.values()
        if figure.kind in (GAUGE, COUNTER) and not figure.internal
    ]


def metric(prefix: str, figure: Figure) -> str:
    unit = f"_{figure.unit}" if figure.unit and not figure.key.endswith(figure.unit) else ""
    return f"{prefix}_{figure.key}{unit}{'_total' if figure.kind == COUNTER else ''}"


def sentence(figure: Figure) -> str:
    return f"{figure.meaning[0].upper()}{figure.meaning[1:]}."


def histogram(name: str, help: str, values: list[tuple[Labels, Latency]]) -> Iterator[str]:
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


def sample(name: str, labels: Labels, value: float) -> str:
    written = ",".join(f'{label}="{escaped(text)}"' for label, text in labels.items())
    braces = f"{{{written}}}" if labels else ""
    return f"{name}{braces} {number(value)}"


def number(value: float) -> str:
    """Without a fraction where it has none; a flag is 0 or 1."""
    return str(int(value) if value == int(value) else value)


def escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
