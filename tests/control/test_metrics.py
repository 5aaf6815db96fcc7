"""The statistics in Prometheus' text format."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preswapd.control.metrics import escaped, metrics_text

STATS: dict[str, Any] = {
    "version": "0.1.0",
    "instance": "vm1",
    "tmem": {"mem_limit": 4096, "puts": 7, "stored_pages": 3},
    "devices": {"g1": {"size": 65536, "trims": 1}, "g2": {"size": 65536, "trims": 0}},
}
SAMPLE = re.compile(r'([a-z0-9_]+)\{((?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\} (\d+)')


def test_pool() -> None:
    assert 'preswapd_tmem_puts_total{instance="vm1"} 7\n' in metrics_text(STATS)


def test_sizes_are_bytes() -> None:
    assert 'preswapd_tmem_mem_limit_bytes{instance="vm1"} 4096\n' in metrics_text(STATS)


def test_devices_share_a_family() -> None:
    lines = metrics_text(STATS).splitlines()
    at = lines.index("# TYPE preswapd_device_trims_total counter")
    assert lines[at + 1 : at + 3] == [
        'preswapd_device_trims_total{instance="vm1",device="g1"} 1',
        'preswapd_device_trims_total{instance="vm1",device="g2"} 0',
    ]


def test_every_line_is_a_type_or_a_sample() -> None:
    for line in metrics_text(STATS).splitlines():
        assert line.startswith("# TYPE ") or SAMPLE.fullmatch(line), line


def test_no_family_comes_twice() -> None:
    types = [line for line in metrics_text(STATS).splitlines() if line.startswith("# TYPE")]
    assert len(types) == len({line.split()[2] for line in types})


def test_no_devices() -> None:
    assert "preswapd_device" not in metrics_text({**STATS, "devices": {}})


@given(st.text())
def test_any_label_stays_on_its_line(text: str) -> None:
    assert SAMPLE.fullmatch(f'a{{b="{escaped(text)}"}} 1')


@pytest.mark.parametrize(("text", "written"), [('"', r"\""), ("\\", r"\\"), ("\n", r"\n")])
def test_escapes(text: str, written: str) -> None:
    assert escaped(text) == written
