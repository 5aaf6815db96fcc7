# SPDX-License-Identifier: BSD-3-Clause
"""A client of NBD, as far as a server needs one to read from another: an export, and reads.

Each call has a time by which it ends, whatever the other end does.
"""

import codecs
import errno
import os
import re
import socket
import struct
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from preswapd.errors import PreswapError, UsageError
from preswapd.host.connecting import connected
from preswapd.preswap.moving import tls

PORT = 10809
GREETING = struct.Struct(">8s8sH")
OPTION = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")
EXPORT = struct.Struct(">HQH")
REQUEST = struct.Struct(">IHHQQI")
REPLY = struct.Struct(">IIQ")
INIT_MAGIC, OPTION_MAGIC = b"NBDMAGIC", b"IHAVEOPT"
OPTION_REPLY_MAGIC, REQUEST_MAGIC, REPLY_MAGIC = 0x3E889045565A9, 0x25609513, 0x67446698
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
OPT_STARTTLS, OPT_GO = 5, 7
REP_ACK, REP_INFO, REP_ERROR, REP_TLS = 1, 3, 1 << 31, (1 << 31) + 5
INFO_EXPORT = 0
CMD_READ = 0
# Of a reply to an option; a server's message to people is shorter.
MOST_WORDS = 4096
# Of a URI's query.
SOCKET, KEYS, NAME = "socket", "tls-certificates", "tls-hostname"
FORMS = (
    "nbd+unix:///DEV?socket=PATH, nbds://HOST:PORT/DEV?tls-certificates=DIRECTORY,"
    " or nbd://HOST:PORT/DEV where that server is reached without TLS"
)


class AwayError(PreswapError):
    """Nobody answers there, or not in time, or not in NBD."""


class NoExportError(PreswapError):
    """Somebody answers, and has no such export, or does not give it."""


class Place(NamedTuple):
    """Where a device of another server is."""

    uri: str
    address: str | tuple[str, int]  # a Unix socket's path, or host and port
    export: str
    keys: Path | None = None  # TLS, with what lies in this directory
    name: str = ""  # which the other's certificate must be for


def parse_uri(uri: str) -> Place:
    """UsageError for what is no NBD URI, or one that cannot be used."""
    try:
        parts = urlsplit(uri)
        port = PORT if parts.port is None else parts.port
        known = query_of(parts)
    except ValueError as error:
        raise UsageError(f"{uri!r} is no NBD URI: {error}") from None
    export = unquote(parts.path.removeprefix("/"))
    if "?" in export or not (export.isascii() and export.isprintable()):
        raise UsageError(f"{uri}: no device has such a name")
    wanted = {"nbd": set(), "nbds": {KEYS}, "nbd+unix": {SOCKET}}.get(parts.scheme)
    has_host = bool(parts.hostname) == (parts.scheme != "nbd+unix")
    if wanted is None or not has_host or not port or set(known) - {NAME} != wanted:
        raise UsageError(f"{uri!r} names no device of another server: {FORMS}")
    for key in wanted:
        # It is the server that opens it, wherever that was started.
        if not known[key].startswith("/"):
            raise UsageError(f"{uri}: {key} is to be a path that begins with /")
    if parts.scheme == "nbd+unix":
        return Place(uri, known[SOCKET], export)
    assert parts.hostname is not None
    address = (parts.hostname, port)
    if parts.scheme == "nbd":
        return Place(uri, address, export)
    return Place(uri, address, export, Path(known[KEYS]), known.get(NAME, parts.hostname))


def query_of(parts: SplitResult) -> dict[str, str]:
    """ValueError: it says what would not be heeded."""
    pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    known = dict(pairs)
    if parts.scheme == "nbds" and (parts.username is not None or "tls-psk-file" in known):
        raise ValueError("a device is pulled with certificates, and not with a key (PSK)")
    if len(known) != len(pairs) or not all(known.values()):
        raise ValueError("its query says something twice, or nothing")
    if parts.username is not None or parts.fragment:
        raise ValueError("neither a user nor a # belongs in it")
    if NAME in known and parts.scheme != "nbds":
        raise ValueError(f"{NAME} is for nbds://")
    return known


def load_for(place: Place) -> None:
    """What connections to it need, while the files are of this process's version: they may be
    replaced before its guest's first request."""
    if not isinstance(place.address, str):
        codecs.lookup("idna")  # as getaddrinfo does
    if place.keys is not None:
        _ = tls.secured


