# SPDX-License-Identifier: BSD-3-Clause
"""The statistics in Prometheus' text format, as Prometheus' own parser reads them."""

import re
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from preswapd.api.client import Client
from preswapd.api.exposition import LATENCY, escaped, exported, metric, metrics_text
from preswapd.api.figures import DEVICE, IMAGE, REMOTE, SERVER, TMEM, Statistics
from tests.running import RunningServer

# What dashboards and alerts of others may go by: these names stay.
PROMISED = [
    "preswapd_build_info",
    "preswapd_start_time_seconds",
    "preswapd_tls_refused_total",
    "preswapd_tmem_checksum_errors_total",
    "preswapd_tmem_compr_data_size_bytes",
    "preswapd_tmem_dup_puts_flushed_total",
    "preswapd_tmem_dup_puts_replaced_total",
    "preswapd_tmem_flushes_found_total",
    "preswapd_tmem_flushes_total",
    "preswapd_tmem_found_gets_total",
    "preswapd_tmem_frozen",
    "preswapd_tmem_governed",
    "preswapd_tmem_gets_total",
    "preswapd_tmem_good_puts_total",
    "preswapd_tmem_huge_pages",
    "preswapd_tmem_mem_limit_bytes",
    "preswapd_tmem_mem_used_max_bytes",
    "preswapd_tmem_mem_used_total_bytes",
    "preswapd_tmem_metadata_size_bytes",
    "preswapd_tmem_no_mem_puts_total",
    "preswapd_tmem_orig_data_size_bytes",
    "preswapd_tmem_pool_limit_hit_total",
    "preswapd_tmem_puts_total",
    "preswapd_tmem_reject_alloc_fail_total",
    "preswapd_tmem_recompress_saved_bytes_total",
    "preswapd_tmem_recompressed_pages_total",
    "preswapd_tmem_same_filled_pages",
    "preswapd_tmem_staged_pages",
    "preswapd_tmem_stored_pages",
    "preswapd_device_connections",
    "preswapd_device_disk_errors_total",
    "preswapd_device_disk_pages",
    "preswapd_device_disk_reads_total",
    "preswapd_device_disk_writes_total",
    "preswapd_device_failed_stores_total",
    "preswapd_device_fetch_errors_total",
    "preswapd_device_fetched_pages_total",
    "preswapd_device_held_pages",
    "preswapd_device_invalidates_total",
    "preswapd_device_loads_total",
    "preswapd_device_lost_pages",
    "preswapd_device_parked_bytes",
    "preswapd_device_pending_pages",
    "preswapd_device_preswap_pages",
    "preswapd_device_awaited",
    "preswapd_device_away_seconds",
    "preswapd_device_promoted_pages_total",
    "preswapd_device_quarantined",
    "preswapd_device_quota",
    "preswapd_device_quarantined_reads_total",
    "preswapd_device_read_requests_total",
    "preswapd_device_refaults_total",
    "preswapd_device_remote_reads_total",
    "preswapd_device_request_duration_seconds_bucket",
    "preswapd_device_request_duration_seconds_count",
    "preswapd_device_request_duration_seconds_sum",
    "preswapd_device_size_bytes",
    "preswapd_device_succ_stores_total",
    "preswapd_device_trims_total",
    "preswapd_device_unknown_pages",
    "preswapd_device_unknown_reads_total",
    "preswapd_device_write_requests_total",
    "preswapd_device_written_back_idle_total",
    "preswapd_device_written_back_pages_total",
    "preswapd_device_written_back_room_total",
]

PROMISED_OF_IMAGES = [
    "preswapd_image_cache_bytes",
    "preswapd_image_cached",
    "preswapd_image_cached_bytes",
    "preswapd_image_cached_pages",
    "preswapd_image_connections",
    "preswapd_image_direct",
    "preswapd_image_disk_errors_total",
    "preswapd_image_disk_reads_total",
    "preswapd_image_disk_writes_total",
    "preswapd_image_evicted_by_itself_total",
    "preswapd_image_evicted_total",
    "preswapd_image_hits_total",
    "preswapd_image_misses_total",
    "preswapd_image_puts_total",
    "preswapd_image_read_requests_total",
    "preswapd_image_reads_total",
    "preswapd_image_remote_away_total",
    "preswapd_image_remote_late_total",
    "preswapd_image_remote_misses_total",
    "preswapd_image_remote_reads_total",
    "preswapd_image_remote_sets_dropped_total",
    "preswapd_image_remote_sets_total",
    "preswapd_image_remote_wrong_total",
    "preswapd_image_replaced",
    "preswapd_image_served",
    "preswapd_image_shared",
    "preswapd_image_size_bytes",
    "preswapd_image_writable",
    "preswapd_image_write_requests_total",
    "preswapd_image_writes_total",
]

