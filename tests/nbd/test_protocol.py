# SPDX-License-Identifier: BSD-3-Clause
"""Clients that do not keep to the protocol: bytes on a raw socket.

Whatever they send, the server lives, a client that was connected before is served on, and a new
one is welcome.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, Self

import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import Connect, connected
from tests.conftest import StartServer
from tests.nbd.conftest import MIB, SIZE
from tests.running import PATIENCE, RunningServer

pytestmark = pytest.mark.xdist_group("nbd-protocol")

OPTION = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")
REQUEST = struct.Struct(">IHHQQI")
REPLY = struct.Struct(">IIQ")

OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_STARTTLS, OPT_INFO, OPT_GO = 1, 2, 3, 5, 6, 7
OPT_STRUCTURED_REPLY = 8
REP_ACK, REP_ERROR = 1, 1 << 31
REP_ERR_UNSUP = REP_ERROR + 1

REQUEST_MAGIC = 0x25609513
READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = 0, 1, 2, 3, 4, 5, 6, 7


class RawClient:
    """The protocol by hand."""

    def __init__(self, server: RunningServer) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        try:
            self.sock.connect(str(server.nbd_socket))
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    told = b""  # with the last reply to an option

    def __exit__(self, *error: object) -> None:
        self.sock.close()

    def receive(self, length: int) -> bytes:
        """Exactly so many bytes, fewer where the server hung up."""
        found = b""
        with suppress(ConnectionError):
            while len(found) < length and (piece := self.sock.recv(length - len(found))):
                found += piece
        return found

    def is_hung_up(self) -> bool:
        return self.receive(1) == b""

    def greet(self) -> Self:
        assert self.receive(18)[:16] == b"NBDMAGICIHAVEOPT"
        self.sock.sendall(struct.pack(">I", 3))
        return self

    def option(self, number: int, data: bytes = b"") -> int:
        """The last reply's type."""
        self.sock.sendall(OPTION.pack(b"IHAVEOPT", number, len(data)) + data)
        while True:
            _, about, kind, length = OPTION_REPLY.unpack(self.receive(OPTION_REPLY.size))
            assert about == number
            self.told = self.receive(length)
            if kind == REP_ACK or kind >= REP_ERROR:
                return int(kind)

    def go(self, name: str = "g1") -> Self:
        data = struct.pack(">I", len(name)) + name.encode() + struct.pack(">H", 0)
        assert self.option(OPT_GO, data) == REP_ACK
        return self

    def send(
        self,
        kind: int,
        offset: int = PAGE,
        length: int = PAGE,
        flags: int = 0,
        payload: bytes = b"",
        magic: int = REQUEST_MAGIC,
    ) -> None:
        self.sock.sendall(REQUEST.pack(magic, flags, kind, 77, offset, length) + payload)

    def error(self) -> int:
        """Of the next reply."""
        magic, number, cookie = REPLY.unpack(self.receive(REPLY.size))
        assert (magic, cookie) == (0x67446698, 77)
        return int(number)

    def works(self) -> bool:
        self.send(READ)
        return self.error() == 0 and len(self.receive(PAGE)) == PAGE


@pytest.fixture(autouse=True)
def bystander(module_server: RunningServer, connect: Connect) -> Iterator[Any]:
    """Another client, which must not notice anything."""
    pid = module_server.pid
    client = connect(module_server)
    client.pwrite(b"bystander" * 1000, MIB)
    yield client
    assert bytes(client.pread(9000, MIB)) == b"bystander" * 1000
    connect(module_server).pread(PAGE, 0)
    assert module_server.pid == pid
    assert "Traceback" not in module_server.log


@pytest.fixture
def raw(module_server: RunningServer) -> Iterator[RawClient]:
    with RawClient(module_server) as client:
        yield client


@pytest.fixture
def transmitting(raw: RawClient) -> RawClient:
    """Past the handshake."""
    return raw.greet().go()


# --- handshakes ---


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"\xff" * 64, os.urandom(4096), b"IHAVEOPT" * 8],
    ids=["http", "zeros", "ones", "noise", "magic"],
)
def test_garbage_instead_of_a_handshake(raw: RawClient, garbage: bytes) -> None:
    raw.sock.sendall(garbage)
    raw.sock.shutdown(socket.SHUT_WR)
    raw.receive(1 << 16)
    assert raw.is_hung_up()


def test_client_that_says_nothing(raw: RawClient, module_server: RunningServer) -> None:
    """It waits, and nobody else does."""
    with RawClient(module_server) as other:
        assert other.greet().go().works()
    assert raw.greet().go().works()


