# SPDX-License-Identifier: BSD-3-Clause
"""Strangers at the address of `listen`: whatever they do, guests are served and nobody gets in."""

import random
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import nbd
import pytest

from preswapd.server.arrivals import MOST_OF_A_HOST
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import connected
from tests.faults.conftest import MIB, NOISE
from tests.faults.tls_sessions import Guarded, play, threads_of
from tests.running import PATIENCE, RunningServer, wait_for, wait_until
from tests.tls import (
    HOST,
    OPT_LIST,
    OPTION,
    REP_ACK,
    Stranger,
    connected_to,
    needs_openssl,
    relay,
    with_certificates,
)

pytestmark = [needs_openssl, pytest.mark.xdist_group("faults-tls")]

SESSIONS = 150


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with Guarded(tmp_path_factory.mktemp("guarded")) as server:
        yield server


@pytest.fixture(autouse=True)
def bystanders(guarded: Guarded) -> Iterator[None]:
    """One at the Unix socket and one over TLS, which must not notice anything."""
    pid = guarded.pid
    both = connected(guarded, "g1"), connected_to(guarded.port, with_certificates(guarded.keys))
    for number, client in enumerate(both):
        client.pwrite(NOISE[: 16 * PAGE], (1 + number) * MIB)
    yield
    for number, client in enumerate(both):
        assert bytes(client.pread(16 * PAGE, (1 + number) * MIB)) == NOISE[: 16 * PAGE]
        client.shutdown()
    connected_to(guarded.port, with_certificates(guarded.keys)).shutdown()
    assert guarded.pid == pid
    assert "Traceback" not in guarded.log


@pytest.fixture
def stranger(guarded: Guarded) -> Iterator[Callable[..., Stranger]]:
    with ExitStack() as stack:

        def come(host: str = "127.0.0.1") -> Stranger:
            found = Stranger(guarded.port, host)
            stack.callback(found.close)
            return found

        yield come


def is_counted(guarded: Guarded, before: int, more: int) -> None:
    wait_for(lambda: guarded.refused, lambda now: now >= before + more)
    assert guarded.refused == before + more


# --- who dawdles ---


def test_dawdlers_are_hung_up_on_and_idle_guests_are_not(
    guarded: Guarded, stranger: Callable[[], Stranger]
) -> None:
    """Wherever they stop on their way in, with and without a certificate.  Who has shown who it is
    may be silent for as long as it likes."""
    before = guarded.refused
    guest = stranger().secure(guarded.context)
    assert guest.go() == REP_ACK
    silent, greeted, halfway, asked, said, half, inside = (stranger() for _ in range(7))
    greeted.greet()
    halfway.greet().sock.sendall(b"IHAVEOPT\0\0")
    asked.ask_for_tls()
    said.ask_for_tls().sock.sendall(b"\x16\x03\x01\x02\x00\x01")
    half.greet().sock.sendall(OPTION.pack(b"IHAVEOPT", OPT_LIST, 1000) + b"half")
    inside.secure(guarded.context)
    for each in (silent, greeted, halfway, asked, said, half, inside):
        assert each.is_hung_up()
    is_counted(guarded, before, 7)
    guarded.wait_for_line("a client at 127.0.0.1 was refused: after 10 s it has not opened")
    guest.sock.sendall(b"\x25\x60\x95\x13" + bytes(20) + PAGE.to_bytes(4, "big"))
    assert guest.receive(4) == b"\x67\x44\x66\x98"


def test_crowd_of_strangers_keeps_nobody_else_out(
    guarded: Guarded, stranger: Callable[..., Stranger]
) -> None:
    before = guarded.refused
    crowd = [stranger().greet() for _ in range(MOST_OF_A_HOST)]
    late = stranger()
    assert late.is_hung_up()
    client = connected(guarded, "g1")
    client.pwrite(NOISE[:PAGE], 4 * MIB)
    assert bytes(client.pread(PAGE, 4 * MIB)) == NOISE[:PAGE]
    client.shutdown()
    # A guest of another host.
    assert stranger("127.0.0.2").secure(guarded.context).go() == REP_ACK
    for each in crowd:
        each.close()
    is_counted(guarded, before, MOST_OF_A_HOST + 1)
    guarded.wait_for_line(f"a client at 127.0.0.1 was refused: {MOST_OF_A_HOST} others")


def test_flood_of_strangers_waits_outside(tmp_path: Path) -> None:
    """Else each would be a thread, and hold requests of guests up."""
    with Guarded(tmp_path) as guarded:
        flood = [connecting(guarded.port) for _ in range(900)]
        wait_until(lambda: any(map(has_gone, flood)), "one too many of this host")
        assert sum(map(is_answered, flood)) < 500
        while "clients over TCP come faster than they are taken, 50 a second" not in guarded.log:
            for sock in flood:
                sock.close()
            flood = [connecting(guarded.port) for _ in range(100)]
            time.sleep(0.1)
        for sock in flood:
            sock.close()
        # Who has patience comes in.
        wait_until(lambda: comes_in(guarded), "a guest to come in")


