# SPDX-License-Identifier: BSD-3-Clause
"""Saves over the control API, as curl or anything else would ask for them and bring them back."""

import io
import json
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest

from preswapd.api.wire import SAVE_TYPE
from preswapd.control.heads import LARGEST_HEAD, HeadReader
from preswapd.control.http import Handler
from preswapd.control.routes import Streamed
from preswapd.control.upload import Upload
from preswapd.errors import UsageError
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import connected, gone
from tests.control.test_api import UnixConnection
from tests.running import PATIENCE, RunningServer

AT = 8 << 20
SAVE, RESTORE = "/v1/devices/g1/save", "/v1/devices/g1/restore"
TYPE = {"Content-Type": SAVE_TYPE}


def asked(
    server: RunningServer, path: str, body: Any = None, headers: Mapping[str, str] = TYPE
) -> tuple[int, bytes]:
    connection = UnixConnection(server.control_socket, PATIENCE)
    try:
        connection.request("POST", path, body, dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def message(answer: tuple[int, bytes]) -> tuple[int, str]:
    return answer[0], json.loads(answer[1])["error"]["message"]


@pytest.fixture
def save(server: RunningServer) -> bytes:
    """And the device has nothing of it any more."""
    client = connected(server)
    client.pwrite(b"a page".ljust(PAGE), AT)
    gone(server, client)
    status, found = asked(server, SAVE, headers={})
    assert status == 200
    server.ctl("swapoff", "g1", "--yes")
    return found


def check_restored(server: RunningServer, answer: tuple[int, bytes]) -> None:
    told = json.loads(answer[1])
    assert (answer[0], told["name"], told["pages"]) == (200, "g1", 1)
    client = connected(server)
    assert bytes(client.pread(PAGE, AT)) == b"a page".ljust(PAGE)
    gone(server, client)


def test_with_its_length(server: RunningServer, save: bytes) -> None:
    check_restored(server, asked(server, RESTORE, save))


def test_in_chunks_of_any_length(server: RunningServer, save: bytes) -> None:
    pieces = (save[at : at + 3] for at in range(0, len(save), 3))
    check_restored(server, asked(server, RESTORE, pieces))


def test_curl(server: RunningServer, save: bytes, tmp_path: Path) -> None:
    """As docs/control-api.md has it."""
    curl = ["curl", "--silent", "--unix-socket", str(server.control_socket)]
    (tmp_path / "save").write_bytes(save)
    type_of = f"Content-Type: {SAVE_TYPE}"
    sends = ["-X", "POST", "-H", type_of, "-T", str(tmp_path / "save")]
    subprocess.run([*curl, *sends, f"http://localhost{RESTORE}"], check=True)
    to = ["-X", "POST", "-o", str(tmp_path / "again")]
    subprocess.run([*curl, *to, f"http://localhost{SAVE}"], check=True)
    assert len((tmp_path / "again").read_bytes()) > 200


def test_answer_of_http_1_0(server: RunningServer, save: bytes) -> None:
    """Without chunks, to the end of the connection."""
    asked(server, RESTORE, save)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(server.control_socket))
        sock.sendall(f"POST {SAVE} HTTP/1.0\r\n\r\n".encode())
        with sock.makefile("rb") as stream:
            found = stream.read().partition(b"\r\n\r\n")[2]
    server.ctl("swapoff", "g1", "--yes")
    check_restored(server, asked(server, RESTORE, found))


def test_what_is_refused(server: RunningServer, save: bytes) -> None:
    client = connected(server)
    for path, body in ((SAVE, None), (RESTORE, save)):
        status, said = message(asked(server, path, body, TYPE if body else {}))
        assert (status, said.startswith("a client is connected to g1: ")) == (409, True)
    gone(server, client)
    json_type = {"Content-Type": "application/json"}
    assert message(asked(server, RESTORE, "{}", json_type)) == (
        400,
        f"a restore needs a save as its body, of the type {SAVE_TYPE}",
    )
    assert message(asked(server, SAVE, '{"no": 1}', json_type))[0] == 400
    assert message(asked(server, "/v1/devices/g9/save", None, {}))[0] == 404
    assert message(asked(server, "/v1/devices/g9/restore", save))[0] == 404
    assert message(asked(server, f"{SAVE}?force=2", None, {}))[0] == 400
    assert message(asked(server, "/v1/shrink", save))[0] == 400


