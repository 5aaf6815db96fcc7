# SPDX-License-Identifier: BSD-3-Clause
"""Random sessions of strangers and of clients that may come in, at the address of `listen`, while
two guests use their disk.  Longer than in the tests:

    python -m tests.faults.tls_sessions --sessions 20000 --seed 1
"""

import argparse
import random
import socket
import ssl
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import connected, discard
from tests.ports import free_port
from tests.running import PATIENCE, RunningServer, wait_until
from tests.tls import (
    HOST,
    REP_ACK,
    Authority,
    Stranger,
    connected_to,
    context_of,
    with_certificates,
)

# The device that no guest uses.
SPARE = "g2"
# Kinds of sessions; those of requests come more often.
REQUESTS = 6
WAYS = (0, 1, 2, 3, 4, 5, REQUESTS, REQUESTS, REQUESTS)


class Guarded(RunningServer):
    """A server with certificates, and a client's beside them.  One device is a guest's."""

    def __init__(self, folder: Path) -> None:
        self.keys, self.port = folder / "keys", free_port()
        authority = Authority(folder / "ca")
        for kind in ("server", "client"):
            authority.sign(self.keys, kind)
        options = [f"--listen=127.0.0.1:{self.port}", "--tls-mode=x509"]
        devices = {"g1": "64M", SPARE: "64M"}
        super().__init__(folder, devices, extra=[*options, f"--tls-certificates={self.keys}"])
        discard(connected(self, "g1")).shutdown()

    @property
    def refused(self) -> int:
        return self.client.facts().tls_refused

    @property
    def context(self) -> ssl.SSLContext:
        """Of a client that may come in."""
        return context_of(self.keys / "ca-cert.pem", self.keys)


# --- a session ---


def play(guarded: Guarded, chance: random.Random) -> int:
    """One session of somebody who keeps to the protocol for a while; which kind."""
    way = chance.choice(WAYS)
    stranger = Stranger(guarded.port)
    stranger.sock.settimeout(PATIENCE)
    try:
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
        elif way == REQUESTS:
            assert stranger.secure(guarded.context).go(SPARE) == REP_ACK
            ask(stranger, chance)
        else:
            stranger.secure(guarded.context)
            if chance.randrange(2) and stranger.go(SPARE) == REP_ACK:
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
    return way


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


REQUEST = struct.Struct(">IHHQQI")
MAGIC = 0x25609513
# Some that mean something, and ends of what does.
TYPES = (0, 0, 0, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0xFFFF)
FLAGS = (0, 0, 0, 1, 2, 3, 4, 8, 16, 31, 0xFFFF)
LENGTHS = (0, 1, 512, 4095, 4096, 4097, 1 << 16, 2 << 20, (2 << 20) + 1, 64 << 20, 0xFFFFFFFF)
OFFSETS = (
    0,
    1,
    511,
    4096,
    8 << 20,
    (64 << 20) - 4096,
    (64 << 20) - 1,
    64 << 20,
    1 << 63,
    2**64 - 1,
)
WRITE = 1


def ask(stranger: Stranger, chance: random.Random) -> None:
    """Requests that are right, wrong, and broken off, whose answers are read or not."""
    stranger.sock.settimeout(0.05)  # not all have one
    for handle in range(chance.randrange(1, 12)):
        kind, length = chance.choice(TYPES), chance.choice(LENGTHS)
        fields = MAGIC, chance.choice(FLAGS), kind, handle, chance.choice(OFFSETS), length
        data = chance.randbytes(min(length, 1 << 16)) if kind == WRITE else b""
        stranger.sock.sendall(REQUEST.pack(*fields) + data)
        if kind == WRITE and length > len(data):
            return  # less than it has said
        if chance.randrange(2):
            stranger.receive(chance.randrange(1, 5000))


# --- many ---


def threads_of(guarded: Guarded) -> int:
    return len(list(Path(f"/proc/{guarded.pid}/task").iterdir()))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Plays random sessions over TLS and below it.")
    parser.add_argument("--sessions", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args(arguments)
    chance, began = random.Random(options.seed), time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        guarded = stack.enter_context(Guarded(folder))
        pid = guarded.pid
        guests = [
            connected(guarded, "g1"),
            connected_to(guarded.port, with_certificates(guarded.keys)),
        ]
        written = look_after(guests, chance)
        before = threads_of(guarded)
        ways: Counter[int] = Counter()
        for number in range(options.sessions):
            ways[play(guarded, chance)] += 1
            if number % 100 == 0:
                written += look_after(guests, chance)
        written += look_after(guests, chance)
        wait_until(lambda: threads_of(guarded) <= before, "their threads to end")
        assert guarded.pid == pid
        assert "Traceback" not in guarded.log
        seconds, refused = time.monotonic() - began, guarded.refused
    print(
        f"seed {options.seed}: {options.sessions} sessions {dict(sorted(ways.items()))} in"
        f" {seconds:.0f} s, {refused} refused, by one process; {written} pages of two"
        " guests written and read back right"
    )
    return 0


def look_after(guests: Sequence[Any], chance: random.Random) -> int:
    """Each guest's requests go on, and what it reads is what it has written."""
    for number, guest in enumerate(guests):
        data = chance.randbytes(16 * PAGE)
        guest.pwrite(data, (16 + number) << 20)
        assert bytes(guest.pread(len(data), (16 + number) << 20)) == data
    return 16 * len(guests)


if __name__ == "__main__":
    raise SystemExit(main())
