# SPDX-License-Identifier: BSD-3-Clause
"""The client's half of HTTP: what it makes of answers, whole and broken."""

import io
from collections.abc import Iterable

import pytest

from preswapd.api.exchange import LARGEST_BODY, BadAnswerError, Response, request


def response(*parts: bytes) -> Response:
    return Response(io.BufferedReader(io.BytesIO(b"".join(parts))))


def chunked(pieces: Iterable[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: Chunked\r\n\r\n"


def test_request_without_a_body() -> None:
    assert request("GET", "/v1/stats", None) == b"GET /v1/stats HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_request_with_a_body() -> None:
    head, _, body = request("PUT", "/v1/sysctl", b"{}").partition(b"\r\n\r\n")
    assert b"Content-Type: application/json\r\nContent-Length: 2" in head
    assert body == b"{}"


def test_status_and_reason() -> None:
    found = response(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    assert (found.status, found.reason, found.read()) == (404, "Not Found", b"")
    assert response(b"HTTP/1.0 500 \r\n\r\n").status == 500


def test_body_of_a_length() -> None:
    assert response(OK, b"CONTENT-LENGTH:  4\r\n\r\n", b"body of the next").read() == b"body"


def test_body_to_the_end() -> None:
    assert response(OK, b"\r\n", b"all of it").read() == b"all of it"


def test_body_in_chunks() -> None:
    text = chunked([b"a" * 300, b"b", b""])
    assert response(CHUNKED, text, b"next").read() == b"a" * 300 + b"b"
    assert response(CHUNKED, b"1;name=value\r\nx\r\n0\r\n\r\n").read() == b"x"


def test_lines_do_not_end_where_chunks_do() -> None:
    pieces = [b"one\ntw", b"o", b"\nthree\n", b"four", b""]
    expected = [b"one", b"two", b"three", b"four"]
    assert list(response(CHUNKED, chunked(pieces)).lines()) == expected


def test_a_line_is_there_before_the_next() -> None:
    lines = response(CHUNKED, chunked([b"one\n"])).lines()
    assert next(lines) == b"one"
    with pytest.raises(BadAnswerError):
        next(lines)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
        b"HTTP/1.1 200 " + b"x" * 100000 + b"\r\n\r\n",
        b"HTTP/1.1 " + b"2" * 5000 + b" OK\r\n\r\n",
        OK + b"".join(b"X-%d: y\r\n" % number for number in range(1000)) + b"\r\n",
    ],
)
def test_no_head(text: bytes) -> None:
    with pytest.raises(BadAnswerError):
        response(text)


@pytest.mark.parametrize(
    "text",
    [
        OK + b"Content-Length: 9\r\n\r\nshort",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: many\r\n\r\n",
        CHUNKED,
        CHUNKED + b"\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"5\r\nshor",
        CHUNKED + b"5\r\nshort\r\n",
        CHUNKED + b"5\r\nshort and not so short\r\n0\r\n\r\n",
        # More than there is memory, or than a number of the machine holds.
        OK + b"Content-Length: 4000000000000\r\n\r\nshort",
        OK + b"Content-Length: 99999999999999999999\r\n\r\nshort",
        CHUNKED + b"fffffffffffffffff\r\nshort",
    ],
)
def test_body_that_breaks_off(text: bytes) -> None:
    found = response(text)
    with pytest.raises(BadAnswerError):
        found.read()


class Endless(io.RawIOBase):
    """A head, and then the same again and again."""

    def __init__(self, head: bytes, piece: bytes) -> None:
        self.head = head
        self.piece = piece
        self.sent = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = (self.head or self.piece)[: len(buffer)]
        self.head = b""
        buffer[: len(piece)] = piece
        self.sent += len(piece)
        assert self.sent < 2 * LARGEST_BODY, "it is read for ever"
        return len(piece)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (CHUNKED, chunked([b"x" * 0x8000])),
        (OK + b"\r\n", b"x" * 0x8000),
        (OK, b"Endless: header\r\n"),
    ],
)
def test_answer_without_an_end(head: bytes, piece: bytes) -> None:
    def answer() -> Response:
        return Response(io.BufferedReader(Endless(head, piece), len(piece)))

    with pytest.raises(BadAnswerError, match="no end"):
        answer().read()
    with pytest.raises(BadAnswerError, match="no end"):
        list(answer().lines())
