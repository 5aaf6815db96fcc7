# SPDX-License-Identifier: BSD-3-Clause
"""Stores as docs/guides/store.md sets them up, with the server that is installed."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.ports import free_port
from tests.remote.courier.carried import STORED, RunningCourier, name_of, written
from tests.remote.secured import client_keys
from tests.remote.stores import StoreServer, needs_store
from tests.tls import Authority, needs_openssl

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


def test_user_of_the_guide(tmp_path: Path) -> None:
    """The store lets it do all that a courier does, also when nobody asks for pages."""
    [line] = re.findall("^ *(ACL SETUSER preswapd .*)$", GUIDE, re.MULTILINE)
    [password] = re.findall(">(\\S+)", line)
    with (
        StoreServer(tmp_path / "store", "--requirepass", PASSWORD) as store,
        store.client(password=PASSWORD) as client,
    ):
        client.execute_command(*line.split())
        url = store.url.replace("//", "//preswapd@")
        file = written(password, tmp_path)
        with RunningCourier(url, password_file=file, probe_s=0.2).ready() as courier:
            assert courier.set(name_of(1), b"x") == STORED
            assert courier.value(name_of(1)) == b"x"
            courier.delete(name_of(1))
            courier.wait_for(lambda _: len(courier.statuses) > 5, "statuses")
        # redis-py tells later stores its version: they may know that, or not.
        assert {entry["object"] for entry in client.acl_log()} <= {"client|setinfo"}


@needs_openssl
def test_tls_of_the_guide(tmp_path: Path) -> None:
    authority, port = Authority(tmp_path / "authority"), free_port()
    files = {path.name: path for path in authority.sign(tmp_path / "keys", "server").iterdir()}
    words: list[str] = []
    for name, value in map(str.split, block("", "port 0").splitlines()):
        of_tls = str(port) if name == "tls-port" else files.get(Path(value).name, value)
        words += [f"--{name}", str(of_tls)]
    with StoreServer(tmp_path / "store", *words, port=port):
        url, keys = f"rediss://localhost:{port}", client_keys(authority, tmp_path / "client")
        with RunningCourier(url, tls=keys).ready() as courier:
            assert courier.set(name_of(1), b"x") == STORED