def connecting(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(("127.0.0.1", port))
    return sock


def comes_in(guarded: Guarded) -> bool:
    client = with_certificates(guarded.keys)
    try:
        connected_to(guarded.port, client).shutdown()
    except nbd.Error:
        return False
    return True


def is_answered(sock: socket.socket) -> bool:
    """Greeted, or hung up on."""
    look = select.poll()  # select() knows no descriptor above 1,023
    look.register(sock, select.POLLIN)
    return bool(look.poll(0))


def has_gone(sock: socket.socket) -> bool:
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_stranger_that_says_too_much_is_hung_up_on(
    guarded: Guarded, stranger: Callable[[], Stranger]
) -> None:
    """nbdkit would keep 64 MiB of it for each."""
    before = guarded.refused
    talker = stranger().greet()
    talker.sock.sendall(OPTION.pack(b"IHAVEOPT", OPT_LIST, 64 * MIB))
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        talk_on(talker.sock)
    is_counted(guarded, before, 1)


def test_many_that_say_too_much_take_what_they_have_said(
    guarded: Guarded, stranger: Callable[[], Stranger]
) -> None:
    """And not what they have promised to say, which is half a gibibyte."""
    refused, before = guarded.refused, memory_of(guarded)
    said, most = 2 * MIB, 0
    talkers = [stranger().greet().sock for _ in range(8)]
    for sock in talkers:
        with suppress(OSError):
            sock.sendall(OPTION.pack(b"IHAVEOPT", OPT_LIST, 64 * MIB) + bytes(said))

    def are_refused() -> bool:
        nonlocal most
        most = max(most, memory_of(guarded))
        return guarded.refused == refused + len(talkers)

    wait_until(are_refused, "all of them to be hung up on")
    assert most - before < 2 * len(talkers) * said


def test_many_that_shout_leave_nothing_behind(
    guarded: Guarded, stranger: Callable[[], Stranger]
) -> None:
    """As fast as they can.  Each is hung up on at the first look, as test_arrivals.py has it, and
    until then, 50 ms, they say as much as their wires carry: over the loopback device 34 to 150 MiB
    in five runs, and 245 where the server did not have the processor when it wanted to look.
    """
    refused, before = guarded.refused, memory_of(guarded)
    talkers = [stranger().greet().sock for _ in range(8)]
    threads = [threading.Thread(target=shout, args=(sock,)) for sock in talkers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    is_counted(guarded, refused, len(talkers))
    wait_until(lambda: memory_of(guarded) - before < 16 * MIB, "their memory to go back")


def shout(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.sendall(OPTION.pack(b"IHAVEOPT", OPT_LIST, 64 * MIB))
        for _ in range(63):
            sock.sendall(bytes(MIB))


def memory_of(server: RunningServer) -> int:
    pages = Path(f"/proc/{server.pid}/statm").read_text().split()[1]
    return int(pages) * PAGE


def talk_on(sock: socket.socket) -> None:
    """Until it is cut off, or nbdkit has all that it has been promised."""
    for _ in range(63):
        sock.sendall(bytes(MIB))
        time.sleep(0.1)


def test_refusals_are_logged_once_for_a_burst(
    guarded: Guarded, stranger: Callable[[], Stranger]
) -> None:
    before = guarded.refused
    for _ in range(20):
        assert stranger().greet().option(OPT_LIST) > 1
    is_counted(guarded, before, 20)
    guarded.wait_for_line("a client at 127.0.0.1 was refused: it does not use TLS")
    assert guarded.log.count("was refused: it does not use TLS") == 1


# --- who does strange things ---


def with_tls_asked_for(listening: socket.socket, port: int) -> None:
    """For a program that knows TLS and not NBD."""
    client, _ = listening.accept()
    relay(client, Stranger(port).ask_for_tls().sock)


def test_renegotiation_ends_the_connection(guarded: Guarded) -> None:
    """Of TLS 1.2, where a client could have the server do costly work again and again."""
    before = guarded.refused
    with socket.create_server(("127.0.0.1", 0)) as listening:
        between = threading.Thread(target=with_tls_asked_for, args=(listening, guarded.port))
        between.start()
        own = f"{guarded.keys}/client"
        keys = ["-cert", f"{own}-cert.pem", "-key", f"{own}-key.pem"]
        where = ["-connect", f"127.0.0.1:{listening.getsockname()[1]}", "-servername", HOST]
        with subprocess.Popen(
            ["openssl", "s_client", "-tls1_2", *where, *keys],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        ) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            seen = b""
            while b"Extended master secret" not in seen:
                seen += client.stdout.read(1 << 12) or pytest.fail(f"no session: {seen!r}")
            client.stdin.write(b"R\n")
            seen = client.stdout.read(1 << 12)
            while more := client.stdout.read(1 << 12):
                seen += more
            assert b"RENEGOTIATING" in seen
            # As it says of each handshake that comes to its end.
            assert b"verify return" not in seen
            client.stdin.close()
            client.wait(PATIENCE)
        between.join()
    is_counted(guarded, before, 1)


def test_random_sessions_end_no_server(guarded: Guarded) -> None:
    """As a fuzzer has them, in the clear, within the handshake, and within TLS."""
    chance, before = random.Random(17), threads_of(guarded)
    for _ in range(SESSIONS):
        play(guarded, chance)
    wait_until(lambda: threads_of(guarded) <= before, "their threads to end")
