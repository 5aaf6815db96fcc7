# SPDX-License-Identifier: BSD-3-Clause
"""Guests and operators that ask too much, or too slowly, hold nobody else up."""

import errno
import json
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import nbd
import pytest

from preswapd.control.http import CONNECTIONS
from preswapd.server.buffers import LARGEST_REQUEST
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import Connect
from tests.conftest import StartServer
from tests.faults.conftest import MIB, NOISE, counters, page, place
from tests.faults.injection import Call, Injector
from tests.nbd.test_memory import private_memory
from tests.nbd.test_protocol import READ, TRIM, WRITE, RawClient
from tests.running import PATIENCE, RunningServer, wait_until

MOST = LARGEST_REQUEST
# What nbdkit itself takes.
NBDKITS_MOST = 64 * MIB

# --- NBD ---


def test_two_guests_on_one_export_are_counted(server: RunningServer, connect: Connect) -> None:
    """What becomes of them is in nbd/test_superseded.py."""
    one, two = connect(server), connect(server)
    one.pwrite(page(1), place(1))
    two.pwrite(page(2), place(1))
    assert bytes(one.pread(PAGE, place(1))) == page(2)
    assert counters(server)["connections"] == 2


@pytest.mark.parametrize(
    ("pool_size", "flags"), [("32M", nbd.CMD_FLAG_FUA), ("4M", 0)], ids=["bypass", "rejected"]
)
def test_old_request_that_goes_on_to_the_disk_overwrites_no_newer_page(
    start_server: StartServer, injector: Injector, connect: Connect, pool_size: str, flags: int
) -> None:
    """A small write that tmem does not take goes on without the interpreter lock.  It is in flight
    all the time: were there a gap, whoever comes back could write something newer in it."""
    server = start_server(env=injector.env, pool_size=pool_size)
    connect(server).pwrite(NOISE[: 8 * MIB], PAGE)
    old = connect(server)
    injector.hold(Call.LOCK_AGAIN, "")
    old.aio_pwrite(page(1), 3000 * PAGE, flags=flags)
    # Answered, or held in the gap that must not be there.
    while old.aio_in_flight() and not injector.caught:
        old.poll(10)
    injector.catch_no_more()
    new = connect(server)
    new.pwrite(page(2), 3000 * PAGE)
    injector.end()
    while old.aio_in_flight():
        old.poll(-1)
    assert bytes(new.pread(PAGE, 3000 * PAGE)) == page(2)


@pytest.mark.parametrize("length", [MOST + 1, NBDKITS_MOST, NBDKITS_MOST + PAGE])
def test_read_of_more_than_the_largest_request(start_server: StartServer, length: int) -> None:
    """What nbdkit itself does not take never comes as far as to be told of."""
    server = start_server(devices={"g1": "128M"})
    with RawClient(server) as client:
        client.greet().go()
        for _ in range(2):
            client.send(READ, 0, length)
            assert client.error() in {errno.ENOMEM, errno.EINVAL}
        assert client.works()
    told = "a client of g1 asks for more than 2M at once, which is refused"
    assert server.lines.count(told) == (length <= NBDKITS_MOST)


@pytest.mark.parametrize("length", [MOST, MOST + PAGE])
def test_write_of_the_largest_request_and_a_page_more(
    module_server: RunningServer, length: int
) -> None:
    """Done or refused as a whole."""
    with RawClient(module_server) as client:
        client.greet().go().send(TRIM, PAGE, 2 * MOST)
        assert client.error() == 0
        client.send(WRITE, PAGE, length, payload=NOISE[:length])
        refused = client.error() == errno.EINVAL
        assert refused == (length > MOST)
        client.send(READ, length, PAGE)
        assert client.error() == 0
        expected = NOISE[length - PAGE : length]
        assert client.receive(PAGE) == (bytes(PAGE) if refused else expected)


def test_unaligned_requests_are_served(module_server: RunningServer, connect: Connect) -> None:
    client = connect(module_server)
    client.pwrite(NOISE[:10001], PAGE + 3)
    client.pwrite(NOISE[:5000], 100 * PAGE - 17, flags=nbd.CMD_FLAG_FUA)
    assert bytes(client.pread(10001, PAGE + 3)) == NOISE[:10001]
    assert bytes(client.pread(5000, 100 * PAGE - 17)) == NOISE[:5000]


def test_reader_of_nothing_holds_only_itself_up(
    module_server: RunningServer, connect: Connect
) -> None:
    """Its replies fill the socket, and its worker thread waits."""
    connect(module_server).pwrite(NOISE, PAGE)
    with RawClient(module_server) as client:
        client.greet().go()
        for _ in range(16):
            client.send(READ, PAGE, MOST)
        assert bytes(connect(module_server).pread(PAGE, PAGE)) == NOISE[:PAGE]
        assert client.error() == 0
        assert client.receive(PAGE) == NOISE[:PAGE]


# --- the control socket ---


def controlled(stack: ExitStack, server: RunningServer) -> socket.socket:
    sock = stack.enter_context(socket.socket(socket.AF_UNIX))
    sock.settimeout(PATIENCE)
    sock.connect(str(server.control_socket))
    return sock


