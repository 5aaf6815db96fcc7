# SPDX-License-Identifier: BSD-3-Clause
"""Connections to a node are made, and tried, in a thread: names are looked up, TLS and passwords
take their time, and a host that is away takes longer than any read may."""

import os
import re
import socket
import ssl
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

from hiredis import Reader, ReplyError
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ResponseError

from preswapd.remote.courier.addresses import Address
from preswapd.remote.courier.commands import Commands, command
from preswapd.remote.courier.frames import NAME_BYTES
from preswapd.remote.courier.link import NOT_WHOLE, Connected
from preswapd.remote.courier.settings import Settings
from preswapd.remote.courier.slots import redirect_in

PATIENCE_SECONDS = 2.0
MOST_AT_ONCE = 8
# By so many of its characters a password is known again.
SAID_BACK = 8
# A thread that makes a connection is one of two that want the interpreter: the better of a few.
TRIES = 5

LINE_OF_SOURCE = re.compile(r" \(_ssl\.c:\d+\)")
NAME = command(b"CLIENT", b"SETNAME", b"preswapd")


class Joined(NamedTuple):
    """A connection that is ready for commands."""

    sock: socket.socket
    connection: Connected


class Outcome(NamedTuple):
    """What came of an attempt: two connections, or why not."""

    token: Any
    joined: tuple[Joined, Joined] | None
    error: str


class ConnectError(Exception):
    """A node is there and of no use."""


class Connector:
    """Makes connections; what came of it is fetched when `fd` can be read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE)
        self._outcomes: deque[Outcome] = deque()
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def start(self, token: Any, address: Address) -> None:
        self._threads.submit(self._attempt, token, address)

    def outcomes(self) -> list[Outcome]:
        os.eventfd_read(self.fd)
        found = []
        while self._outcomes:
            found.append(self._outcomes.popleft())
        return found

    def _attempt(self, token: Any, address: Address) -> None:
        password = None
        try:
            password = self._settings.read_password()
            outcome = Outcome(token, self._pair(address, password), "")
        except Exception as error:
            # Whatever it is: who has no outcome waits for one, and does not try again.
            outcome = Outcome(token, None, why(error, password))
        self._outcomes.append(outcome)
        os.eventfd_write(self.fd, 1)

    def _pair(self, address: Address, password: str | None) -> tuple[Joined, Joined]:
        """One for gets, which never stand behind sets, and one for the rest."""
        first = self._join(address, password)
        try:
            return first, self._join(address, password)
        except BaseException:
            first.connection.disconnect()
            raise

    def _join(self, address: Address, password: str | None) -> Joined:
        connection = connection_to(address, self._settings, password)
        connection.connect()
        try:
            sock = connection._sock
            try_gets(sock, self._settings)
            # For those who look at the store's clients; not every user may say it.
            exchange(sock, NAME)
        except BaseException:
            connection.disconnect()
            raise
        return Joined(sock, connection)


def why(error: Exception, password: str | None) -> str:
    """It is logged and shown, and what others say goes on behind it: no full stop, and no line of
    OpenSSL's source; nor a password, as who does not know AUTH says back what stood behind it, or
    the beginning of that."""
    text = str(error)
    if password and isinstance(error, ResponseError):
        before, said_back, _ = text.partition(password[:SAID_BACK])
        text = f"{before}(password)" if said_back else text
    return LINE_OF_SOURCE.sub("", " ".join(text.split())).rstrip(".") or type(error).__name__


def connection_to(address: Address, settings: Settings, password: str | None) -> Any:
    """A client library's, which knows how to greet any version of a store.

    It says no types of what it makes.
    """
    unix: Any = UnixDomainSocketConnection
    plain: Any = Connection
    secure: Any = SSLConnection
    options: dict[str, Any] = {
        "db": settings.store.database,
        "username": settings.store.username,
        "password": password and password.encode("utf-8", "surrogateescape"),
        # With the third a store may say things that were not asked for.
        "protocol": 2,
        "socket_timeout": PATIENCE_SECONDS,
        "socket_connect_timeout": PATIENCE_SECONDS,
    }
    if not address.port:
        return unnamed(unix(path=address.host, **options))
    options |= {"host": address.host, "port": address.port}
    if not settings.store.secure:
        return unnamed(plain(**options))
    tls = settings.tls
    options |= {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
    # From Python 3.13 on, by default, an authority without the extension keyUsage is none.  Stores
    # and their own programs take it, and `openssl req -x509` makes such ones.
    return unnamed(secure(ssl_exclude_verify_flags=[ssl.VERIFY_X509_STRICT], **options))


def unnamed(connection: Any) -> Any:
    """It does not begin with the library's own name: an error is passed over there, also that of a
    store which lets nobody in, says why and hangs up."""
    # Older releases have the last two.
    connection.driver_info = connection.lib_name = connection.lib_version = None
    return connection


def try_gets(sock: socket.socket, settings: Settings) -> None:
    """A node that answers gets only with errors, or too late, is as good as none."""
    get = Commands(settings.prefix, 0).get(bytes(NAME_BYTES))
    best = PATIENCE_SECONDS
    for _ in range(TRIES):
        begun = time.monotonic()
        check(exchange(sock, get))
        best = min(best, time.monotonic() - begun)
        if best <= settings.timeout:
            return
    late, most = best * 1000, settings.timeout * 1000
    raise ConnectError(f"it answers after {late:.1f} ms, which is later than {most:g} ms")


def check(reply: Any) -> None:
    """That it answers a get: a redirection is an answer too."""
    if isinstance(reply, ReplyError):
        if not redirect_in(str(reply), Address("", 0)):
            raise ConnectError(str(reply))
    elif not isinstance(reply, bytes | None):
        raise ConnectError("it does not answer as a store does")


def exchange(sock: socket.socket, question: bytes) -> Any:
    """What it answers, on a socket that waits.  It may have hung up already, with a word why."""
    with suppress(BrokenPipeError, ConnectionResetError):
        sock.sendall(question)
    reader = Reader(notEnoughData=NOT_WHOLE)
    while (reply := reader.gets()) is NOT_WHOLE:
        try:
            received = sock.recv(4096)
        except TimeoutError:
            raise ConnectError(f"it does not answer within {PATIENCE_SECONDS:g} s") from None
        if not received:
            raise ConnectError("it hung up")
        reader.feed(received)
    return reply