def test_who_asks_for_what_is_not_there_is_told_nothing_of_the_code(raw: RawClient) -> None:
    """nbdkit before 1.42 tells nothing at all."""
    name = b"no-such-export"
    data = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
    assert raw.greet().option(OPT_GO, data) >= REP_ERROR
    words = b"preswap.py: open: error: no device 'no-such-export'"
    assert not raw.told or raw.told.rstrip(b"\0").endswith(words), raw.told


def test_handshake_byte_by_byte(raw: RawClient, bystander: Any) -> None:
    raw.greet()
    data = struct.pack(">I", 2) + b"g1" + struct.pack(">H", 0)
    for byte in OPTION.pack(b"IHAVEOPT", OPT_GO, len(data)) + data:
        raw.sock.sendall(bytes([byte]))
        bystander.pread(512, MIB)
    assert raw.receive(8)


def test_hang_up_within_an_option(raw: RawClient) -> None:
    raw.greet()
    raw.sock.sendall(OPTION.pack(b"IHAVEOPT", OPT_GO, 1000) + b"half")
    raw.sock.shutdown(socket.SHUT_WR)
    assert raw.is_hung_up()


def test_option_without_its_magic(raw: RawClient) -> None:
    raw.greet()
    raw.sock.sendall(OPTION.pack(b"ihaveopt", OPT_LIST, 0))
    assert raw.is_hung_up()


@pytest.mark.parametrize("length", [1 << 20, (1 << 32) - 1])
def test_option_that_is_too_long(raw: RawClient, length: int) -> None:
    raw.greet()
    raw.sock.sendall(OPTION.pack(b"IHAVEOPT", OPT_GO, length))
    raw.sock.shutdown(socket.SHUT_WR)
    raw.receive(1 << 16)
    assert raw.is_hung_up()


def test_unknown_option_is_unsupported(raw: RawClient) -> None:
    assert raw.greet().option(4711, b"data") == REP_ERR_UNSUP
    assert raw.go().works()


def test_unknown_export_leaves_the_handshake_open(raw: RawClient) -> None:
    data = struct.pack(">I", 5) + b"other" + struct.pack(">H", 0)
    assert raw.greet().option(OPT_GO, data) >= REP_ERROR
    assert raw.go().works()


@pytest.mark.parametrize("name", [b"../g1", b"g1\0", b"G1", b"g1 ", b"\xff\xfe", b"x" * 4000])
def test_no_export_by_a_similar_name(raw: RawClient, name: bytes) -> None:
    data = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
    assert raw.greet().option(OPT_INFO, data) >= REP_ERROR


def test_old_style_export_name(raw: RawClient) -> None:
    raw.greet()
    raw.sock.sendall(OPTION.pack(b"IHAVEOPT", OPT_EXPORT_NAME, 2) + b"g1")
    size, _ = struct.unpack(">QH", raw.receive(10))
    assert size == SIZE
    raw.receive(0)
    assert raw.works()


def test_old_style_name_that_is_unknown(raw: RawClient) -> None:
    """This option knows no error: the server can only hang up."""
    raw.greet()
    raw.sock.sendall(OPTION.pack(b"IHAVEOPT", OPT_EXPORT_NAME, 5) + b"other")
    assert raw.is_hung_up()


def test_tls_is_refused(raw: RawClient) -> None:
    assert raw.greet().option(OPT_STARTTLS) >= REP_ERROR
    assert raw.go().works()


def test_abort_ends_the_connection(raw: RawClient) -> None:
    assert raw.greet().option(OPT_ABORT) == REP_ACK
    assert raw.is_hung_up()


def test_structured_replies_as_the_server_says(
    raw: RawClient, module_server: RunningServer
) -> None:
    """Off where one request of theirs can abort nbdkit."""
    offered = module_server.json_stats()["server"]["structured_replies"]
    assert raw.greet().option(OPT_STRUCTURED_REPLY) == (REP_ACK if offered else REP_ERR_UNSUP)


# --- requests ---


@pytest.mark.parametrize("magic", [0, REQUEST_MAGIC + 1, 0x67446698])
def test_request_without_its_magic_ends_the_connection(transmitting: RawClient, magic: int) -> None:
    transmitting.send(READ, magic=magic)
    assert transmitting.is_hung_up()


@pytest.mark.parametrize("kind", [8, 99, 0xFFFF])
def test_unknown_request_is_an_error(transmitting: RawClient, kind: int) -> None:
    transmitting.send(kind)
    assert transmitting.error() == errno.EINVAL
    assert transmitting.works()


@pytest.mark.parametrize("length", [PAGE, (1 << 32) - 1])
def test_block_status_is_an_error(transmitting: RawClient, length: int) -> None:
    """The long one aborts an nbdkit of the wrong age, unless structured replies are off."""
    transmitting.send(BLOCK_STATUS, 0, length)
    assert transmitting.error() == errno.EINVAL
    assert transmitting.works()


