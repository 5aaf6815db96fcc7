# SPDX-License-Identifier: BSD-3-Clause
"""Slots of a cluster go from one node to another, as `redis-cli --cluster reshard` moves them."""

from tests.remote.stores import StoreServer, node_id


def move_all(
    slots: list[int], source: StoreServer, target: StoreServer, masters: list[StoreServer]
) -> None:
    for number in slots:
        begin_to_move(number, source, target)
        move_keys(number, source, target)
        end_move(number, source, target, masters)


def begin_to_move(number: int, source: StoreServer, target: StoreServer) -> None:
    target("CLUSTER", "SETSLOT", number, "IMPORTING", node_id(source))
    source("CLUSTER", "SETSLOT", number, "MIGRATING", node_id(target))


def move_keys(number: int, source: StoreServer, target: StoreServer) -> None:
    with source.client() as client:
        while keys := client.execute_command("CLUSTER", "GETKEYSINSLOT", number, 10):
            client.migrate(target.host, target.port, keys, 0, 10_000, replace=True)


def end_move(
    number: int, source: StoreServer, target: StoreServer, masters: list[StoreServer]
) -> None:
    """Who has it says so first, or there would be nobody for a moment."""
    for node in [target, source, *(each for each in masters if each not in (source, target))]:
        node("CLUSTER", "SETSLOT", number, "NODE", node_id(target))