def test_refused_before_it_is_read(server: RunningServer, save: bytes) -> None:
    """Whoever sends much more than a socket holds gets the reason all the same."""
    asked(server, RESTORE, save)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(server.control_socket))
        head = f"POST {RESTORE} HTTP/1.1\r\nContent-Type: {SAVE_TYPE}\r\nContent-Length: 9999999999"
        sock.sendall(f"{head}\r\n\r\n".encode())
        with suppress(ConnectionError):
            sock.sendall(bytes(1 << 28))
        assert sock.recv(1000).startswith(b"HTTP/1.1 409 ")


def test_damaged(server: RunningServer, save: bytes) -> None:
    status, said = message(asked(server, RESTORE, save[:100] + b"\1" + save[101:]))
    assert (status, said) == (
        500,
        "g1 was not restored: it is damaged; none of its pages is known",
    )


def test_end_comes_when_nobody_is_kept_out_any_more() -> None:
    """A guest that is started as soon as its swap is saved gets in."""
    sent: list[bytes] = []
    handler = Handler.__new__(Handler)
    handler.wfile = io.BytesIO()
    handler.request_version = "HTTP/1.1"

    @contextmanager
    def pieces() -> Iterator[Iterator[bytes]]:
        yield iter([b"a save"])
        sent.append(cast(io.BytesIO, handler.wfile).getvalue())

    here, there = socket.socketpair()
    with here, there:
        handler.connection = here
        handler.stream(Streamed(SAVE_TYPE, pieces()))
    assert sent[0].endswith(b"\r\n6\r\na save\r\n")
    assert handler.wfile.getvalue() == sent[0] + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "body", [b"zz\r\n", b"-1\r\n", b"\r\n", b"10\r\n" + bytes(18) + b"\r\n", b"1" * 30 + b"\r\n"]
)
def test_chunks_that_are_none(server: RunningServer, body: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(server.control_socket))
        head = f"POST {RESTORE} HTTP/1.1\r\nContent-Type: {SAVE_TYPE}"
        sock.sendall(f"{head}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + body)
        assert sock.recv(1000).startswith(b"HTTP/1.1 500 ")
    client = connected(server)
    gone(server, client)


# --- Upload ---


def upload(text: bytes, headers: Mapping[str, str]) -> Upload:
    return Upload(HeadReader(io.BytesIO(text)), headers)


CHUNKED = {"transfer-encoding": "chunked"}


def test_many_chunks_are_no_long_head() -> None:
    number = LARGEST_HEAD
    body = upload(b"1\r\nx\r\n" * number + b"0\r\n\r\n", CHUNKED)
    assert body.read(number + 1) == b"x" * number
    assert body.read(1) == b""


def test_end_of_chunks() -> None:
    body = upload(b"3;why=not\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: yes\r\n\r\n", CHUNKED)
    assert [body.read(4), body.read(4), body.read(4)] == [b"abcd", b"e", b""]
    with pytest.raises(ConnectionError):
        upload(b"3\r\nabc\r\n", CHUNKED).read(4)
    with pytest.raises(ConnectionError):
        upload(b"3\r\nab", CHUNKED).read(3)
    with pytest.raises(ConnectionError):
        upload(b"3\r\nabc\r\n0\r\n", CHUNKED).read(4)


def test_end_by_its_length() -> None:
    body = upload(b"abcde", {"content-length": "4"})
    assert [body.read(3), body.read(3), body.read(1)] == [b"abc", b"d", b""]
    assert upload(b"", {"content-length": "0"}).read(1) == b""
    with pytest.raises(ConnectionError):
        upload(b"abc", {"content-length": "4"}).read(4)


@pytest.mark.parametrize(
    "headers",
    [{}, {"content-length": "-1"}, {"content-length": "x"}, {"transfer-encoding": "gzip"}],
)
def test_body_without_an_end(headers: Mapping[str, str]) -> None:
    with pytest.raises(UsageError, match="a request's body is chunked, or has a Content-Length"):
        upload(b"abc", headers)
