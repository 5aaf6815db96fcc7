# SPDX-License-Identifier: BSD-3-Clause
"""Clients over TCP where TLS is needed: each is a stranger until it opens an export over TLS.

nbdkit waits for a stranger as long as that likes, and says nothing of those with whom TLS fails.
So strangers are noted here as they come, get little time and room, and are counted when they go.
How fast they come is up to gate.py.
"""

import ipaddress
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from preswapd.errors import RefusedError
from preswapd.server.connected import Address, sockets_of
from preswapd.server.gate import Gate

# A handshake takes some milliseconds, and every client that lost its connection tries again.
PATIENCE_SECONDS = 10.0
# At a time.  After a restart all guests come at once, and those that find no room come again.
MOST_STRANGERS = 256
# So that no single host keeps all others out.
MOST_OF_A_HOST = 64
PAUSE_SECONDS = 0.1
# What one may say: nbdkit keeps up to 64 MiB of an option for it.  Certificates are a few KiB.
MOST_BYTES = 256 << 10
# Until it is noticed one can say as much as comes over the wire.
LOOK_SECONDS = 0.05

PLAIN = "it does not use TLS"
FAILED = "it shows no certificate or key that counts, speaks an old TLS, or has hung up"
SLOW = f"after {PATIENCE_SECONDS:g} s it has not opened an export"
TALKATIVE = "it sends a lot and opens no export"
CROWDED = f"{MOST_STRANGERS} others are on their way in"
CROWDED_HOST = f"{MOST_OF_A_HOST} others of its host are on their way in"
REASONS = (PLAIN, FAILED, SLOW, TALKATIVE, CROWDED, CROWDED_HOST)

# Of one that has hung up before it was asked.
UNKNOWN = ("an unknown address", 0)

# The field bytes_received of Linux' struct tcp_info.
BYTES_RECEIVED_AT = 128


class Refusals(NamedTuple):
    """Of one reason since the start."""

    reason: str
    times: int
    host: str  # the last one's


@dataclass
class Stranger:
    """One connection, which nbdkit serves in a thread of its own."""

    address: Address
    network: str
    thread: int
    since: float
    is_told: bool = False  # its end says no more


class Arrivals:
    """The strangers of one server."""

    def __init__(
        self, gate: Gate | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.gate = gate or Gate()
        self.clock = clock
        self.lock = threading.Lock()
        self.is_needed = threading.Event()  # whether there is anything to look at
        self.strangers: dict[int, Stranger] = {}
        self.refused: dict[str, Refusals] = {}
        self.last_end = -PAUSE_SECONDS

    # --- in the client's thread ---

    def arrive(self, address: Address | None) -> None:
        """Before a word is said; RefusedError where there is no room.  None: not over TCP."""
        if address is None:
            return
        thread, network = threading.get_native_id(), network_of(address[0])
        with self.lock:
            self.is_needed.set()
            self.gate.note()
            before = self.strangers.pop(thread, None)
            if before is not None:
                self.end(before)
            if self.why_no_room(network) is not None:
                self.end_those_who_went()
            reason = self.why_no_room(network)
            if reason is not None:
                self.count(reason, address)
                raise RefusedError(reason)
            self.strangers[thread] = Stranger(address, network, thread, self.clock())

    def miss(self) -> None:
        """One that has come and gone: nbdkit will find out for itself."""
        with self.lock:
            self.is_needed.set()
            self.gate.note()
            self.count(FAILED, UNKNOWN)

    def check(self, address: Address | None, uses_tls: bool) -> None:
        """Where it asks what there is: RefusedError where it must not know."""
        if address is None:
            return
        with self.lock:
            stranger = self.strangers.get(threading.get_native_id())
            if not uses_tls and (stranger is None or not stranger.is_told):
                self.count(PLAIN, address)
            if stranger is not None:
                stranger.is_told = True
        if not uses_tls:
            raise RefusedError(PLAIN)

    def let_in(self, address: Address | None, uses_tls: bool) -> None:
        """Where it opens an export: RefusedError where it must not."""
        self.check(address, uses_tls)
        if address is not None:
            with self.lock:
                self.strangers.pop(threading.get_native_id(), None)

    # --- in a thread of its own, while there are strangers ---

    def wait(self) -> None:
        self.is_needed.wait()
        time.sleep(LOOK_SECONDS)

    def look(self) -> None:
        with self.lock:
            self.gate.look()
            found = list(self.strangers.values())
            if not found and not self.gate.is_shut:
                self.is_needed.clear()
        if not found:
            return
        connected = sockets_of({stranger.address for stranger in found})
        try:
            for stranger in found:
                self.look_at(stranger, connected.get(stranger.address))
        finally:
            for sock in connected.values():
                sock.close()

    def look_at(self, stranger: Stranger, sock: socket.socket | None) -> None:
        with self.lock:
            if self.strangers.get(stranger.thread) is not stranger:
                return
            if not is_alive(stranger.thread):
                del self.strangers[stranger.thread]
                self.end(stranger)
                return
            reason = self.why_no_longer(stranger, sock)
            if reason is not None:
                if not stranger.is_told:
                    self.count(reason, stranger.address)
                stranger.is_told = True
        if reason is not None and sock is not None:
            # Its thread wakes up and ends.
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def why_no_longer(self, stranger: Stranger, sock: socket.socket | None) -> str | None:
        if self.clock() - stranger.since >= PATIENCE_SECONDS:
            return SLOW
        if sock is not None and bytes_from(sock) > MOST_BYTES:
            return TALKATIVE
        return None

    # --- what is counted ---

    def why_no_room(self, network: str) -> str | None:
        if len(self.strangers) >= MOST_STRANGERS:
            return CROWDED
        others = sum(stranger.network == network for stranger in self.strangers.values())
        return CROWDED_HOST if others >= MOST_OF_A_HOST else None

    def end_those_who_went(self) -> None:
        """Since the last look; not for each of a crowd, as that takes a while."""
        now = self.clock()
        if now - self.last_end < PAUSE_SECONDS:
            return
        self.last_end = now
        for stranger in list(self.strangers.values()):
            if not is_alive(stranger.thread):
                del self.strangers[stranger.thread]
                self.end(stranger)

    def end(self, stranger: Stranger) -> None:
        if not stranger.is_told:
            self.count(FAILED, stranger.address)

    def count(self, reason: str, address: Address) -> None:
        before = self.refused.get(reason)
        self.refused[reason] = Refusals(reason, before.times + 1 if before else 1, address[0])

    def refusals(self) -> Iterator[Refusals]:
        """By reason, all that there were."""
        yield from (found for reason in REASONS if (found := self.refused.get(reason)))

    @property
    def total(self) -> int:
        return sum(found.times for found in self.refusals())


def network_of(host: str) -> str:
    """What one host may have: of IPv6, all addresses that begin with the same 64 bits."""
    found = ipaddress.ip_address(host)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return found.exploded[:19]
    return host


def is_alive(thread: int) -> bool:
    return os.path.exists(f"/proc/self/task/{thread}")


def bytes_from(sock: socket.socket) -> int:
    """What its client has sent so far."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    except OSError:
        return 0
    if len(info) < BYTES_RECEIVED_AT + 8:
        return 0
    return int(struct.unpack_from("=Q", info, BYTES_RECEIVED_AT)[0])
