# SPDX-License-Identifier: BSD-3-Clause
"""A TCP connection that is there by a certain time, or an error.

The system's lookup of a name has no such time, and a name server that is away holds it up for half
a minute and more.
"""

import socket
import threading
import time
from contextlib import suppress
from typing import Any

# Family, type, protocol, official name, address.
Found = list[tuple[Any, ...]]


class Lookup:
    """In a thread of its own, which goes on where nobody waits for it any more."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.found: Found = []
        self.error: Exception | None = None
        self.ended = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self.run, name="lookup", daemon=True).start()

    def run(self) -> None:
        try:
            self.found = addresses_of(self.host, self.port)
        except UnicodeError:
            self.error = socket.gaierror(socket.EAI_NONAME, "that can be no host's name")
        except Exception as error:
            self.error = error
        with guard:
            del under_way[self.host, self.port]
        self.ended.set()

    def result(self, seconds: float) -> Found:
        if not self.ended.wait(seconds):
            raise socket.gaierror(socket.EAI_AGAIN, "the lookup of its name takes too long")
        if self.error is not None:
            raise self.error
        return self.found


# One of a name at a time: each request of a guest may ask for it once more.
under_way: dict[tuple[str, int], Lookup] = {}
guard = threading.Lock()


def addresses_of(host: str, port: int) -> Found:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def looked_up(host: str, port: int, seconds: float) -> Found:
    with suppress(socket.gaierror, UnicodeError):
        flags = socket.AI_NUMERICHOST
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))
    with guard:
        lookup = under_way.get((host, port))
        if lookup is None:
            lookup = Lookup(host, port)
            lookup.start()  # or there is no thread left
            under_way[host, port] = lookup
    return lookup.result(seconds)


def connected(host: str, port: int, seconds: float) -> socket.socket:
    """To the first of its addresses that answers.  OSError."""
    ends = time.monotonic() + seconds
    found = looked_up(host, port, seconds)
    problem: OSError = TimeoutError("no answer in time")
    for number, (family, kind, protocol, _, address) in enumerate(found):
        # One that does not answer leaves time for the others.
        left = (ends - time.monotonic()) / (len(found) - number)
        if left <= 0:
            break
        try:
            made = socket.socket(family, kind, protocol)
            try:
                made.settimeout(left)
                made.connect(address)
            except BaseException:
                made.close()
                raise
        except OSError as error:
            problem = error
        else:
            return made
    raise problem
