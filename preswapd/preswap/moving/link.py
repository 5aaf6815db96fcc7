# SPDX-License-Identifier: BSD-3-Clause
"""The other host's device, as the one sees it whose pages come from there."""

import errno
import os
import threading
import time
from contextlib import suppress

from preswapd.preswap.moving.client import AwayError, Client, NoExportError, Place
from preswapd.preswap.moving.names import ANSWER_BYTES, DONE, LIFE, PULL, Wanted, answered
from preswapd.units import PAGE_SIZE

# A guest's request fails when the other host has not answered for so long.  QEMU pauses the guest
# then, and `cont` goes on: a request that never ended would hold up a stop, and a thread of nbdkit.
ANSWER_SECONDS = 10.0
# Where it has just failed requests fail at once: not each of them waits so long.
AWAY_SECONDS = 1.0
# Each is a client over there, for which memory is set aside.
CONNECTIONS = 4


class Link:
    """To one life of it, for one arrival.  Many threads at once."""

    def __init__(self, place: Place, home: str, life: int, arrival: int) -> None:
        self.place = place
        self.home = home
        self.life = life
        self.arrival = arrival
        self.lock = threading.Lock()
        self.free = threading.Semaphore(CONNECTIONS)
        self.idle: list[Client] = []
        # Of a guest that is not here yet little is read, and its host may want to do without us.
        self.keeps_open = False
        self.away_until = 0.0
        self.trouble: str | None = None  # why it could not be reached last

    def ask(self, word: str) -> dict[str, object]:
        """AwayError."""
        ends = time.monotonic() + ANSWER_SECONDS
        try:
            client = Client(self.place, self.named(word), ANSWER_SECONDS)
            try:
                body = answered(client.read(0, ANSWER_BYTES, ends - time.monotonic()))
            finally:
                client.close()
        except NoExportError as error:
            raise AwayError(str(error)) from None
        except (OSError, ValueError) as error:
            raise AwayError(f"its answer is of no use: {error}") from None
        return body

    def settle(self, word: str) -> object:
        """The answer to TAKE or RELEASE.  AwayError, also where somebody else answers."""
        body = self.ask(word)
        found = body.get("answer")
        if found != DONE and body.get("home") != self.home:
            raise AwayError("another server answers there")
        return found

    def named(self, word: str) -> str:
        return Wanted(self.place.export, word, self.life, self.arrival).export

    def read(self, first: int, pages: int) -> bytes:
        """OSError: EIO where it has not got them, ESHUTDOWN where this life of it is over or it
        serves another arrival, EHOSTUNREACH where it is away."""
        if time.monotonic() < self.away_until:
            raise unreachable()
        ends = time.monotonic() + ANSWER_SECONDS
        if not self.free.acquire(timeout=ANSWER_SECONDS):
            raise unreachable()
        try:
            return self.read_by(ends, first * PAGE_SIZE, pages * PAGE_SIZE)
        finally:
            self.free.release()

    def read_by(self, ends: float, offset: int, count: int) -> bytes:
        while True:
            client, is_fresh = self.connected(ends)
            try:
                content = client.read(offset, count, ends - time.monotonic())
            except AwayError as error:
                client.close()
                # The server over there may have been restarted since.
                if is_fresh or str(error) == "no answer in time":
                    self.note_away(error)
                    raise unreachable() from None
            except OSError as error:
                if error.errno == errno.ESHUTDOWN:
                    client.close()
                else:
                    self.give_back(client)
                raise
            except BaseException:
                client.close()
                raise
            else:
                self.give_back(client)
                self.trouble = None
                return content

    def connected(self, ends: float) -> tuple[Client, bool]:
        with self.lock:
            if self.idle:
                return self.idle.pop(), False
        try:
            return Client(self.place, self.named(PULL), ends - time.monotonic()), True
        except (AwayError, NoExportError) as error:
            self.note_away(error)
            raise unreachable() from None

    def give_back(self, client: Client) -> None:
        with self.lock:
            if self.keeps_open:
                self.idle.append(client)
                return
        client.close()

    def note_away(self, error: Exception) -> None:
        self.trouble = str(error)
        self.away_until = time.monotonic() + AWAY_SECONDS

    def close(self) -> None:
        with self.lock:
            self.keeps_open = False
            idle, self.idle = self.idle, []
        for client in idle:
            with suppress(OSError):
                client.close()


def life_of(place: Place) -> dict[str, object]:
    """What it says of itself.  AwayError."""
    return Link(place, "", 0, 0).ask(LIFE)


def unreachable() -> OSError:
    return OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
