# SPDX-License-Identifier: BSD-3-Clause
"""The nodes of a store: connected, watched, and asked for what they know of each other.

One server, or a cluster, which its first answer to CLUSTER SLOTS tells.
"""

import math
import os
import random
from collections.abc import Callable
from typing import Any

from hiredis import ReplyError

from preswapd.remote.courier.addresses import Address
from preswapd.remote.courier.commands import CLUSTER_SLOTS, INFO, command
from preswapd.remote.courier.connecting import Connector, Outcome
from preswapd.remote.courier.link import LOST, NOT_ASKED, NOT_WHOLE, Link, LinkError, Request
from preswapd.remote.courier.loop import Loop
from preswapd.remote.courier.node import Node
from preswapd.remote.courier.owners import Owners
from preswapd.remote.courier.settings import Settings
from preswapd.remote.courier.slots import MapError, Range, ranges_in

# Of a set: nobody waits for it.
WRITE_PATIENCE = 2.0
# How soon a cluster is asked again for its map: a failover takes seconds.
MAP_PAUSE = 1.0
NO_CLUSTER = "cluster support disabled"
# A node to which keys are just moving owns no slots yet.
KEPT_SECONDS = 60.0


class Nodes:
    """`changed()` is called when there is something new to say of them."""

    def __init__(
        self,
        settings: Settings,
        loop: Loop,
        connector: Connector,
        changed: Callable[[], None],
    ) -> None:
        self.known: dict[Address, Node] = {}
        self.owners = Owners()
        self.error: str | None = None
        self._settings = settings
        self._loop = loop
        self._connector = connector
        self.changed = changed
        # Who may know the map when no owner can be asked.
        self._others: list[Address] = list(settings.store.addresses)
        self._map_at = loop.now
        self._is_map_asked = False
        for address in self._others:
            self.node_at(address)
        loop.watch(connector.fd, self._take_outcomes)

    def node_at(self, address: Address) -> Node:
        """It is connected when it was not known before."""
        node = self.known.get(address)
        if node is None:
            node = self.known[address] = Node(address, self._loop.now, self._settings.probe)
            self._loop.call_at(node.retry_at)
        return node

    def moved(self, slot: int, node: Node) -> None:
        """A node says that a slot is another's."""
        self.owners.set_slot(slot, node)
        self.ask_for_map()

    # --- whether they are there ---

    @property
    def state(self) -> str:
        owners = self.owners.nodes
        up = sum(node is not None and node.is_up for node in owners)
        return "away" if not up else "ok" if up == len(owners) else "partly"

    def lose(self, node: Node, why: str) -> None:
        """It is of no use any more: what it was asked is not answered."""
        links = [link for link in (node.reads, node.writes) if link is not None]
        node.went_down(why, self._loop.now)
        self._loop.call_at(node.retry_at)
        self._choose()
        self.ask_for_map()
        self.changed()
        for link in links:
            for request in link.close():
                request.take(link, request, LOST)

    def complain(self, node: Node, why: str) -> None:
        """It answered a get with an error: the third in a row is one too many."""
        if node.failed(why):
            self.lose(node, why)
        self.changed()

    def tick(self) -> None:
        """Looks at everything that has its time."""
        now = self._loop.now
        for node in list(self.known.values()):
            if node.is_up:
                self._look_at(node)
            elif not node.is_connecting and node.retry_at <= now:
                node.is_connecting = True
                self._connector.start(node, node.address)
            elif not node.is_connecting:
                self._loop.call_at(node.retry_at)
        if self.owners.is_cluster and not any(node.is_up for node in self.known.values()):
            self._look_around()
        self._tick_map()

    def ask_for_figures(self) -> None:
        """Of every node: its INFO, how long an answer takes, and whether answers are in step."""
        for node in self.known.values():
            if node.reads and node.writes:
                node.writes.ask(Request(self._take_info, INFO, self._loop.now))
                self._ping(node.reads)
                self._ping(node.writes)

    def _ping(self, link: Link) -> None:
        """Answers have no ids: after one that was left out each would be another command's."""
        token = os.urandom(8).hex().encode()
        link.token = token
        link.ask(Request(self._take_ping, command(b"PING", token), self._loop.now))

    def _take_ping(self, link: Link, request: Request, reply: Any) -> None:
        if reply == link.token:
            link.token = NOT_WHOLE
            if link is link.node.reads:
                link.node.answered(self._loop.now - request.since <= link.patience)
        elif isinstance(reply, ReplyError):
            self.complain(link.node, str(reply))
        elif reply is not LOST:
            raise LinkError(NOT_ASKED)

    def ask_for_map(self) -> None:
        """Soon."""
        self._map_at = min(self._map_at, self._loop.now + MAP_PAUSE)
        self._loop.call_at(self._map_at)

    # --- connections ---

    def _take_outcomes(self, _events: int) -> None:
        for outcome in self._connector.outcomes():
            node: Node = outcome.token
            node.is_connecting = False
            if self.known.get(node.address) is node:
                self._take_outcome(node, outcome)
            elif outcome.joined:
                for joined in outcome.joined:
                    joined.connection.disconnect()

    def _take_outcome(self, node: Node, outcome: Outcome) -> None:
        if outcome.joined is None:
            if node.error != outcome.error:
                self.changed()
            node.went_down(outcome.error, self._loop.now)
            self._loop.call_at(node.retry_at)
            return
        reads, writes = outcome.joined
        node.came_up(
            Link(node, *reads, self._loop, self._settings.timeout, self._lost),
            Link(node, *writes, self._loop, WRITE_PATIENCE, self._lost),
        )
        assert node.writes is not None
        node.writes.ask(Request(self._take_info, INFO, self._loop.now))
        self._choose()
        self._map_at = self._loop.now
        self._loop.call_at(self._map_at)
        self.changed()

    def _lost(self, link: Link, why: str) -> None:
        self.lose(link.node, why)

    def _look_at(self, node: Node) -> None:
        if (why := node.is_too_late(self._loop.now)) is not None:
            self.lose(node, why)
            return
        for link in (node.reads, node.writes):
            if link is not None and link.waiting:
                self._loop.call_at(self._loop.now + link.patience / 2)

    def _choose(self) -> None:
        """In a store that is known to be no cluster: the first that is there."""
        seeds = self._settings.store.addresses if self.owners.is_cluster is False else ()
        self.owners.only = next(filter(lambda node: node.is_up, map(self.node_at, seeds)), None)

    def _look_around(self) -> None:
        """All owners are away: others may know new ones."""
        for address in self._others:
            self.node_at(address).wanted_until = self._loop.now + KEPT_SECONDS

    # --- the map ---

    def _tick_map(self) -> None:
        if self._is_map_asked:
            return
        if self._loop.now < self._map_at:
            self._loop.call_at(self._map_at)
            return
        up = [node.writes for node in self.known.values() if node.writes is not None]
        if up:
            self._is_map_asked = True
            self._map_at = self._loop.now + self._settings.probe
            random.choice(up).ask(Request(self._take_map, CLUSTER_SLOTS, self._loop.now))

    def _take_map(self, link: Link, _request: Request, reply: Any) -> None:
        self._is_map_asked = False
        if reply is LOST:
            self.ask_for_map()
        elif isinstance(reply, ReplyError):
            self._take_no_map(str(reply))
        elif isinstance(reply, list):
            self._take_ranges(read_map(reply, link.node.address))
        else:
            raise LinkError(NOT_ASKED)

    def _take_no_map(self, error: str) -> None:
        """No cluster, or one that does not say."""
        if self.owners.is_cluster and NO_CLUSTER not in error:
            self.error = error
            return
        self.owners.is_cluster = False
        self.error = None
        self._map_at = math.inf
        self._choose()
        self._retire()
        self.changed()

    def _take_ranges(self, ranges: list[Range]) -> None:
        if not ranges and self.owners.is_cluster:
            # A node that was started anew, and knows nobody yet.
            return
        was_cluster, before = self.owners.is_cluster, self.owners.nodes
        self.owners.set_map((each.first, each.last, self.node_at(each.owner)) for each in ranges)
        replicas = {address for each in ranges for address in each.replicas}
        self._others = [*self._settings.store.addresses, *replicas]
        self.error = "no node has some of the keys" if None in self.owners.nodes else None
        if self.state != "ok":
            self.ask_for_map()
        self._retire()
        if not was_cluster or before != self.owners.nodes:
            self.changed()

    def _retire(self) -> None:
        """Those that own nothing go, unless keys are moving to them."""
        is_cluster, owners = self.owners.is_cluster, self.owners.nodes
        seeds = () if is_cluster else self._settings.store.addresses
        for address, node in list(self.known.items()):
            owns = node in owners if is_cluster else address in seeds
            if not owns and node.wanted_until < self._loop.now:
                if node.is_up:
                    self.lose(node, "it has no keys")
                del self.known[address]

    # --- what they say of themselves ---

    def _take_info(self, link: Link, _request: Request, reply: Any) -> None:
        if isinstance(reply, bytes):
            link.node.take_info(reply.decode(errors="replace"))
            self.changed()
        elif reply is not LOST and not isinstance(reply, ReplyError):
            raise LinkError(NOT_ASKED)


def read_map(reply: Any, asked: Address) -> list[Range]:
    try:
        return ranges_in(reply, asked)
    except MapError as error:
        raise LinkError(str(error)) from None
