# SPDX-License-Identifier: BSD-3-Clause
"""Hosts share the pages of an image: what one has read another gets, and never anything else."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preswapd.precache.digests import HEAD
from preswapd.precache.settings import SECOND_READ
from preswapd.remote._remote import DIGEST_BYTES, KEY_BYTES
from preswapd.units import PAGE_SIZE as PAGE
from tests.faults.remote_replies import FAULTS, Liar
from tests.precache.conftest import SIZE
from tests.precache.running import MIB, content, read
from tests.precache.sharing import SharingHost, sharing_host
from tests.remote.played import Get, Store
from tests.running import wait_for

CONTENT = content(SIZE)
PAGES = -(-SIZE // PAGE)
SEAL, NONCE = 19, 12


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def other(path: Path) -> Path:
    """The same image on another host."""
    folder = path.parent / "other"
    folder.mkdir()
    return Path(shutil.copy(path, folder / path.name))


def read_all(host: SharingHost) -> bytes:
    client = host.image.connect()
    return b"".join(read(client, at, min(MIB, SIZE - at)) for at in range(0, SIZE, MIB))


def fill(path: Path, store: Store, **said: Any) -> None:
    """A host reads all of it, and everything is in the store."""
    with sharing_host(path, store, **said) as host:
        assert read_all(host) == path.read_bytes()
        host.settle_sets()


# --- what is shared ---


def test_what_one_has_read_another_does_not_read_from_its_file(
    path: Path, other: Path, store: Store
) -> None:
    fill(path, store)
    assert len(store) == PAGES
    with sharing_host(other, store) as host:
        assert read_all(host) == CONTENT
        assert host.stats["disk_reads"] == host.stats["remote_sets"] == 0
        assert host.stats["remote_reads"] == host.stats["puts"] == PAGES
        assert read_all(host) == CONTENT
        assert (host.stats["hits"], host.stats["remote_reads"]) == (PAGES, PAGES)


def test_what_the_store_lacks_comes_from_the_file_and_is_set(
    path: Path, other: Path, store: Store
) -> None:
    fill(path, store)
    for name in random.Random(3).sample(sorted(store), 200):
        del store[name]
    with sharing_host(other, store) as host:
        assert read_all(host) == CONTENT
        figures = host.stats
        assert figures["remote_misses"] == figures["disk_reads"] == figures["remote_sets"] == 200
        assert figures["remote_reads"] == PAGES - 200
        host.settle_sets()
    assert len(store) == PAGES


def test_a_run_is_asked_for_at_once(path: Path, store: Store) -> None:
    with sharing_host(path, store) as host:
        read(host.image.connect(), 0, 64 * PAGE)
        assert host.courier.gets == 2  # 32 names in each


def test_a_read_of_many_runs_waits_once(path: Path, store: Store) -> None:
    fill(path, store)
    with sharing_host(path, store, timeout_ms=50) as host:
        host.courier.on_get = lambda get: b""
        assert read(host.image.connect(), 0, 256 * PAGE) == CONTENT[: 256 * PAGE]
        assert host.stats["remote_late"] == 64


def test_two_hosts_set_the_same_and_no_nonce_serves_two_contents(
    path: Path, other: Path, store: Store
) -> None:
    second, third = Store(), Store()
    fill(path, store)
    fill(other, second)
    assert store == second
    other.write_bytes(content(SIZE, seed=2))
    fill(other, third)
    fill(other, third, compress="zstd")
    values = {*store.values(), *third.ever}
    assert len({value[SEAL : SEAL + NONCE] for value in values}) == len(values)


def test_the_second_read_sets_where_that_one_caches(path: Path, store: Store) -> None:
    with sharing_host(path, store, admit=SECOND_READ) as host:
        read_all(host)
        assert (host.stats["remote_sets"], host.stats["cached_pages"]) == (0, 0)
        read_all(host)
        assert host.stats["remote_sets"] == host.stats["cached_pages"] == PAGES


def test_it_is_asked_for_nothing_while_it_is_switched_off(path: Path, store: Store) -> None:
    with sharing_host(path, store) as host:
        host.courier.remote.enabled = False
        assert read_all(host) == CONTENT
        assert host.courier.gets == len(store) == 0
        assert host.stats["remote_away"] == host.stats["disk_reads"] == PAGES
        assert host.stats["remote_sets_dropped"] == 0


# --- what is not ---


def test_another_key_finds_nothing(path: Path, other: Path, store: Store) -> None:
    fill(path, store)
    with sharing_host(other, store, key=bytes(KEY_BYTES)) as host:
        assert read_all(host) == CONTENT
        assert host.stats["remote_misses"] == host.stats["disk_reads"] == PAGES


def test_an_image_that_differs_in_one_byte_is_another(
    path: Path, other: Path, store: Store
) -> None:
    fill(path, store)
    changed = bytearray(CONTENT)
    changed[-1] ^= 1
    other.write_bytes(changed)
    with sharing_host(other, store) as host:
        assert read_all(host) == bytes(changed)
        assert host.stats["remote_misses"] == PAGES


def test_a_page_of_another_place_does_not_open(path: Path, other: Path, store: Store) -> None:
    fill(path, store)
    names, values = list(store), list(store.values())
    store.update(zip(names, values[1:] + values[:1], strict=True))
    with sharing_host(other, store) as host:
        assert read_all(host) == CONTENT
        assert host.stats["remote_wrong"] == host.stats["disk_reads"] == PAGES


def test_what_is_written_to_is_not_shared(path: Path, store: Store) -> None:
    with sharing_host(path, store, is_shared=False, writable=True) as host:
        assert read_all(host) == CONTENT
        assert host.digests.jobs.empty()
        assert not host.stats["shared"]
        assert host.courier.gets == 0


def test_what_has_grown_is_not_shared(path: Path, store: Store) -> None:
    with sharing_host(path, store) as host:
        host.image.change(bytes(PAGE), SIZE)
        host.image.settle()
        assert (host.stats["state"], host.stats["shared"]) == ("grown", False)
        assert host.digests.jobs.empty()
        assert read_all(host) == CONTENT
        assert host.courier.gets == 0


# --- the file is changed ---


def test_a_changed_file_loses_its_digest_at_once(path: Path, store: Store) -> None:
    with sharing_host(path, store) as host:
        host.image.change(b"new", 0)
        assert read_all(host) == b"new" + CONTENT[3:]
        assert host.courier.gets == len(store) == 0
        host.image.watched.look()
        assert (host.stats["shared"], host.stats["digest"]) == (False, None)
        host.image.settle()
        assert read_all(host) == b"new" + CONTENT[3:]
        assert host.courier.gets == len(store) == 0
        host.share()
        host.image.host.evict_all()
        assert read_all(host) == b"new" + CONTENT[3:]
        assert host.stats["remote_misses"] == host.stats["remote_sets"] == PAGES


def test_what_was_changed_while_the_store_was_asked_comes_from_the_file(
    path: Path, other: Path, store: Store
) -> None:
    fill(path, store)
    with sharing_host(other, store) as host:

        def change_first(get: Get) -> bytes:
            host.courier.on_get = None
            host.image.change(b"new", 5 * PAGE)
            return host.courier.truth(get)

        host.courier.on_get = change_first
        assert read(host.image.connect(), 5 * PAGE, 3) == b"new"
        assert (host.stats["remote_reads"], host.stats["puts"]) == (1, 0)


# --- a store that lies, and hosts that do ---


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_whatever_the_store_answers_no_byte_is_wrong(
    path: Path, other: Path, store: Store, fault: Callable[[Liar, Get, int, bytes], bytes]
) -> None:
    fill(path, store)
    rng = random.Random(7)
    liar = Liar(store, rng)

    def lie(get: Get) -> bytes:
        answers = []
        for index, name in enumerate(get.names):
            wrong = rng.random() < 0.5
            value = store.get(name)
            # None: what was wrong was deleted, and this get has overtaken the new set.
            if value is not None and wrong:
                answers.append(fault(liar, get, index, value))
            else:
                answers.append(get.value(index, value))
        liar.earlier = [*liar.earlier[-20:], get]
        answers, liar.late = [*liar.late, *answers], []
        return b"".join(answers)

    # What never comes is waited for.
    with sharing_host(other, store, timeout_ms=20.0) as host:
        host.courier.on_get = lie
        client = host.image.connect()
        for _ in range(150):
            first = rng.randrange(PAGES)
            count = min(rng.choice((1, 3, 40, 64)) * PAGE, SIZE - first * PAGE)
            assert read(client, first * PAGE, count) == CONTENT[first * PAGE :][:count]
            if rng.random() < 0.3:
                host.image.host.evict_all()
        assert host.courier.gets > 0


def test_late_answers_are_not_waited_for(path: Path, other: Path, store: Store) -> None:
    fill(path, store)
    with sharing_host(other, store, timeout_ms=1.0) as host:
        host.courier.held.clear()
        assert read(host.image.connect(), 0, 8 * PAGE) == CONTENT[: 8 * PAGE]
        assert host.stats["remote_late"] == host.stats["disk_reads"] == 8
        host.courier.held.set()
        wait_for(lambda: host.courier.gets, bool)
        assert read_all(host) == CONTENT


def test_without_a_courier_all_comes_from_the_file(path: Path, store: Store) -> None:
    with sharing_host(path, store) as host:
        host.courier.remote.disconnect()
        assert read_all(host) == CONTENT
        assert host.stats["remote_away"] == host.stats["disk_reads"] == PAGES
        assert host.stats["remote_sets_dropped"] == PAGES


def test_what_a_host_has_set_wrongly_is_found(path: Path, other: Path, store: Store) -> None:
    """One with the right key, whose file was changed in a way that it did not notice."""
    with sharing_host(path, store) as host:
        digest = bytes.fromhex(host.stats["digest"])
    other.write_bytes(content(SIZE, seed=2))
    with sharing_host(other, store) as wrong:
        sums = wrong.digests.kept("base")
    kept = sums.read_bytes()
    sums.write_bytes(kept[: HEAD.size - DIGEST_BYTES] + digest + kept[HEAD.size :])
    with sharing_host(other, store) as wrong:
        assert wrong.stats["digest"] == digest.hex()
        read_all(wrong)
        wrong.settle_sets()
        assert wrong.stats["remote_sets"] == PAGES
    with sharing_host(path, store) as host:
        assert read_all(host) == CONTENT
        assert host.stats["remote_wrong"] == host.stats["disk_reads"] == PAGES
        # And what it sets instead is right.
        host.image.host.evict_all()
        host.settle_sets()
        assert read_all(host) == CONTENT
        assert host.stats["remote_reads"] == PAGES
