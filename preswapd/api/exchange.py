# SPDX-License-Identifier: BSD-3-Clause
"""One request of HTTP/1.1, and the answer to it.

The standard library's http.client loads what mail and TLS need: 20 ms, as much as Python itself,
before each command of an operator who speaks to a Unix socket.
"""

from collections.abc import Iterator
from io import BufferedReader

from preswapd.api.wire import JSON_TYPE

# Much more than any server sends: of 511 devices, 6 MiB of metrics.  What answers may be something
# else, and must not take all memory.
LONGEST_LINE = 65536
LARGEST_BODY = 64 << 20
MOST_HEADERS = 100
# So much is read at once: a length is only what somebody claims.
PIECE_BYTES = 65536

NO_END = "its answer has no end"


class BadAnswerError(Exception):
    """What came is not HTTP, or ended too early."""


def request(method: str, path: str, body: bytes | None) -> bytes:
    """What is to be sent; the path is quoted already."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if body is not None:
        head += f"Content-Type: {JSON_TYPE}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + (body or b"")


def request_head(method: str, path: str, content_type: str) -> bytes:
    """Of a request whose body follows in chunks."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()


def chunk(piece: bytes) -> bytes:
    """An empty one is the last."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


class Response:
    """The answer: its head is read at once, its body when it is asked for."""

    def __init__(self, stream: BufferedReader) -> None:
        self.stream = stream
        version, _, status = line_of(stream).partition(" ")
        number, _, self.reason = status.partition(" ")
        if not version.startswith("HTTP/1.") or not (number.isdecimal() and len(number) == 3):
            raise BadAnswerError("it does not speak HTTP")
        self.status = int(number)
        self.headers = dict(headers(stream))

    def read(self) -> bytes:
        """The body, to its end."""
        body = bytearray()
        for piece in self.pieces():
            body += piece
            if len(body) > LARGEST_BODY:
                raise BadAnswerError(NO_END)
        return bytes(body)

    def lines(self) -> Iterator[bytes]:
        """The body's lines, each as soon as it is there."""
        rest = b""
        for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
            if len(rest) > LONGEST_LINE:
                raise BadAnswerError(NO_END)
        if rest:
            yield rest

    def pieces(self) -> Iterator[bytes]:
        """The body as it was sent: in chunks, or as many bytes as its head says, or to the end."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from chunks(self.stream)
        elif "content-length" in self.headers:
            yield from exactly(self.stream, number_of(self.headers["content-length"], 10))
        else:
            yield from iter(lambda: self.stream.read1(PIECE_BYTES), b"")


def headers(stream: BufferedReader) -> Iterator[tuple[str, str]]:
    """To the empty line behind them; their names do not depend on the case."""
    for _ in range(MOST_HEADERS):
        if not (line := line_of(stream)):
            return
        name, _, value = line.partition(":")
        yield name.lower(), value.strip()
    raise BadAnswerError(NO_END)


def chunks(stream: BufferedReader) -> Iterator[bytes]:
    """A line with its length goes before each, and an empty one after it; the last one is empty."""
    while length := number_of(line_of(stream).partition(";")[0], 16):
        yield from exactly(stream, length)
        if line_of(stream):
            raise BadAnswerError("a chunk is longer than it says")


def line_of(stream: BufferedReader) -> str:
    line = stream.readline(LONGEST_LINE)
    if not line.endswith(b"\n"):
        raise BadAnswerError(NO_END if len(line) == LONGEST_LINE else "it hung up")
    return line.decode("latin-1").strip()


def exactly(stream: BufferedReader, length: int) -> Iterator[bytes]:
    left = length
    while left:
        piece = stream.read(min(left, PIECE_BYTES))
        if not piece:
            raise BadAnswerError(f"only {length - left} of {length} bytes arrived")
        left -= len(piece)
        yield piece


def number_of(text: str, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if number < 0:
        raise BadAnswerError(f"{text!r} is not a length")
    return number
