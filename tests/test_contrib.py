"""Dashboard and alerts: they name metrics that exist, and are what Grafana and Prometheus read."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from preswapd.control.client import Client
from tests.running import RunningServer

CONTRIB = Path(__file__).parent.parent / "contrib"
DASHBOARD: dict[str, Any] = json.loads((CONTRIB / "grafana/preswapd.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((CONTRIB / "prometheus/alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]

DOCUMENTED = (CONTRIB.parent / "docs/watching.md").read_text()
METRIC = re.compile(r"\bpreswapd_\w+")
COUNTED = re.compile(r"(?:rate|increase)\((\w+)")
LABELS = {"instance", "exported_instance", "device", "file"}


@pytest.fixture(scope="module")
def metrics(module_server: RunningServer) -> dict[str, str]:
    """Every metric of a real server, and its type."""
    text = Client(module_server.control_socket).metrics()
    return {
        sample.name: metric.type
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
    }


def named(*texts: str) -> set[str]:
    return {name for text in texts for name in METRIC.findall(text)}


def test_dashboard_names_metrics_that_exist(metrics: dict[str, str]) -> None:
    lists = [variable["query"]["query"] for variable in list(VARIABLES.values())[1:]]
    assert len(named(*QUERIES)) > 20
    assert named(*QUERIES, *lists) <= metrics.keys()


def test_alerts_name_metrics_that_exist(metrics: dict[str, str]) -> None:
    used = named(*(rule["expr"] for rule in RULES))
    assert len(used) > 8
    assert used <= metrics.keys()


def test_rates_are_of_counters_and_counters_are_rates(metrics: dict[str, str]) -> None:
    for query in (*QUERIES, *(rule["expr"] for rule in RULES)):
        counters = {name for name in named(query) if metrics[name] in ("counter", "histogram")}
        assert set(COUNTED.findall(query)) == counters, query


def test_dashboard_has_what_grafana_needs() -> None:
    assert {"uid", "title", "schemaVersion", "time", "panels", "templating"} <= DASHBOARD.keys()
    assert list(VARIABLES) == ["datasource", "host", "preswapd", "device"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        assert panel["type"] in ("timeseries", "stat")
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted(set(letters)) != []


def test_dashboard_shows_only_what_was_chosen() -> None:
    for query in QUERIES:
        selectors = re.findall(r"\bpreswapd_(\w+)\{([^}]*)\}", query)
        assert len(selectors) == len(METRIC.findall(query)), query
        for name, selector in selectors:
            assert 'instance=~"$host",exported_instance=~"$preswapd"' in selector
            assert ('device=~"$device"' in selector) == name.startswith("device_")


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alerts_say_what_is_wrong_and_where(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description"}
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert "instance" in used <= LABELS
    assert ("device" in used) == ("preswapd_device_" in rule["expr"])
    assert rule["alert"] in DOCUMENTED
