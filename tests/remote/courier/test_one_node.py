# SPDX-License-Identifier: BSD-3-Clause
"""Gets, sets and deletions on one real server."""

import random
from pathlib import Path

from tests.remote.courier.carried import (
    AWAY,
    FOUND,
    MISS,
    REFUSED,
    STORED,
    RunningCourier,
    name_of,
    new_name,
)
from tests.remote.courier.conftest import StartCourier
from tests.remote.stores import StoreServer, needs_store
from tests.running import wait_until

pytestmark = needs_store


def test_what_was_set_is_got(courier: RunningCourier) -> None:
    name = new_name()
    assert courier.value(name) is None
    assert courier.set(name, b"a page") == STORED
    assert courier.value(name) == b"a page"


def test_any_bytes_are_names_and_values(courier: RunningCourier) -> None:
    every_byte = bytes(range(256))
    for number in range(0, 256, 16):
        name = every_byte[number : number + 16]
        assert courier.set(name, every_byte + name) == STORED
        assert courier.value(name) == every_byte + name


def test_each_of_many_names_has_its_own_answer(courier: RunningCourier) -> None:
    names = [name_of(number) for number in range(32)]
    for name in names[::2]:
        courier.set(name, b"value of " + name)
    answers = courier.get(*names)
    assert [answer.status for answer in answers] == [FOUND, MISS] * 16
    assert [answer.payload for answer in answers[::2]] == [b"value of " + n for n in names[::2]]


def test_a_deleted_page_is_gone(courier: RunningCourier) -> None:
    names = [name_of(number) for number in range(100)]
    for name in names:
        courier.set(name, b"x")
    courier.delete(*names[:99])
    wait_until(lambda: courier.value(names[98]) is None, "the deletion")
    assert [courier.value(name) for name in names[:98]] == [None] * 98
    assert courier.value(names[99]) == b"x"


def test_the_key_is_prefix_and_name_and_ends(
    store: StoreServer, start_courier: StartCourier
) -> None:
    courier = start_courier(store.url, prefix="a {b} ", ttl_s=100).ready()
    name = new_name()
    courier.set(name, b"x")
    assert store("KEYS", "*") == [b"a {b} " + name]
    assert 90_000 < store("PTTL", b"a {b} " + name) <= 100_000


def test_without_a_ttl_it_stays(store: StoreServer, start_courier: StartCourier) -> None:
    start_courier(store.url, ttl_s=0).ready().set(name_of(1), b"x")
    assert store("TTL", b"preswapd:" + name_of(1)) == -1


def test_a_unix_socket(store: StoreServer, start_courier: StartCourier) -> None:
    courier = start_courier(f"unix://{store.socket}").ready()
    assert courier.set(name_of(1), b"x") == STORED
    assert courier.value(name_of(1)) == b"x"


def test_another_database(store: StoreServer, start_courier: StartCourier) -> None:
    start_courier(f"{store.url}/3").ready().set(name_of(1), b"x")
    assert store("DBSIZE") == 0
    with store.client(db=3) as client:
        assert client.dbsize() == 1


