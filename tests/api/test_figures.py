# SPDX-License-Identifier: BSD-3-Clause
"""Every figure is written once: in the catalogue, which the C structs and the answers fit."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from preswapd.api.client import Client
from preswapd.api.figures import (
    BYTES,
    COUNTER,
    DEVICE,
    GAUGE,
    HISTOGRAM,
    SECONDS,
    SERVER,
    TEXT,
    TMEM,
    DeviceAnswer,
    DeviceFigures,
    Figure,
    Latency,
    ServerFigures,
    Statistics,
    TmemFigures,
    catalogue,
)
from tests.running import RunningServer

PACKAGE = Path(__file__).parents[2] / "preswapd"
HEADERS = "".join(path.read_text() for path in sorted(PACKAGE.rglob("*.h")))
STRUCTS = {"tmem_stats": TMEM, "device_counters": DEVICE}
# What Python adds to what the C code counts.
ADDED = {
    "tmem_stats": {"orig_data_size", "frozen", "governed"},
    "device_counters": {
        "size",
        "compress",
        "connections",
        "held_pages",
        "awaited",
        "parked",
        "away",
        "quarantined",
        "quarantined_reads",
        "stale_pages",
        "latency",
        "quota",
        "guest",
        "source",
    },
}
FIGURES = [*TMEM.values(), *DEVICE.values(), *SERVER.values()]


def fields_of(struct: str) -> set[str]:
    """The names of a C struct's fields, all of them uint64_t."""
    (body,) = re.findall(rf"^struct {struct} \{{(.*?)^\}};", HEADERS, re.M | re.S)
    bare = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
    lines = re.findall(r"uint64_t\s+([^;]+);", bare)
    assert len(lines) == bare.count(";"), f"struct {struct} has fields of another type"
    return {name.strip() for line in lines for name in line.split(",")}


@pytest.mark.parametrize("struct", STRUCTS)
def test_catalogue_has_what_the_c_code_counts(struct: str) -> None:
    fields, figures = fields_of(struct), STRUCTS[struct].keys()
    new, gone = fields - figures, figures - fields - ADDED[struct]
    assert not new, f"struct {struct} counts them, and preswapd/api/figures.py has no line for them"
    assert not gone, f"preswapd/api/figures.py has them, and struct {struct} does not count them"


def test_answer_has_what_the_catalogue_has(module_server: RunningServer) -> None:
    """A field that a Cython declaration forgets would be missing from the answer in silence."""
    stats = Client(module_server.control_socket).stats()
    check_keys(stats["tmem"], TMEM, "tmem")
    check_keys(stats["devices"]["g1"], DEVICE, "devices")
    # Only where there is a store.
    assert stats.keys() == Statistics.__annotations__.keys() - {"remote"}
    assert stats["server"].keys() >= ServerFigures.__annotations__.keys()


def check_keys(answer: Mapping[str, Any], figures: Mapping[str, Figure], part: str) -> None:
    missing, unknown = figures.keys() - answer.keys(), answer.keys() - figures.keys()
    assert not missing, f"{part}: the server does not send them (is there a Cython declaration?)"
    assert not unknown, f"{part}: preswapd/api/figures.py has no line for them"
    for figure in figures.values():
        value = answer[figure.key]
        number = isinstance(value, int | float)
        assert number == (figure.kind in (GAUGE, COUNTER)), f"{figure.key} is {value!r}"


def test_answer_of_one_device(module_server: RunningServer) -> None:
    client = Client(module_server.control_socket)
    device = client.device("g1")
    assert device.keys() == DeviceAnswer.__annotations__.keys()
    assert client.devices()["g1"].keys() == device.keys()
    for latency in device["latency"].values():
        assert latency.keys() == Latency.__annotations__.keys()


@pytest.mark.parametrize("part", [TmemFigures, DeviceFigures])
def test_every_field_says_what_it_is(part: type) -> None:
    assert catalogue(part).keys() == part.__annotations__.keys()


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.key)
def test_figure_reads_as_part_of_a_table(figure: Figure) -> None:
    """And as a sentence, once it has a capital letter and a full stop."""
    first, last = figure.meaning.split()[0], figure.meaning[-1]
    assert first == first.lower() or first == first.upper()
    assert last not in ".,;:"
    assert "|" not in figure.meaning
    assert figure.kind in (GAUGE, COUNTER, HISTOGRAM, TEXT)
    assert figure.unit in ("", BYTES, SECONDS)


def test_meanings_are_told_apart() -> None:
    for part in (TMEM, DEVICE):
        meanings = [figure.meaning for figure in part.values()]
        assert len(set(meanings)) == len(meanings)
