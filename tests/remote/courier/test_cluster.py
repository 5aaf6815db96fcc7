# SPDX-License-Identifier: BSD-3-Clause
"""A real cluster of three masters and three replicas."""

import threading
from pathlib import Path

from preswapd.remote.courier.slots import slot_of
from tests.ports import free_port
from tests.remote.courier.carried import (
    AWAY,
    FOUND,
    MISS,
    STORED,
    RunningCourier,
    name_of,
)
from tests.remote.courier.conftest import StartCourier
from tests.remote.moving_slots import begin_to_move, end_move, move_all, move_keys
from tests.remote.stores import HOST, Cluster, StoreServer, bus_port, needs_store, node_id, text
from tests.running import wait_until

pytestmark = needs_store

NAMES = [name_of(number) for number in range(300)]


def slot(name: bytes) -> int:
    return slot_of(b"preswapd:" + name)


def fill(courier: RunningCourier) -> None:
    for name in NAMES:
        assert courier.set(name, b"value of " + name) == STORED


def everything(courier: RunningCourier) -> list[int]:
    """All statuses; each value that is there is the right one."""
    statuses = []
    for begin in range(0, len(NAMES), 30):
        names = NAMES[begin : begin + 30]
        for name, answer in zip(names, courier.get(*names), strict=True):
            assert answer.payload in (b"", b"value of " + name)
            statuses.append(answer.status)
    return statuses


def test_each_key_is_at_its_node(cluster: Cluster, start_courier: StartCourier) -> None:
    courier = start_courier(cluster.masters[1].url).ready()
    fill(courier)
    assert everything(courier) == [FOUND] * len(NAMES)
    sizes = [master("DBSIZE") for master in cluster.masters]
    assert sum(sizes) == len(NAMES)
    assert min(sizes) > 50
    assert len(courier.statuses[-1]["nodes"]) == 3


def test_a_replica_knows_the_cluster_too(cluster: Cluster, start_courier: StartCourier) -> None:
    courier = start_courier(cluster.replicas[0].url).ready()
    fill(courier)
    assert everything(courier) == [FOUND] * len(NAMES)


def test_a_failover(cluster: Cluster, start_courier: StartCourier) -> None:
    courier = start_courier(cluster.url).ready()
    fill(courier)
    for master in cluster.masters:
        master("WAIT", 1, 10_000)
    cluster.masters[0].kill()
    courier.wait_for_state("partly")
    statuses = everything(courier)
    # The other two go on.
    assert statuses.count(FOUND) > len(NAMES) // 2
    assert set(statuses) == {FOUND, AWAY}
    courier.ready()
    assert everything(courier) == [FOUND] * len(NAMES)
    port = cluster.replicas[0].port
    assert f"{HOST}:{port}" in [node["address"] for node in courier.statuses[-1]["nodes"]]


