# SPDX-License-Identifier: BSD-3-Clause
"""What is said of the remote tier, from what a courier has said."""

import json
import re
import socket
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from preswapd.remote.settings import StoreSettings
from preswapd.remote.tier import CLIENT, Tier, lacking_client, parsed
from tests.remote.played import Played
from tests.running import wait_for

ROOT = Path(__file__).parents[2]


class Said(Tier):
    """One whose courier says what the test wants it to."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[str] = []
        settings = StoreSettings("redis://h", folder / "key")
        super().__init__(settings, "python3", lambda priority, text: self.lines.append(text))

    def say(self, **store: Any) -> None:
        self.courier_said = json.dumps(store).encode()
        self.look()

    def read(self) -> None:
        self.store = parsed(self.courier_said)


@pytest.fixture
def tier(tmp_path: Path) -> Said:
    return Said(tmp_path)


def test_log_tells_of_changes_and_not_again_and_again(tier: Said) -> None:
    tier.say()
    assert tier.lines == []
    for _ in range(3):
        tier.say(state="ok", nodes=[{"up": True}])
    assert tier.lines == ["the store of the remote tier answers: redis://h"]
    # It comes and goes: a complaint in a minute.
    for _ in range(3):
        tier.say(state="away", error="Connection refused", nodes=[{"up": False}])
        tier.say(state="ok", nodes=[{"up": True}])
    assert tier.lines[1:] == [
        "the store of the remote tier is away, Connection refused: pages come from disk",
        "the store of the remote tier answers: redis://h",
    ]


def test_log_waits_for_a_reason(tier: Said) -> None:
    """A courier that has just begun has none: a complaint about that would stand before the one."""
    tier.say(state="away", error=None, nodes=[{"up": False}])
    assert tier.lines == []
    tier.say(state="away", error="NOAUTH", nodes=[{"up": False}])
    assert tier.lines == ["the store of the remote tier is away, NOAUTH: pages come from disk"]


def test_log_tells_of_another_reason(tier: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a store comes back with another password; not of another number."""
    monkeypatch.setattr(tier.complaints, "passes", lambda: True)
    for milliseconds in (12.5, 7, 10.25):
        tier.say(state="away", error=f"it answers after {milliseconds} ms")
    tier.say(state="away", error="NOAUTH")
    assert tier.lines == [
        "the store of the remote tier is away, it answers after 12.5 ms: pages come from disk",
        "the store of the remote tier is away, NOAUTH: pages come from disk",
    ]


def test_nodes_are_counted(tier: Said) -> None:
    tier.say(state="partly", nodes=[{"up": True}, {"up": False}, {"up": True}])
    figures = tier.figures()
    assert (figures["remote_nodes"], figures["remote_nodes_up"]) == (3, 2)
    status = tier.status()
    assert status.store is not None
    assert status.store["state"] == "partly"


@pytest.mark.parametrize(
    "said", [b"", b"{", b"7", b'"x"', b'{"nodes": 7}', b'{"nodes": [7]}', b"[" * 5000, b"\xff"]
)
def test_what_no_courier_says_is_nothing(tier: Said, said: bytes) -> None:
    tier.courier_said = said
    tier.look()
    assert tier.figures()["remote_nodes"] == 0
    assert tier.status().store is None


def test_what_a_courier_has_said_goes_with_it(tmp_path: Path) -> None:
    """None comes, say, as a file of TLS is not there any more: that is no store that is well."""
    tier = Tier(StoreSettings("redis://h", tmp_path / "key"), "python3", lambda *_: None)
    assert tier.remote is not None
    with Played(tier.remote) as courier:
        courier.say(state="ok", nodes=[{"up": True}])
        wait_for(lambda: tier.figures()["remote_nodes_up"], lambda up: up == 1)
        courier.far.shutdown(socket.SHUT_RDWR)
        wait_for(lambda: tier.figures()["remote_nodes_up"], lambda up: up == 0)
        assert tier.status().store is None
    assert tier.figures()["remote_nodes"] == 0


def test_what_a_store_says_moves_no_terminal(tier: Said) -> None:
    """Errors, versions and names of nodes come from there, and are logged and shown."""
    tier.say(state="away", error="no\x1b[2J", nodes=[{"up": False, "address": "\x1b]0;h\x07:1"}])
    assert tier.lines == ["the store of the remote tier is away, no?[2J: pages come from disk"]
    store = tier.status().store
    assert store is not None
    assert store["nodes"][0]["address"] == "?]0;h?:1"


def test_oldest_client_is_the_one_that_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["optional-dependencies"]["remote"]
    for name, oldest in CLIENT.items():
        least = ".".join(map(str, oldest))
        assert any(re.match(rf"{name}(\[\w+\])? >= {least},", line) for line in asked)


@pytest.mark.parametrize(
    ("redis", "hiredis", "lacking"),
    [
        ("7.0.0", "3.2.0", None),
        ("8.1", "3.10.1", None),
        ("4.3.4", "3.2.0", "the store's client is too old (redis 4.3.4, 7 or newer will do)"),
        ("7.1.0", "2.0.0", "the store's client is too old (hiredis 2.0.0, 3.2 or newer will do)"),
        ("7.1.0", None, "the store's client is not installed (hiredis)"),
    ],
)
def test_client_that_will_not_do_is_named(
    redis: str, hiredis: str | None, lacking: str | None
) -> None:
    """A distribution's own is found, too, where the packages of the system are seen."""

    def version(name: str) -> str:
        found = {"redis": redis, "hiredis": hiredis}[name]
        if found is None:
            raise PackageNotFoundError(name)
        return found

    assert lacking_client(version) == lacking