class Client:
    """One connection to an export."""

    def __init__(self, place: Place, export: str, seconds: float) -> None:
        """AwayError, NoExportError."""
        self.size = 0
        self.is_secured = False
        self.ends = time.monotonic() + seconds
        try:
            self.socket = self.connect(place.address)
            try:
                self.greet()
                if place.keys is not None:
                    self.secure(place.keys, place.name)
                self.negotiate(export)
            except BaseException:
                self.socket.close()
                raise
        except (OSError, ValueError, struct.error) as error:
            if self.is_secured and not isinstance(error, TimeoutError):
                # With TLS 1.3 it looks at our certificate when we think that all is done.
                raise NoExportError(f"it does not let the certificate in {place.keys} in") from None
            raise away(error) from None

    def connect(self, address: str | tuple[str, int]) -> socket.socket:
        if not isinstance(address, str):
            made = connected(*address, self.left())
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(self.left())
            made.connect(address)
        except BaseException:
            made.close()
            raise
        return made

    def close(self) -> None:
        self.socket.close()

    def read(self, offset: int, count: int, seconds: float) -> bytes:
        """OSError with the server's errno, where it has answered; AwayError, and the connection is
        of no use any more."""
        self.ends = time.monotonic() + seconds
        try:
            self.send(REQUEST.pack(REQUEST_MAGIC, 0, CMD_READ, 0, offset, count))
            magic, error, _ = REPLY.unpack(self.receive(REPLY.size))
            if magic != REPLY_MAGIC:
                raise AwayError("it does not speak NBD")
            content = b"" if error else self.receive(count)
        except OSError as problem:
            raise away(problem) from None
        if error:
            raise OSError(error, os.strerror(error))
        return content

    # --- the beginning ---

    def greet(self) -> None:
        magic, option, flags = GREETING.unpack(self.receive(GREETING.size))
        if (magic, option) != (INIT_MAGIC, OPTION_MAGIC) or not flags & FIXED_NEWSTYLE:
            raise AwayError("it does not speak NBD")
        self.send(struct.pack(">I", flags & (FIXED_NEWSTYLE | NO_ZEROES)))

    def secure(self, keys: Path, name: str) -> None:
        """Before anything is said of a device."""
        self.send(OPTION.pack(OPTION_MAGIC, OPT_STARTTLS, 0))
        kind, words = self.replied(OPT_STARTTLS)
        if kind != REP_ACK or words:
            raise NoExportError("it has no TLS")
        self.socket.settimeout(self.left())
        try:
            secured, tls_error = tls.secured, tls.TlsError
        except ImportError as error:
            raise NoExportError(
                f"this server cannot load TLS any more ({error}): restart it"
            ) from None
        try:
            self.socket = secured(self.socket, keys, name)
        except tls_error as error:
            raise NoExportError(str(error)) from None
        self.is_secured = True

    def negotiate(self, export: str) -> None:
        name = export.encode()
        wanted = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
        self.send(OPTION.pack(OPTION_MAGIC, OPT_GO, len(wanted)) + wanted)
        while True:
            kind, words = self.replied(OPT_GO)
            if kind == REP_ACK:
                return
            if kind == REP_TLS:
                raise NoExportError("it wants TLS: nbds://HOST:PORT/DEV?tls-certificates=DIRECTORY")
            if kind & REP_ERROR:
                text = plain(last_line(words.decode("utf-8", "replace")))
                raise NoExportError(f"it does not give {export!r}" + (f": {text}" if text else ""))
            if kind == REP_INFO and len(words) >= EXPORT.size:
                info, size, _ = EXPORT.unpack_from(words)
                if info == INFO_EXPORT:
                    self.size = size

    def replied(self, asked: int) -> tuple[int, bytes]:
        """What kind of reply, and what is in it."""
        magic, option, kind, length = OPTION_REPLY.unpack(self.receive(OPTION_REPLY.size))
        if magic != OPTION_REPLY_MAGIC or option != asked or length > MOST_WORDS:
            raise AwayError("it does not speak NBD")
        return kind, self.receive(length)

    # --- bytes ---

    def left(self) -> float:
        left = self.ends - time.monotonic()
        if left <= 0:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return left

    def send(self, content: bytes) -> None:
        self.socket.settimeout(self.left())
        self.socket.sendall(content)

    def receive(self, count: int) -> bytes:
        content = bytearray(count)
        with memoryview(content) as view:
            at = 0
            while at < count:
                self.socket.settimeout(self.left())
                got = self.socket.recv_into(view[at:])
                if not got:
                    raise ConnectionResetError(errno.ECONNRESET, "it has hung up")
                at += got
        return bytes(content)


def last_line(text: str) -> str:
    """nbdkit tells where in a plugin an error came up before it tells the error."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def plain(text: str) -> str:
    """What somebody else says, without what would do things to a terminal."""
    return re.sub(r"[^ -~]+", " ", text)


def away(error: Exception) -> AwayError:
    if isinstance(error, TimeoutError):
        return AwayError("no answer in time")
    return AwayError(getattr(error, "strerror", None) or str(error) or type(error).__name__)
