# SPDX-License-Identifier: BSD-3-Clause
"""Which node of a cluster has which keys, as its nodes say: CLUSTER SLOTS, MOVED and ASK.

redis-py's own map of a cluster is not used: it makes a pool of connections for every node and a
list for each of the 16,384 slots, in Python, while a read waits for the interpreter.
"""

from binascii import crc_hqx
from typing import Any, NamedTuple

from preswapd.remote.courier.addresses import Address

SLOTS = 16384
MOST_NODES = 1000


class MapError(Exception):
    """Not a map of a cluster."""


class Range(NamedTuple):
    """Slots in a row, whose they are, and who could take them over."""

    first: int
    last: int
    owner: Address
    replicas: tuple[Address, ...]


class Redirect(NamedTuple):
    """A key is at another node: from now on (`moved`), or for this command only."""

    moved: bool
    slot: int
    address: Address


def slot_of(key: bytes) -> int:
    """Of a key with braces only what stands between the first pair counts."""
    begin = key.find(b"{")
    if begin >= 0:
        end = key.find(b"}", begin + 1)
        if end > begin + 1:
            key = key[begin + 1 : end]
    return crc_hqx(key, 0) % SLOTS


def ranges_in(reply: Any, asked: Address) -> list[Range]:
    """Of the reply to CLUSTER SLOTS by the node at `asked`."""
    try:
        found = [range_in(entry, asked) for entry in reply]
    except (TypeError, ValueError, OverflowError, IndexError, AttributeError) as error:
        raise MapError(f"not an answer to CLUSTER SLOTS: {error}") from None
    if len({each.owner for each in found}) > MOST_NODES:
        raise MapError(f"a cluster of more than {MOST_NODES} nodes")
    return found


def range_in(entry: Any, asked: Address) -> Range:
    first, last, owner, *replicas = entry
    if not 0 <= int(first) <= int(last) < SLOTS:
        raise ValueError(f"slots {first} to {last}")
    return Range(
        int(first),
        int(last),
        node_in(owner, asked),
        tuple(node_in(replica, asked) for replica in replicas),
    )


def node_in(entry: Any, asked: Address) -> Address:
    """A node that does not know its own host is where it was asked."""
    host = (entry[0] or b"").decode()
    return Address(asked.host if host in ("", "?") else host, port_of(entry[1]))


def port_of(text: str | int) -> int:
    port = int(text)
    if not 0 < port < 1 << 16:
        raise ValueError(f"port {port}")
    return port


def redirect_in(error: str, asked: Address) -> Redirect | None:
    """MOVED or ASK, as in "MOVED 866 127.0.0.1:7001"; None: another error."""
    words = error.split()
    if len(words) < 3 or words[0] not in ("MOVED", "ASK"):
        return None
    host, _, port = words[2].rpartition(":")
    try:
        slot = int(words[1])
        address = Address(asked.host if host in ("", "?") else host.strip("[]"), port_of(port))
    except ValueError:
        return None
    return Redirect(words[0] == "MOVED", slot, address) if 0 <= slot < SLOTS else None
