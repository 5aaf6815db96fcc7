# SPDX-License-Identifier: BSD-3-Clause
"""The sockets of clients, which are nbdkit's: they are found among the process's descriptors."""

import os
import socket
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress

# A host and port.
Address = tuple[str, int]

# Linux' struct ucred: process, user, group.
CREDENTIALS = struct.Struct("=iII")


def cut_off(address: Address | None, process: int, listening: Iterable[int]) -> None:
    """Ends the connection of the client at an address; where that is None, all connections of a
    process to the Unix sockets among `listening` (descriptors), as nothing tells one from another.

    A client that lives connects again, and sends again what was not answered.
    """
    names = names_of(listening)
    for sock in sockets():
        with sock, suppress(OSError):
            if address is not None:
                is_meant = peer_of(sock) == address
            else:
                is_meant = process_of(sock) == process and sock.getsockname() in names
            if is_meant:
                sock.shutdown(socket.SHUT_RDWR)


def sockets_of(addresses: set[Address]) -> dict[Address, socket.socket]:
    """Copies of those that are connected with them, to be closed by the caller."""
    found: dict[Address, socket.socket] = {}
    for sock in sockets():
        address = peer_of(sock)
        if address in addresses and address not in found:
            found[address] = sock
        else:
            sock.close()
    return found


def sockets() -> Iterator[socket.socket]:
    """Copies of all of this process, to be closed by the caller: whatever nbdkit does meanwhile
    with the number, a copy stays what it is."""
    for name in os.listdir("/proc/self/fd"):
        sock = copy_of(int(name))
        if sock is not None:
            yield sock


def copy_of(descriptor: int) -> socket.socket | None:
    """None where it is no socket; it may be closed, and the number another one's, at any time."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        copy = os.dup(descriptor)
    except OSError:
        return None
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None


def names_of(listening: Iterable[int]) -> set[str | bytes]:
    """Those of the Unix sockets among these descriptors."""
    names = set()
    for descriptor in listening:
        sock = copy_of(descriptor)
        if sock is not None:
            with sock:
                if sock.family == socket.AF_UNIX:
                    names.add(sock.getsockname())
    return names


def peer_of(sock: socket.socket) -> Address | None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        host, port = sock.getpeername()[:2]
    except OSError:  # it has hung up
        return None
    # Of a link's own address: where it counts is not what nbdkit says.
    return host.partition("%")[0], port


def process_of(sock: socket.socket) -> int | None:
    """At the other end of a Unix socket; the listening one has its own."""
    if sock.family != socket.AF_UNIX or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return None
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return int(CREDENTIALS.unpack(found)[0])
