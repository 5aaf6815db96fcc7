# SPDX-License-Identifier: BSD-3-Clause
"""Strangers at the address of `listen`: whatever they do, guests are served and nobody gets in."""

import random
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from preswapd.server.arrivals import MOST_STRANGERS
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import connected, discard
from tests.faults.conftest import MIB, NOISE
from tests.ports import free_port
from tests.running import PATIENCE, RunningServer, wait_for, wait_until
from tests.tls import (
    HOST,
    OPT_LIST,
    OPTION,
    REP_ACK,
    Authority,
    Stranger,
    connected_to,
    context_of,
    needs_openssl,
    relay,
    with_certificates,
)

pytestmark = [needs_openssl, pytest.mark.xdist_group("faults-tls")]

SESSIONS = 150


class Guarded(RunningServer):
    """A server with certificates, and a client's beside them."""

    port: int
    keys: Path

    @property
    def refused(self) -> int:
        return self.client.facts().tls_refused

    @property
    def context(self) -> ssl.SSLContext:
        """Of a client that may come in."""
        return context_of(self.keys / "ca-cert.pem", self.keys)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    authority = Authority(folder / "ca")
    for kind in ("server", "client"):
        authority.sign(folder / "keys", kind)
    port = free_port()
    options = [f"--listen=127.0.0.1:{port}", "--tls-mode=x509"]
    with Guarded(folder, extra=[*options, f"--tls-certificates={folder}/keys"]) as server:
        server.port, server.keys = port, folder / "keys"
        discard(connected(server)).shutdown()
        yield server


@pytest.fixture(autouse=True)
def bystanders(guarded: Guarded) -> Iterator[None]:
    """One at the Unix socket and one over TLS, which must not notice anything."""
    pid = guarded.pid
    both = connected(guarded), connected_to(guarded.port, with_certificates(guarded.keys))
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
def stranger(guarded: Guarded) -> Iterator[Callable[[], Stranger]]:
    with ExitStack() as stack:

        def come() -> Stranger:
            found = Stranger(guarded.port)
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


def test_crowd_of_strangers_keeps_guests_of_the_unix_socket_in(
    guarded: Guarded, stranger: Callable[[], Stranger]
) -> None:
    before = guarded.refused
    crowd = [stranger().greet() for _ in range(MOST_STRANGERS)]
    late = stranger()
    assert late.is_hung_up()
    client = connected(guarded)
    client.pwrite(NOISE[:PAGE], 4 * MIB)
    assert bytes(client.pread(PAGE, 4 * MIB)) == NOISE[:PAGE]
    client.shutdown()
    for each in crowd:
        each.close()
    is_counted(guarded, before, MOST_STRANGERS + 1)
    guarded.wait_for_line(f"a client at 127.0.0.1 was refused: {MOST_STRANGERS} others")


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


def play(guarded: Guarded, chance: random.Random) -> None:
    """One session of somebody who keeps to the protocol for a while."""
    stranger = Stranger(guarded.port)
    stranger.sock.settimeout(PATIENCE)
    try:
        way = chance.randrange(6)
        if way == 0:
            stranger.sock.sendall(chance.randbytes(chance.randrange(2000)))
        elif way == 1:
            stranger.ask_for_tls().sock.sendall(chance.randbytes(chance.randrange(3000)))
        elif way == 2:
            stranger.ask_for_tls().sock.sendall(mutated(hello(guarded), chance))
        elif way == 3:
            stranger.greet()
            for _ in range(chance.randrange(1, 6)):
                data = chance.randbytes(chance.randrange(64))
                stranger.option(chance.randrange(12), data)
        elif way == 4:
            stranger.secure(guarded.context)
            stranger.sock.sendall(chance.randbytes(chance.randrange(1, 2000)))
        else:
            stranger.secure(guarded.context)
            if chance.randrange(2) and stranger.go() == 1:
                stranger.sock.sendall(chance.randbytes(chance.randrange(1, 500)))
            # The end of TCP in the middle of TLS.
            raw = socket.socket(fileno=stranger.sock.detach())
            stranger.sock = raw
            raw.sendall(chance.randbytes(chance.randrange(500)))
        with suppress(OSError):
            stranger.sock.shutdown(socket.SHUT_WR)
        if chance.randrange(2):
            stranger.receive(1 << 16)
    except (OSError, AssertionError):
        pass  # it was hung up on
    finally:
        stranger.close()


def hello(guarded: Guarded) -> bytes:
    """What a client of TLS says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = guarded.context.wrap_bio(incoming, outgoing, server_hostname=HOST)
    with suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


def mutated(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(changed))
        match chance.randrange(3):
            case 0:
                changed[place] ^= 1 << chance.randrange(8)
            case 1:
                del changed[place : place + chance.randrange(1, 40)]
            case _:
                changed[place:place] = chance.randbytes(chance.randrange(40))
    return bytes(changed)


def test_random_sessions_end_no_server(guarded: Guarded) -> None:
    """As a fuzzer has them, in the clear, within the handshake, and within TLS."""
    chance = random.Random(17)
    for _ in range(SESSIONS):
        play(guarded, chance)
    threads = Path(f"/proc/{guarded.pid}/task")
    wait_until(lambda: len(list(threads.iterdir())) < 30, "their threads to end")
