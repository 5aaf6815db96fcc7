# SPDX-License-Identifier: BSD-3-Clause
"""Gets, sets and deletions: from the server to the node that has the key, and back."""

from typing import Any, Protocol

from hiredis import ReplyError

from preswapd.remote.courier.commands import ASKING, Commands
from preswapd.remote.courier.frames import (
    AWAY,
    ERROR,
    FOUND,
    MISS,
    MOST_NAMES,
    MOST_PAYLOAD,
    MOST_VALUE,
    NAME_BYTES,
    REFUSED,
    SET,
    STORED,
    VALUE,
    FrameError,
    names_in,
)
from preswapd.remote.courier.link import LOST, NOT_ASKED, Link, LinkError, Request
from preswapd.remote.courier.loop import Loop
from preswapd.remote.courier.node import Node
from preswapd.remote.courier.nodes import KEPT_SECONDS, Nodes
from preswapd.remote.courier.slots import MOST_NODES, redirect_in

# A key that is sent on more often than that is at no node for now.
MOST_HOPS = 4
# Of this key, and not of its node: the slot is nobody's, or on its way.
PASSING = {"TRYAGAIN", "CLUSTERDOWN"}
# The node cannot serve anybody at the moment.
UNABLE = {"LOADING", "MASTERDOWN", "BUSY"}


class Answers(Protocol):
    def answer(self, kind: int, status: int, index: int, id_: int, payload: bytes = b"") -> None:
        """Says it to the server."""


class Carrier:
    def __init__(
        self, nodes: Nodes, loop: Loop, answers: Answers, prefix: bytes, ttl_ms: int
    ) -> None:
        self._nodes = nodes
        self._loop = loop
        self._answer = answers.answer
        self._prefix = prefix
        self._commands = Commands(prefix, ttl_ms)

    # --- what the server says ---

    def get(self, id_: int, names: memoryview) -> None:
        owner_of, now = self._nodes.owners.of, self._loop.now
        for index in range(names_in(names, MOST_NAMES)):
            name = bytes(names[index * NAME_BYTES : (index + 1) * NAME_BYTES])
            node = owner_of(self._prefix + name)
            link = node.reads if node is not None else None
            if link is None or link.is_full:
                self._answer(VALUE, AWAY, index, id_)
            else:
                link.ask(Request(self._got, self._commands.get(name), now, id_, index))

    def set(self, id_: int, payload: memoryview) -> None:
        name, value = bytes(payload[:NAME_BYTES]), payload[NAME_BYTES:]
        if not 0 < len(value) <= MOST_VALUE:
            raise FrameError(f"not a name and a value: {len(payload)} bytes")
        link = self._writes_of(name)
        if link is None:
            self._answer(SET, AWAY, 0, id_)
        else:
            link.ask(Request(self._was_set, self._commands.set(name, value), self._loop.now, id_))

    def delete(self, _id: int, names: memoryview) -> None:
        for index in range(names_in(names, MOST_PAYLOAD // NAME_BYTES)):
            name = bytes(names[index * NAME_BYTES : (index + 1) * NAME_BYTES])
            if (link := self._writes_of(name)) is not None:
                link.ask(Request(self._was_deleted, self._commands.delete(name), self._loop.now))

    def _writes_of(self, name: bytes) -> Link | None:
        node = self._nodes.owners.of(self._prefix + name)
        link = node.writes if node is not None else None
        return None if link is None or link.is_full else link

    # --- what a node says ---

    def _got(self, link: Link, request: Request, reply: Any) -> None:
        if isinstance(reply, bytes) and len(reply) <= MOST_VALUE and reply != link.token:
            link.node.answered(self._loop.now - request.since <= link.patience)
            self._answer(VALUE, FOUND, request.nth, request.id, reply)
        elif reply is None:
            link.node.answered(self._loop.now - request.since <= link.patience)
            self._answer(VALUE, MISS, request.nth, request.id)
        elif not self._is_sent_on(link, request, reply):
            status = AWAY if is_away(reply) else ERROR
            self._answer(VALUE, status, request.nth, request.id)
            self._blame(link.node, reply)

    def _was_set(self, link: Link, request: Request, reply: Any) -> None:
        if reply == b"OK":
            self._answer(SET, STORED, 0, request.id)
            if link.node.refusal:
                link.node.refusal = None
                self._nodes.changed()
        elif not self._is_sent_on(link, request, reply):
            self._answer(SET, AWAY if is_away(reply) else REFUSED, 0, request.id)
            self._note_refusal(link.node, reply)

    def _was_deleted(self, link: Link, request: Request, reply: Any) -> None:
        if not isinstance(reply, int) and not self._is_sent_on(link, request, reply):
            self._note_refusal(link.node, reply)

    def _was_asked(self, _link: Link, _request: Request, reply: Any) -> None:
        """ASKING says nothing but OK, and what follows it says the rest."""
        if reply is not LOST and not isinstance(reply, bytes | ReplyError):
            raise LinkError(NOT_ASKED)

    # --- what is no answer ---

    def _is_sent_on(self, link: Link, request: Request, reply: Any) -> bool:
        """To the node that has the key, where there is one."""
        redirect = redirect_in(str(reply), link.node.address) if is_error(reply) else None
        if redirect is None or len(self._nodes.known) > MOST_NODES:
            return False
        node = self._nodes.node_at(redirect.address)
        if redirect.moved:
            self._nodes.moved(redirect.slot, node)
        else:
            node.wanted_until = self._loop.now + KEPT_SECONDS
        to = node.reads if link is link.node.reads else node.writes
        if to is None or to.is_full or request.hops >= MOST_HOPS:
            return False
        if not redirect.moved:
            to.ask(Request(self._was_asked, ASKING, self._loop.now))
        to.ask(request._replace(since=self._loop.now, hops=request.hops + 1))
        return True

    def _blame(self, node: Node, reply: Any) -> None:
        """For a get that was not answered as gets are."""
        if not is_error(reply):
            if reply is not LOST:
                raise LinkError(NOT_ASKED)
        elif word_of(reply) in PASSING:
            node.error = str(reply)
            self._nodes.ask_for_map()
            self._nodes.changed()
        elif not redirect_in(str(reply), node.address):
            self._nodes.complain(node, str(reply))

    def _note_refusal(self, node: Node, reply: Any) -> None:
        """Of a set: it is still there for gets."""
        if not is_error(reply):
            if reply is not LOST:
                raise LinkError(NOT_ASKED)
        elif node.refusal != str(reply):
            node.refusal = str(reply)
            self._nodes.ask_for_map()
            self._nodes.changed()


def is_error(reply: Any) -> bool:
    return isinstance(reply, ReplyError)


def word_of(reply: Any) -> str:
    return str(reply).partition(" ")[0]


def is_away(reply: Any) -> bool:
    """The node is away, not the page or its room."""
    if not is_error(reply):
        return reply is LOST
    return word_of(reply) in PASSING | UNABLE | {"MOVED", "ASK"}