def test_unknown_flags_are_an_error(transmitting: RawClient) -> None:
    transmitting.send(READ, flags=0xFF00)
    assert transmitting.error() == errno.EINVAL
    assert transmitting.works()


@pytest.mark.parametrize("kind", [READ, TRIM, WRITE_ZEROES, CACHE])
def test_absurd_length_is_an_error(transmitting: RawClient, kind: int) -> None:
    transmitting.send(kind, length=(1 << 32) - 1)
    assert transmitting.error() != 0
    assert transmitting.works()


@pytest.mark.parametrize("offset", [SIZE, 1 << 62, (1 << 64) - PAGE, (1 << 64) - 1])
def test_absurd_offset_is_an_error(transmitting: RawClient, offset: int) -> None:
    for kind in (READ, TRIM, WRITE_ZEROES):
        transmitting.send(kind, offset)
        assert transmitting.error() in {errno.EINVAL, errno.ENOSPC}
    transmitting.send(WRITE, offset, payload=bytes(PAGE))
    assert transmitting.error() in {errno.EINVAL, errno.ENOSPC}
    assert transmitting.works()


def test_write_of_more_than_is_possible_ends_the_connection(transmitting: RawClient) -> None:
    """What follows cannot be told from requests: an error at most, then nothing more."""
    with suppress(ConnectionError):
        transmitting.send(WRITE, 0, (1 << 32) - 1, payload=bytes(MIB))
        transmitting.sock.shutdown(socket.SHUT_WR)
    transmitting.receive(1 << 16)
    assert transmitting.is_hung_up()


def test_write_that_ends_in_its_payload_changes_nothing(
    transmitting: RawClient, bystander: Any
) -> None:
    bystander.pwrite(b"o" * 4 * PAGE, PAGE)
    transmitting.send(WRITE, PAGE, 4 * PAGE, payload=b"n" * 2 * PAGE)
    transmitting.sock.shutdown(socket.SHUT_WR)
    assert transmitting.is_hung_up()
    assert bytes(bystander.pread(4 * PAGE, PAGE)) == b"o" * 4 * PAGE


def test_end_with_requests_in_flight(transmitting: RawClient) -> None:
    """All are answered.  nbdkit 1.42 waits with 16 threads until the client has hung up too."""
    for _ in range(16):
        transmitting.send(READ, 0, MIB)
    transmitting.send(DISC)
    for _ in range(16):
        assert transmitting.error() == 0
        assert len(transmitting.receive(MIB)) == MIB


def test_flush_with_a_length(transmitting: RawClient) -> None:
    transmitting.send(FLUSH, 0, 0)
    assert transmitting.error() == 0
    transmitting.send(FLUSH, PAGE, PAGE)
    assert transmitting.error() == errno.EINVAL
    assert transmitting.works()


# --- many ---


def test_hang_ups_within_requests(module_server: RunningServer) -> None:
    """With replies that nobody reads, and payloads that do not come."""
    for number in range(60):
        with RawClient(module_server) as client:
            client.greet().go()
            for _ in range(16):
                client.send(READ, 0, MIB)
            client.send(WRITE, 8 * MIB, MIB, payload=bytes(1000 * number))


def test_hundreds_of_connections(module_server: RunningServer, connect: Connect) -> None:
    clients = [connect(module_server) for _ in range(300)]
    for number, client in enumerate(clients):
        client.pwrite(bytes([number % 256]) * 512, 16 * MIB + number * 512)
    found = bytes(clients[7].pread(300 * 512, 16 * MIB))
    assert found == b"".join(bytes([number % 256]) * 512 for number in range(300))


def test_hundreds_of_half_handshakes(module_server: RunningServer) -> None:
    """At once: none of them finds the queue of the listening socket full."""
    with ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(RawClient(module_server)).sock.sendall(b"\0")


def test_connections_are_counted_down_again(start_server: StartServer) -> None:
    server = start_server()
    for _ in range(5):
        with RawClient(server) as client:
            assert client.greet().go().works()
            client.send(READ, 0, MIB)
    last = connected(server)
    last.pread(PAGE, 0)
    assert server.json_stats()["devices"]["g1"]["connections"] == 1
    last.shutdown()


def test_more_connections_than_a_process_may_open_at_first(
    start_server: StartServer, connect: Connect
) -> None:
    server = start_server(start=False)
    server.launch(["prlimit", "--nofile=90:1000", *server.command()])
    clients = [connect(server) for _ in range(100)]
    assert all(bytes(client.pread(512, PAGE)) == bytes(512) for client in clients)
    assert server.json_stats()["devices"]["g1"]["connections"] == 100
