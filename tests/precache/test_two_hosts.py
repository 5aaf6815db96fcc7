# SPDX-License-Identifier: BSD-3-Clause
"""Two servers with an image of the same bytes, and one store: as hosts of a cluster are set up."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import connected
from tests.precache.conftest import SIZE
from tests.precache.running import MIB, content
from tests.remote.stores import StoreServer, needs_store
from tests.running import RunningServer, wait_for

pytestmark = needs_store

CONTENT = content(SIZE)
PAGES = -(-SIZE // PAGE)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreServer]:
    with StoreServer(tmp_path / "store") as server:
        yield server


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return new_key(tmp_path / "images.key")


def new_key(path: Path) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(os.urandom(32))
    return path


@contextmanager
def host(folder: Path, store: StoreServer, key: Path, *more: str) -> Iterator[RunningServer]:
    """With a copy of the image, and a key of its own for its devices."""
    folder.mkdir(exist_ok=True)
    path = folder / "base.raw"
    if not path.exists():
        path.write_bytes(CONTENT)
    options = [
        f"--image=base={path}",
        f"--remote-url=unix://{store.socket}",
        f"--remote-image-key-file={key}",
        "--remote-timeout=1s",  # nothing is late on a busy machine
        *more,
    ]
    with RunningServer(folder, {}, extra=options) as server:
        wait_for(lambda: is_ready(server), bool)
        yield server


def figures(server: RunningServer) -> Any:
    return server.json_stats()["images"]["base"]


def is_ready(server: RunningServer) -> bool:
    stats = server.json_stats()
    return bool(stats["images"]["base"]["shared"] and stats["remote"]["remote_nodes_up"])


def read_all(server: RunningServer) -> bytes:
    client = connected(server, "base")
    try:
        return b"".join(bytes(client.pread(min(MIB, SIZE - at), at)) for at in range(0, SIZE, MIB))
    finally:
        client.shutdown()


def test_the_second_host_reads_nothing_from_its_file(
    tmp_path: Path, store: StoreServer, key: Path
) -> None:
    with host(tmp_path / "one", store, key) as first:
        assert read_all(first) == CONTENT
        assert figures(first)["remote_sets"] == figures(first)["disk_reads"] == PAGES
        wait_for(lambda: store("DBSIZE"), lambda keys: keys == PAGES)
    with host(tmp_path / "two", store, key) as second:
        assert read_all(second) == CONTENT
        found = figures(second)
        assert (found["remote_reads"], found["disk_reads"]) == (PAGES, 0)
        assert "cached,shared" in second.ctl("images").stdout
    assert not any(store("GET", name) == CONTENT[:PAGE] for name in store("KEYS", "*"))


def test_max_is_for_pages_of_devices(tmp_path: Path, store: StoreServer, key: Path) -> None:
    """Those of images are other hosts' too: none of them takes one away."""
    with host(tmp_path / "one", store, key, "--remote-max=16K") as server:
        assert read_all(server) == CONTENT
        wait_for(lambda: store("DBSIZE"), lambda keys: keys == PAGES)
        assert server.json_stats()["remote"]["remote_bytes"] == 0


def test_another_key_is_a_miss(tmp_path: Path, store: StoreServer, key: Path) -> None:
    with host(tmp_path / "one", store, key) as first:
        assert read_all(first) == CONTENT
        wait_for(lambda: store("DBSIZE"), lambda keys: keys == PAGES)
    with host(tmp_path / "two", store, new_key(tmp_path / "other.key")) as second:
        assert read_all(second) == CONTENT
        assert figures(second)["remote_misses"] == figures(second)["disk_reads"] == PAGES


def test_a_restart_reads_no_digest_anew(tmp_path: Path, store: StoreServer, key: Path) -> None:
    with host(tmp_path / "one", store, key) as server:
        assert "is read for its digest" in server.log
        digest = figures(server)["digest"]
    sums = tmp_path / "one/state/base.sums"
    before = sums.stat().st_mtime_ns
    with host(tmp_path / "one", store, key) as server:
        assert figures(server)["digest"] == digest
        assert "is read for its digest" not in server.log
    assert sums.stat().st_mtime_ns == before


def test_without_its_key_images_are_served_and_not_shared(
    tmp_path: Path, store: StoreServer, key: Path
) -> None:
    shutil.move(key, tmp_path / "elsewhere")
    path = tmp_path / "base.raw"
    path.write_bytes(CONTENT)
    options = [f"--image=base={path}", f"--remote-url=unix://{store.socket}"]
    with RunningServer(tmp_path, {}, extra=[*options, f"--remote-image-key-file={key}"]) as server:
        assert read_all(server) == CONTENT
        assert not figures(server)["shared"]
        assert f"{key} is missing" in server.log
        assert store("DBSIZE") == 0
