# SPDX-License-Identifier: BSD-3-Clause
"""The whole: a server at one end, a store at the other."""

import json
import math
import socket
from typing import NoReturn

from preswapd.remote.courier.carrier import Carrier
from preswapd.remote.courier.connecting import Connector
from preswapd.remote.courier.frames import DELETE, GET, MOST_PAYLOAD, SET, STATUS
from preswapd.remote.courier.loop import Loop
from preswapd.remote.courier.node import in_short
from preswapd.remote.courier.nodes import Nodes
from preswapd.remote.courier.server import Server
from preswapd.remote.courier.settings import Settings

# What changes is said soon, and not once for each of many changes; before a node that is lost has
# been connected again.
GATHER_SECONDS = 0.05


class Courier:
    def __init__(self, sock: socket.socket, settings: Settings) -> None:
        self._settings = settings
        self._loop = Loop()
        self._nodes = Nodes(settings, self._loop, Connector(settings), self._say_soon)
        self._server = Server(sock, self._loop)
        carrier = Carrier(self._nodes, self._loop, self._server, settings.prefix, settings.ttl_ms)
        self._server.takes |= {GET: carrier.get, SET: carrier.set, DELETE: carrier.delete}
        self._ask_at = self._said_at = self._say_at = self._loop.now

    def run(self) -> NoReturn:
        """Until the server or the store's frames end it, by an exception."""
        loop = self._loop
        while True:
            if loop.now >= loop.alarm:
                loop.alarm = math.inf
                self._nodes.tick()
                self._tick()
            loop.flush()
            loop.round()

    def _say_soon(self) -> None:
        self._say_at = min(self._say_at, max(self._loop.now, self._said_at + GATHER_SECONDS))
        self._loop.call_at(self._say_at)

    def _tick(self) -> None:
        now = self._loop.now
        if now >= self._ask_at:
            self._ask_at = now + self._settings.probe
            self._nodes.ask_for_figures()
        if now >= self._say_at:
            self._said_at = now
            self._say_at = self._ask_at + GATHER_SECONDS
            self._server.answer(STATUS, 0, 0, 0, self._status())
        self._loop.call_at(min(self._ask_at, self._say_at))

    def _status(self) -> bytes:
        nodes = [node.as_json() for node in self._nodes.known.values()]
        errors = [node["error"] for node in nodes if node["error"]]
        status = {
            "url": self._settings.store.written,
            "state": self._nodes.state,
            "error": in_short(self._nodes.error) or (errors[0] if errors else None),
            "nodes": nodes,
        }
        said = json.dumps(status).encode()
        if len(said) > MOST_PAYLOAD:
            short = {"error": "the store says too much of itself", "nodes": []}
            said = json.dumps(status | short).encode()
        return said