def ask_for_ever(sock: socket.socket) -> None:
    while True:
        sock.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 100)


def test_operator_that_does_not_read_holds_only_itself_up(
    module_server: RunningServer, stack: ExitStack
) -> None:
    sock = controlled(stack, module_server)
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        ask_for_ever(sock)
    sock.settimeout(PATIENCE)
    assert module_server.ctl("list").returncode == 0
    assert sock.recv(12) == b"HTTP/1.1 200"


def test_operator_that_stops_within_a_request_holds_only_itself_up(
    module_server: RunningServer, stack: ExitStack
) -> None:
    sock = controlled(stack, module_server)
    sock.sendall(b"POST /v1/shrink HTTP/1.1\r\nContent-Length: 12\r\n\r\n{")
    assert module_server.ctl("shrink", "0").returncode == 0
    sock.sendall(b'"pages": 0}')
    assert sock.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /v1/sysc",
        b"GET /v1/sysctl HTTP/1.1\r\n\r\n",
        b"POST /v1/shrink HTTP/1.1\r\nContent-Length: 12\r\n\r\n{",
    ],
    ids=["nothing", "half a line", "a whole request", "half a body"],
)
def test_operators_that_ask_nothing_make_way(
    server: RunningServer, stack: ExitStack, said: bytes
) -> None:
    """As many as are served, and then one that asks; the oldest goes, and no other."""
    held: list[socket.socket] = []
    while len(held) < CONNECTIONS:
        held.append(sock := controlled(stack, server))
        sock.sendall(said)
        if said.startswith(b"GET") and said.endswith(b"\r\n\r\n"):
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        if len(held) == 1:
            # Each connection's thread notes when it became idle: those that come at once may do so
            # in any order.
            time.sleep(0.2)
    assert "g1" in server.ctl("list").stdout
    closed = [is_closed(sock) for sock in held]
    assert 1 <= sum(closed) < 5
    assert closed[0]
    assert "was disconnected" not in server.log


def is_closed(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


def test_more_operators_than_are_served_are_hung_up_on(
    server: RunningServer, connect: Connect, stack: ExitStack
) -> None:
    """Where all are being answered. Guests notice nothing; as soon as one leaves, the next is
    served."""
    client = connect(server)
    held = [controlled(stack, server) for _ in range(CONNECTIONS)]
    for sock in held:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            ask_for_ever(sock)
    wait_until(lambda: server.ctl("list", check=False).returncode == 3, "all to be answered")
    done = server.ctl("list", check=False)
    assert done.returncode == 3
    assert "went away" in done.stderr
    server.wait_for_line(
        f"{CONNECTIONS} clients are on the control socket: one more was disconnected"
    )
    assert sum("clients are on the control socket" in line for line in server.lines) == 1
    client.pwrite(page(1), PAGE)
    for sock in held:
        sock.close()
    assert served_again(server)


def served_again(server: RunningServer) -> bool:
    return any(server.ctl("list", check=False).returncode == 0 for _ in range(20))


def test_many_operators_at_once_are_all_answered(
    module_server: RunningServer, stack: ExitStack
) -> None:
    socks = [controlled(stack, module_server) for _ in range(CONNECTIONS - 4)]
    for sock in socks:
        sock.sendall(b"GET /v1/stats HTTP/1.0\r\n\r\n")
    for sock in socks:
        _, _, body = received(sock).partition(b"\r\n\r\n")
        assert json.loads(body)["devices"].keys() == {"g1"}


def received(sock: socket.socket) -> bytes:
    found = b""
    while piece := sock.recv(65536):
        found += piece
    return found


def test_endless_head_is_refused(module_server: RunningServer, stack: ExitStack) -> None:
    """Lines of it are kept until its end."""
    sock = controlled(stack, module_server)
    sock.sendall(b"GET /v1/shrink HTTP/1.1\r\n")
    with suppress(ConnectionError):
        for number in range(90):
            sock.sendall(b"X-%d: %b\r\n" % (number, b"a" * 60_000))
    assert sock.recv(12) == b"HTTP/1.1 431"
    assert module_server.ctl("list").returncode == 0


def test_heads_of_one_connection_are_counted_apart(
    module_server: RunningServer, stack: ExitStack
) -> None:
    sock = controlled(stack, module_server)
    for _ in range(3):
        sock.sendall(b"GET /v1/shrink HTTP/1.1\r\nX-1: %b\r\n\r\n" % (b"a" * 60_000))
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")


def test_many_operators_at_once_take_little_memory(
    start_server: StartServer, stack: ExitStack, tmp_path: Path
) -> None:
    """One answer is made after the other: together 40 of them would take 50 MiB."""
    config = tmp_path / "many.toml"
    config.write_text("".join(f'[device.d{number}]\nsize = "64K"\n' for number in range(100)))
    server = start_server(devices={}, extra=[f"--config={config}"])
    before = most = private_memory(server)
    socks = [controlled(stack, server) for _ in range(40)]
    for sock in socks:
        sock.sendall(b"GET /v1/stats HTTP/1.0\r\n\r\n")
    for sock in socks:
        while sock.recv(65536):
            most = max(most, private_memory(server))
    assert most - before < 24 * MIB