PROMISED_OF_REMOTE = [
    "preswapd_remote_away_total",
    "preswapd_remote_bytes",
    "preswapd_remote_courier_starts_total",
    "preswapd_remote_late_total",
    "preswapd_remote_misses_total",
    "preswapd_remote_nodes",
    "preswapd_remote_nodes_up",
    "preswapd_remote_open",
    "preswapd_remote_pages",
    "preswapd_remote_reads_total",
    "preswapd_remote_request_duration_seconds_bucket",
    "preswapd_remote_request_duration_seconds_count",
    "preswapd_remote_request_duration_seconds_sum",
    "preswapd_remote_sets_dropped_total",
    "preswapd_remote_sets_refused_total",
    "preswapd_remote_sets_total",
    "preswapd_remote_used",
    "preswapd_remote_wrong_total",
]

STATS: dict[str, Any] = {
    "version": "0.1.0",
    "instance": "vm1",
    "tmem": {"mem_limit": 4096, "puts": 7, "stored_pages": 3},
    "devices": {
        "g1": {"size": 65536, "trims": 1, "quarantined": True},
        "g2": {"size": 65536, "trims": 0, "quarantined": False},
    },
    "server": {"start_time": 1700000000.25},
}
OTHER = {**STATS, "instance": "vm2", "version": "0.2.0"}
LABEL = re.compile(r'(?:[^"\\\n]|\\[\\"n])*')


def text_of(*instances: dict[str, Any]) -> str:
    return metrics_text(*(cast(Statistics, stats) for stats in instances))


def parsed(text: str) -> dict[str, Metric]:
    """By family; the parser names counters without their `_total`."""
    found = list(text_string_to_metric_families(text))
    assert len({metric.name for metric in found}) == len(found), "a family comes twice"
    return {metric.name: metric for metric in found}


def values(metric: Metric) -> dict[tuple[str, ...], float]:
    return {tuple(sample.labels.values()): sample.value for sample in metric.samples}


def test_every_kind_of_figure() -> None:
    found = parsed(text_of(STATS))
    assert values(found["preswapd_tmem_puts"]) == {("vm1",): 7}
    assert values(found["preswapd_tmem_mem_limit_bytes"]) == {("vm1",): 4096}
    assert values(found["preswapd_tmem_stored_pages"]) == {("vm1",): 3}
    assert values(found["preswapd_device_trims"]) == {("vm1", "g1"): 1, ("vm1", "g2"): 0}
    assert values(found["preswapd_device_quarantined"]) == {("vm1", "g1"): 1, ("vm1", "g2"): 0}
    assert values(found["preswapd_build_info"]) == {("vm1", "0.1.0"): 1}
    assert values(found["preswapd_start_time_seconds"]) == {("vm1",): 1700000000.25}


def test_instances_share_families() -> None:
    found = parsed(text_of(STATS, OTHER))
    assert values(found["preswapd_tmem_puts"]) == {("vm1",): 7, ("vm2",): 7}
    assert len(found["preswapd_device_size_bytes"].samples) == 4


def test_an_older_server_says_less() -> None:
    assert text_of({**STATS, "server": {}, "devices": {}}).count("preswapd_device") == 0
    assert text_of() == ""


def test_a_real_server_follows_the_conventions(module_server: RunningServer) -> None:
    found = parsed(Client(module_server.control_socket).metrics())
    histogram = found.pop(LATENCY)
    assert histogram.type == "histogram"
    parts = {"preswapd": SERVER, "preswapd_tmem": TMEM, "preswapd_device": DEVICE}
    named = {metric(prefix, figure) for prefix, part in parts.items() for figure in exported(part)}
    families = {name.removesuffix("_total") for name in named}
    assert found.keys() == families | {"preswapd_build_info"}
    for name, one in found.items():
        assert one.documentation.endswith("."), name
        assert one.type in ("counter", "gauge")
        assert re.fullmatch(r"preswapd_[a-z_]+", name)
        exposed = {sample.name for sample in one.samples}
        assert exposed == {f"{name}_total" if one.type == "counter" else name}
        for sample in one.samples:
            assert sample.labels["instance"] == "default"
            assert ("device" in sample.labels) == name.startswith("preswapd_device_")


