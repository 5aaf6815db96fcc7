# SPDX-License-Identifier: BSD-3-Clause
"""Whose a key is: that of one server, or of the node of a cluster that has the key's slot."""

from collections.abc import Iterable

from preswapd.remote.courier.node import Node
from preswapd.remote.courier.slots import SLOTS, slot_of


class Owners:
    def __init__(self) -> None:
        # None: not known yet.
        self.is_cluster: bool | None = None
        # The one of a store that is no cluster.
        self.only: Node | None = None
        self._slots: list[Node | None] = [None] * SLOTS
        self._distinct: set[Node | None] = {None}

    @property
    def nodes(self) -> set[Node | None]:
        """With None where some keys are nobody's."""
        return self._distinct if self.is_cluster else {self.only}

    def of(self, key: bytes) -> Node | None:
        return self._slots[slot_of(key)] if self.is_cluster else self.only

    def set_slot(self, slot: int, node: Node) -> None:
        self._slots[slot] = node
        self._distinct.add(node)

    def set_map(self, ranges: Iterable[tuple[int, int, Node]]) -> None:
        """A cluster's: slots, from the first to the last of a row, and whose they are."""
        self.is_cluster = True
        self.only = None
        self._slots = [None] * SLOTS
        for first, last, node in ranges:
            self._slots[first : last + 1] = [node] * (last + 1 - first)
        self._distinct = set(self._slots)