def test_ten_thousand_operations_as_a_dict_has_them(courier: RunningCourier) -> None:
    rng = random.Random(5)
    names = [rng.randbytes(16) for _ in range(500)]
    model: dict[bytes, bytes] = {}
    left = 10_000
    while left > 0:
        # What is under way at the same time is on different pages: gets and sets of one page have
        # no order among themselves.
        batch = rng.sample(names, rng.randint(1, 60))
        left -= len(batch)
        change(courier, rng, batch[: len(batch) // 2], model)
        look(courier, rng, batch[len(batch) // 2 :], model)
    look(courier, rng, names, model)


def change(
    courier: RunningCourier, rng: random.Random, names: list[bytes], model: dict[bytes, bytes]
) -> None:
    ids = []
    for name in names:
        if rng.random() < 0.2:
            courier.delete(name)
            model.pop(name, None)
        else:
            model[name] = rng.randbytes(rng.choice((1, 100, 4116, 4200)))
            ids.append(courier.new_id())
            courier.send("s", ids[-1], name + model[name])
    for id_ in ids:
        assert courier.answers(id_, 1)[0].status == STORED
    # A deletion says nothing; a set on the same connection comes after it.
    assert courier.set(bytes(16), b"x") == STORED


def look(
    courier: RunningCourier, rng: random.Random, names: list[bytes], model: dict[bytes, bytes]
) -> None:
    """Asks for all before any answer is read."""
    asked: dict[int, list[bytes]] = {}
    rest = list(names)
    while rest:
        count = rng.randint(1, 32)
        group, rest = rest[:count], rest[count:]
        asked[courier.new_id()] = group
        courier.send("g", courier.last_id, b"".join(group))
    for id_, group in asked.items():
        for answer in courier.answers(id_, len(group)):
            expected = model.get(group[answer.nth])
            assert answer.status == (MISS if expected is None else FOUND)
            assert answer.payload == (expected or b"")


def test_its_figures(store: StoreServer, start_courier: StartCourier) -> None:
    store("CONFIG", "SET", "maxmemory", "50mb")
    store("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    statuses = start_courier(store.url)
    first = statuses.wait_for(lambda status: bool(status["nodes"][0]["version"]), "version")
    assert first["nodes"][0]["latency_us"] is None
    status = statuses.wait_for(lambda status: bool(status["nodes"][0]["latency_us"]), "latency")
    assert (status["url"], status["state"], status["error"]) == (store.url, "ok", None)
    [node] = status["nodes"]
    assert node["address"] == f"127.0.0.1:{store.port}"
    assert node["up"] is True
    assert node["server"] in ("redis", "valkey")
    assert node["maxmemory"] == 50 << 20
    assert node["policy"] == "allkeys-lru"
    assert node["used_memory"] > 0
    assert node["evicted_keys"] == 0
    assert node["latency_us"] > 0


def test_a_full_store_refuses_sets_and_answers_gets(
    store: StoreServer, start_courier: StartCourier
) -> None:
    courier = start_courier(store.url).ready()
    courier.set(name_of(0), b"x")
    store("CONFIG", "SET", "maxmemory", "1")
    assert courier.set(name_of(1), b"x") == REFUSED
    status = courier.wait_for_error("OOM")
    assert status["state"] == "ok"
    assert courier.value(name_of(0)) == b"x"
    store("CONFIG", "SET", "maxmemory", "0")
    assert courier.set(name_of(1), b"x") == STORED
    courier.wait_for(lambda status: status["error"] is None, "end of the error")


def test_a_flushed_store_has_nothing(store: StoreServer, courier: RunningCourier) -> None:
    courier.set(name_of(1), b"x")
    store("FLUSHALL")
    assert courier.value(name_of(1)) is None


def test_a_replica_refuses_sets(
    store: StoreServer, tmp_path: Path, start_courier: StartCourier
) -> None:
    store("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    with StoreServer(tmp_path / "replica", "--replicaof", "127.0.0.1", str(store.port)) as replica:
        wait_until(lambda: is_linked(replica), "the replica")
        courier = start_courier(replica.url).ready()
        assert courier.set(name_of(1), b"x") == REFUSED
        courier.wait_for_error("READONLY")
        assert courier.status_of(name_of(1)) == MISS


def is_linked(replica: StoreServer) -> bool:
    with replica.client() as client:
        return bool(client.info("replication")["master_link_status"] == "up")


def test_a_store_that_starts_later_is_found(tmp_path: Path, start_courier: StartCourier) -> None:
    server = StoreServer(tmp_path / "store")
    courier = start_courier(server.url)
    courier.wait_for_error("refused")
    assert courier.status_of(name_of(1)) == AWAY
    assert courier.set(name_of(1), b"x") == AWAY
    with server:
        courier.ready()
        assert courier.set(name_of(1), b"x") == STORED