def test_promised_names_stay(module_server: RunningServer) -> None:
    text = Client(module_server.control_socket).metrics()
    exposed = {line.split("{")[0] for line in text.splitlines() if not line.startswith("#")}
    assert set(PROMISED) <= exposed
    own = {name for name in exposed if not name.startswith(LATENCY)}
    assert own <= set(PROMISED), "a name that is new: PROMISED is where it is promised to stay"


def test_promised_names_of_images_stay() -> None:
    figures = {**dict.fromkeys(IMAGE, 1), "latency": {}}
    text = text_of({**STATS, "images": {"base": figures}, "refused_images": {"late": "missing"}})
    exposed = {line.split("{")[0] for line in text.splitlines() if not line.startswith("#")}
    images = {name for name in exposed if name.startswith("preswapd_image")}
    assert images == set(PROMISED_OF_IMAGES)
    assert values(parsed(text)["preswapd_image_served"]) == {("vm1", "base"): 1, ("vm1", "late"): 0}


def test_promised_names_of_the_remote_tier_stay() -> None:
    latency = {"get": {"count": 1, "sum": 0.5, "buckets": [(0.002, 1)]}}
    text = text_of({**STATS, "remote": {**dict.fromkeys(REMOTE, 1), "latency": latency}})
    exposed = {line.split("{")[0] for line in text.splitlines() if not line.startswith("#")}
    assert {name for name in exposed if "_remote_" in name} == set(PROMISED_OF_REMOTE)
    assert values(parsed(text)["preswapd_remote_reads"]) == {("vm1",): 1}
    assert "remote" not in text_of(STATS)


def test_a_limit_that_is_not_there_has_no_sample() -> None:
    figures: dict[str, Any] = {**dict.fromkeys(IMAGE, 1), "latency": {}, "cache": None}
    text = text_of({**STATS, "images": {"base": figures}})
    assert "preswapd_image_cache_bytes" not in text
    assert "preswapd_image_cached_bytes" in text


def test_figures_for_developers_are_not_exported() -> None:
    hidden = {figure.key for figure in (*TMEM.values(), *DEVICE.values()) if figure.internal}
    assert hidden >= {"live_slot_bytes", "trim_requests"}
    figures = dict.fromkeys([*TMEM, *DEVICE], 1)
    text = text_of({**STATS, "tmem": figures, "devices": {"g1": {**figures, "latency": {}}}})
    assert not [key for key in hidden if f"_{key}" in text]


def test_histogram() -> None:
    """Cumulative, with an end at infinity, as histogram_quantile() needs it."""
    latency = {"count": 5, "sum": 0.5, "buckets": [(0.000001024, 1), (0.002, 4)]}
    devices = {"g1": {"latency": {"read": latency, "write": {**latency, "count": 0}}}}
    found = parsed(text_of({**STATS, "devices": devices}))[LATENCY]
    read = [sample for sample in found.samples if sample.labels["operation"] == "read"]
    assert [(sample.labels.get("le"), sample.value) for sample in read] == [
        ("1.024e-06", 1),
        ("0.002", 4),
        ("+Inf", 5),
        (None, 0.5),
        (None, 5),
    ]
    assert {sample.labels["device"] for sample in found.samples} == {"g1"}


@given(st.text())
def test_any_label_comes_back(text: str) -> None:
    assert LABEL.fullmatch(escaped(text))
    line = f'a{{b="{escaped(text)}"}} 1'
    # The parser ends a line where Python does, which is at more characters than Prometheus' own.
    if len(line.splitlines()) == 1:
        (metric,) = text_string_to_metric_families(line)
        assert metric.samples[0].labels == {"b": text}


@pytest.mark.parametrize(("text", "written"), [('"', r"\""), ("\\", r"\\"), ("\n", r"\n")])
def test_escapes(text: str, written: str) -> None:
    assert escaped(text) == written
