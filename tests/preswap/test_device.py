# SPDX-License-Identifier: BSD-3-Clause
"""The device's object: what it holds, and that its figures are all of the C's."""

import gc
import os
import re
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from bitarray import bitarray

from preswapd.errors import RefusedError
from preswapd.preswap import creation
from preswapd.preswap.device import _device
from tests.preswap.running import MIB, Running

SOURCES = Path(__file__).parents[2] / "preswapd" / "preswap" / "device"


def mappings_of(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_closed_device_holds_nothing(running: Running) -> None:
    device = running.open().devices["g1"]
    assert mappings_of(running.paths.map("g1")) == 1
    before = descriptors()
    device.close()
    device.close()
    assert mappings_of(running.paths.map("g1")) == 0
    assert descriptors() == before - 1


def test_dropped_device_holds_nothing(running: Running) -> None:
    running.open().create("more", MIB)
    before = descriptors()
    del running.instance.served["more"]
    running.instance.maintenance.errors.clear()
    gc.collect()
    assert mappings_of(running.paths.map("more")) == 0
    assert descriptors() == before - 1


def test_device_without_its_bitmap_holds_nothing(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = running.open()
    before = descriptors()
    monkeypatch.setattr(_device, "bitarray", lambda **arguments: object())
    with pytest.raises(TypeError, match="bytes-like"):
        instance.create("more", MIB)
    gc.collect()
    assert mappings_of(running.paths.map("more")) == 0
    assert descriptors() == before


def test_device_without_its_map_holds_nothing(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe cannot be mapped; the bitmap's buffer, which was exported before, is given back."""
    instance = running.open()
    made: list[ref[bitarray]] = []

    def make_bitmap(**arguments: Any) -> bitarray:
        bitmap = bitarray(**arguments)
        made.append(ref(bitmap))
        return bitmap

    monkeypatch.setattr(_device, "bitarray", make_bitmap)
    monkeypatch.setattr(creation, "open_map", lambda path: os.open("/dev/null", os.O_RDONLY))
    before = descriptors()
    with pytest.raises(RefusedError, match="the device more cannot be made"):
        instance.create("more", MIB)
    gc.collect()
    assert [bitmap() for bitmap in made] == [None]
    assert descriptors() == before


def fields(text: str, start: str, end: str) -> list[str]:
    """Names of the uint64_t between two marks, in order."""
    body = text.split(start, 1)[1].split(end, 1)[0]
    lists = re.findall(r"uint64_t ([\w, ]+)", body)
    return [name for names in lists for name in names.split(", ")]


def test_every_counter_is_told(running: Running) -> None:
    """Cython does not say when a field of the C struct is not declared."""
    header = (SOURCES / "device.h").read_text()
    declared = (SOURCES / "_device.pxd").read_text()
    in_c = fields(header, "struct device_counters {", "};")
    assert len(in_c) > 15
    assert fields(declared, '"struct device_counters":', "ctypedef") == in_c
    assert set(in_c) <= running.open().devices["g1"].stats().keys()
