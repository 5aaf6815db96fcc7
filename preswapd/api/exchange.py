# SPDX-License-Identifier: BSD-3-Clause
"""One request of HTTP/1.1, and the answer to it.

The standard library's http.client loads what mail and TLS need: 20 ms, as much as Python itself,
before each command of an operator who speaks to a Unix socket.
"""

from collections.abc import Iterator
from io import BufferedReader

from preswapd.api.wire import JSON_TYPE

# Much longer than any that a server sends.
LONGEST_LINE = 65536


class BadAnswerError(Exception):
    """What came is not HTTP, or ended too early."""


def request(method: str, path: str, body: bytes | None) -> bytes:
    """What is to be sent; the path is quoted already."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if body is not None:
        head += f"Content-Type: {JSON_TYPE}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + (body or b"")


class Response:
    """The answer: its head is read at once, its body when it is asked for."""

    def __init__(self, stream: BufferedReader) -> None:
        self.stream = stream
        version, _, status = line_of(stream).partition(" ")
        number, _, self.reason = status.partition(" ")
        if not version.startswith("HTTP/1.") or not number.isdecimal():
            raise BadAnswerError("it does not speak HTTP")
        self.status = int(number)
        self.headers = dict(headers(stream))

    def read(self) -> bytes:
        """The body, to its end."""
        return b"".join(self.pieces())

    def lines(self) -> Iterator[bytes]:
        """The body's lines, each as soon as it is there."""
        rest = b""
        for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
        if rest:
            yield rest

    def pieces(self) -> Iterator[bytes]:
        """The body as it was sent: in chunks, or as many bytes as its head says, or to the end."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from chunks(self.stream)
        elif "content-length" in self.headers:
            yield exactly(self.stream, number_of(self.headers["content-length"], 10))
        else:
            yield self.stream.read()


def headers(stream: BufferedReader) -> Iterator[tuple[str, str]]:
    """To the empty line behind them; their names do not depend on the case."""
    while line := line_of(stream):
        name, _, value = line.partition(":")
        yield name.lower(), value.strip()


def chunks(stream: BufferedReader) -> Iterator[bytes]:
    """A line with its length goes before each, and an empty one after it; the last one is empty."""
    while length := number_of(line_of(stream).partition(";")[0], 16):
        yield exactly(stream, length)
        line_of(stream)


def line_of(stream: BufferedReader) -> str:
    line = stream.readline(LONGEST_LINE)
    if not line.endswith(b"\n"):
        raise BadAnswerError("its answer is incomplete" if line else "it hung up")
    return line.decode("latin-1").strip()


def exactly(stream: BufferedReader, length: int) -> bytes:
    found = stream.read(length)
    if len(found) < length:
        raise BadAnswerError(f"only {len(found)} of {length} bytes arrived")
    return found


def number_of(text: str, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if number < 0:
        raise BadAnswerError(f"{text!r} is not a length")
    return number
