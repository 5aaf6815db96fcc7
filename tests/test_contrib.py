# SPDX-License-Identifier: BSD-3-Clause
"""Dashboard and alerts: they name metrics that exist, and are what Grafana and Prometheus read."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from enum import Enum
from itertools import combinations
from pathlib import Path
from typing import Any, get_args, get_type_hints

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from preswapd.api.client import Client
from preswapd.api.governor import governor_text
from preswapd.govern.config import Config
from preswapd.govern.policy import Rules
from preswapd.govern.readings import Host, Instances
from preswapd.govern.run import Governor
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
# What Grafana puts in before Prometheus sees it.
INTERVAL = re.compile(r"\$__(?:rate_interval|range)\b")
COUNTED = re.compile(r"(?:rate|increase)\((\w+)")
LABELS = {"instance", "exported_instance", "device", "image", "file"}


@pytest.fixture(scope="module")
def with_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    base = folder / "base.raw"
    base.write_bytes(bytes(1 << 20))
    extra = [f"--image=base={base}", "--remote-url=redis://127.0.0.1:9"]
    with RunningServer(folder, extra=extra) as server:
        yield server


@pytest.fixture(scope="module")
def metrics(with_all: RunningServer) -> dict[str, str]:
    """Every metric of a real server, and its type."""
    governor = Governor(
        Config(Rules(1 << 30), ()),
        Host(),
        Instances(with_all.runtime_dir.parent, Host().available),
        silent,
    )
    governor.turn()
    governor.instances.threads.shutdown()
    text = Client(with_all.control_socket).metrics() + governor_text(governor.status())
    return {
        sample.name: metric.type
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
    }


def silent(priority: int, text: str) -> None:
    pass


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


def test_pages_of_images_in_the_store_are_watched(metrics: dict[str, str]) -> None:
    """Figures of the store itself count devices' pages alone, but for what was set."""
    theirs = {name for name in metrics if name.startswith("preswapd_image_remote_")}
    assert len(theirs) == 7
    assert theirs <= named(*QUERIES)
    late_and_wrong = {f"preswapd_image_remote_{what}_total" for what in ("late", "wrong")}
    assert late_and_wrong <= named(*(rule["expr"] for rule in RULES))


@pytest.mark.parametrize("query", [*QUERIES, *(rule["expr"] for rule in RULES)])
def test_queries_are_promql(query: str) -> None:
    promql_parser.parse(INTERVAL.sub("5m", query))


@pytest.mark.parametrize("query", ["rate(preswapd_x)", "sum(preswapd_x", "ratee(preswapd_x[5m])"])
def test_what_is_no_promql_is_noticed(query: str) -> None:
    with pytest.raises(ValueError, match=r"expected|unclosed|unknown"):
        promql_parser.parse(query)


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


def test_dashboard_is_what_grafanas_schema_has() -> None:
    """Grafana's own models lose a field that they do not know on the way there and back."""
    register_default_plugins()
    assert differences(DASHBOARD) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda d: d.update(timezon="utc"), "/timezon is unknown"),
        (lambda d: d["panels"][1].update(tilte="x"), "/panels[1]/tilte is unknown"),
        (lambda d: d["panels"][1]["options"].update(colour=1), "/panels[1]/options/colour"),
        (lambda d: custom_of(d).update(fillOpacity="8"), "fill_opacity is not"),
        (lambda d: custom_of(d).update(showPoints="now"), "show_points is not"),
        (lambda d: d["panels"][1]["targets"][0].update(exrp="up"), "/exrp is unknown"),
        (lambda d: d["panels"][1]["gridPos"].update(w="4"), "w is not"),
    ],
    ids=["field", "panel", "option", "type", "choice", "query", "place"],
)
def test_schema_finds_mistakes(change: Callable[[dict[str, Any]], None], found: str) -> None:
    register_default_plugins()
    dashboard = copy.deepcopy(DASHBOARD)
    change(dashboard)
    assert any(found in difference for difference in differences(dashboard))


def custom_of(dashboard: dict[str, Any]) -> dict[str, Any]:
    panel = next(panel for panel in dashboard["panels"] if panel["type"] == "timeseries")
    custom: dict[str, Any] = panel["fieldConfig"]["defaults"]["custom"]
    return custom


def differences(dashboard: dict[str, Any]) -> list[str]:
    """Where it is not as Grafana's models have it: unknown fields, values of wrong types."""
    read = Dashboard.from_json(copy.deepcopy(dashboard))
    written = json.loads(JSONEncoder().encode(read))
    return [*unknown(dashboard, written, ""), *mistyped(read)]


def unknown(found: object, known: object, path: str) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(known, dict):
        for key, value in found.items():
            if key in known:
                yield from unknown(value, known[key], f"{path}/{key}")
            elif value is not None:
                yield f"{path}/{key} is unknown"
    elif isinstance(found, list) and isinstance(known, list) and len(found) == len(known):
        for number, (one, other) in enumerate(zip(found, known, strict=True)):
            yield from unknown(one, other, f"{path}[{number}]")
    elif found != known:
        yield f"{path} is {found!r} and not {known!r}"


def mistyped(value: object) -> Iterator[str]:
    """Attributes of the models that are not of their declared types."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from mistyped(item)
    elif type(value).__module__.startswith("grafana_foundation_sdk.models"):
        for name, expected in get_type_hints(type(value)).items():
            attribute = getattr(value, name)
            if not fits(attribute, expected):
                yield f"{type(value).__name__}: {name} is not {expected}: {attribute!r}"
            yield from mistyped(attribute)


def fits(value: object, expected: Any) -> bool:
    """Choices are declared as enumerations, and read as their values."""
    kinds = (expected, *get_args(expected))
    choices = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum)]
    if choices and value is not None:
        return any(value in [choice.value for choice in kind] for kind in choices)
    try:
        check_type(value, expected, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError:
        return False
    return True


def test_dashboard_shows_only_what_was_chosen() -> None:
    for query in QUERIES:
        selectors = re.findall(r"\bpreswapd_(\w+)\{([^}]*)\}", query)
        assert len(selectors) == len(METRIC.findall(query)), query
        for name, selector in selectors:
            if name.startswith("governor_") and not name.startswith("governor_instance_"):
                # One for a host.
                assert selector == 'instance=~"$host"'
                continue
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
    assert ("image" in used) == ("preswapd_image_" in rule["expr"])
    assert rule["alert"] in DOCUMENTED


def test_image_is_made_of_what_the_package_is_called() -> None:
    """And of a base that no registry is named for: each engine has its own."""
    lines = (CONTRIB / "container/Containerfile").read_text()
    (copied,) = re.findall(r"^COPY (\S+)", lines, re.M)
    assert Path("dist/preswapd_0.1.0+deb12_amd64.deb").match(copied)
    (base,) = re.findall(r"^ARG BASE=(\S+)", lines, re.M)
    assert "/" not in base
    guide = (CONTRIB.parent / "docs/guides/containers.md").read_text()
    assert "podman build -f contrib/container/Containerfile " in guide
    # The guide's options follow it.
    assert re.search(r'^ENTRYPOINT \["preswapd", "serve"\]$', lines, re.M)
    assert re.search(r"^  preswapd --instance vm1 ", guide, re.M)