def test_a_node_that_hangs_keeps_nobody_waiting(
    cluster: Cluster, start_courier: StartCourier
) -> None:
    courier = start_courier(cluster.url, timeout_ms=200).ready()
    fill(courier)
    cluster.masters[2].pause()
    hung = next(name for name in NAMES if slot(name) > 2 * 16384 // 3 + 1)
    there = next(name for name in NAMES if slot(name) < 16384 // 3)
    id_ = courier.new_id()
    courier.send("g", id_, hung + there)
    # The other node's answer comes first, and then that nothing comes.
    first, second = courier.answers(id_, 2)
    assert (first.nth, first.status) == (1, FOUND)
    assert (second.nth, second.status) == (0, AWAY)
    cluster.masters[2].go_on()
    courier.ready()


def test_all_down_and_up_again(cluster: Cluster, start_courier: StartCourier) -> None:
    courier = start_courier(cluster.url).ready()
    for node in cluster.nodes:
        node.kill()
    courier.wait_for_state("away")
    assert everything(courier) == [AWAY] * len(NAMES)
    for node in cluster.nodes:
        node.launch()
    courier.ready()
    wait_until(lambda: courier.set(NAMES[0], b"x") == STORED, "the cluster")


def test_slots_that_move_while_they_are_used(cluster: Cluster, start_courier: StartCourier) -> None:
    """Nothing but the right value, and after it all of them again."""
    courier = start_courier(cluster.url).ready()
    fill(courier)
    source, target = cluster.masters[0], cluster.masters[1]
    slots = sorted({slot(name) for name in NAMES if slot(name) < 2000})
    assert len(slots) > 10
    mover = threading.Thread(target=move_all, args=(slots, source, target, cluster.masters))
    mover.start()
    rounds = 0
    while mover.is_alive() or not rounds:
        rounds += 1
        assert everything(courier) == [FOUND] * len(NAMES)
        for name in NAMES[:50]:
            assert courier.set(name, b"value of " + name) == STORED
    mover.join()
    assert everything(courier) == [FOUND] * len(NAMES)


def test_a_key_in_a_slot_that_is_just_moving(cluster: Cluster, start_courier: StartCourier) -> None:
    """Half of the slot's keys are there already: they are asked for there, each time."""
    courier = start_courier(cluster.url).ready()
    fill(courier)
    name = next(name for name in NAMES if slot(name) < 16384 // 3)
    source, target = cluster.masters[0], cluster.masters[2]
    begin_to_move(slot(name), source, target)
    assert courier.value(name) == b"value of " + name
    move_keys(slot(name), source, target)
    for _ in range(3):
        assert courier.value(name) == b"value of " + name
    assert courier.set(name, b"new") == STORED
    assert courier.value(name) == b"new"
    end_move(slot(name), source, target, cluster.masters)
    assert courier.value(name) == b"new"


def test_a_new_node(cluster: Cluster, tmp_path: Path, start_courier: StartCourier) -> None:
    """Nobody has told the courier of it but the node that its keys have left."""
    courier = start_courier(cluster.url).ready()
    fill(courier)
    source = cluster.masters[0]
    with StoreServer(tmp_path / "new", *source.options[:-1], str(free_port())) as added:
        added("CLUSTER", "MEET", HOST, source.port, bus_port(source))
        wait_until(
            lambda: all(node_id(added) in str(m("CLUSTER", "NODES")) for m in cluster.masters),
            "the new node",
        )
        wait_until(lambda: "state:ok" in text(added("CLUSTER", "INFO")), "its view of the cluster")
        slots = sorted({slot(name) for name in NAMES if slot(name) < 500})
        move_all(slots, source, added, cluster.masters)
        wait_until(lambda: set(everything(courier)) == {FOUND}, "the new node's keys")
        courier.wait_for(
            lambda status: f"{HOST}:{added.port}" in str(status["nodes"]), "the new node"
        )


def test_slots_that_nobody_has(cluster: Cluster, start_courier: StartCourier) -> None:
    courier = start_courier(cluster.url).ready()
    fill(courier)
    cluster.masters[0]("CLUSTER", "DELSLOTSRANGE", 0, 5000)
    for node in cluster.masters[1:]:
        node("CLUSTER", "DELSLOTSRANGE", 0, 5000)
    statuses = everything(courier)
    for name, status in zip(NAMES, statuses, strict=True):
        assert status == FOUND or slot(name) <= 5000
    courier.wait_for(lambda status: bool(status["error"]), "error")
    assert MISS not in everything(courier)


def test_a_server_that_becomes_a_cluster_and_back(
    tmp_path: Path, start_courier: StartCourier
) -> None:
    server = StoreServer(tmp_path / "store")
    clustered = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with server:
        courier = start_courier(server.url).ready()
        assert courier.set(NAMES[0], b"x") == STORED
    for options, name in ((clustered, NAMES[1]), ((), NAMES[2])):
        courier.wait_for_state("away")
        server.options = options
        with server:
            if options:
                server("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda name=name: courier.set(name, b"x") == STORED, "a set")  # type: ignore[misc]
            courier.ready()
