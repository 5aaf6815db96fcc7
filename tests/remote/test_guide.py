# SPDX-License-Identifier: BSD-3-Clause
"""Stores as docs/guides/store.md sets them up, with the server that is installed."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.remote.stores import StoreServer, needs_store

pytestmark = needs_store

GUIDE = (Path(__file__).parents[2] / "docs/guides/store.md").read_text()
PASSWORD = "A-LONG-RANDOM-WORD"


def block(kind: str, begin: str) -> str:
    """The one that begins so."""
    (found,) = re.findall(rf"^```{kind}\n({begin}.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    assert isinstance(found, str)
    return found


def of_compose() -> list[str]:
    """The words after the program's name, as an engine hands them over: each line is one."""
    (service,) = yaml.safe_load(block("yaml", "services:"))["services"].values()
    assert service.keys() == {"image", "command", "ports", "restart"}
    assert service["ports"] == ["10.0.0.1:6379:6379"]
    program, *words = map(str, service["command"])
    assert program == "valkey-server"
    return words


def of_the_file() -> list[str]:
    """The lines of a configuration file, but for where it listens."""
    lines = [shlex.split(line) for line in block("", "bind ").splitlines()]
    return [word for name, value in lines[2:] for word in (f"--{name}", value)]


@pytest.mark.parametrize("words", [of_compose(), of_the_file()], ids=["compose", "file"])
def test_store_of_the_guide(tmp_path: Path, words: list[str]) -> None:
    """It bounds itself, evicts, writes nothing to disk and wants the password."""
    with (
        StoreServer(tmp_path / "store", *words, saves=True) as store,
        store.client(password=PASSWORD) as client,
    ):
        wanted = {
            "maxmemory": str(8 << 30),
            "maxmemory-policy": "allkeys-lru",
            "save": "",
            "appendonly": "no",
            "requirepass": PASSWORD,
        }
        assert client.config_get(*wanted) == wanted
