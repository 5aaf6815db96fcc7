# SPDX-License-Identifier: BSD-3-Clause
"""The target's side: one device whose pages come from another host.

The rows "take", "fetch" and "let go" of docs/concurrency.md.
"""

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from preswapd.api.messages import PullStatus
from preswapd.errors import with_place
from preswapd.host.filesystems import is_there
from preswapd.log import ERROR, NOTICE, WARNING, Log, Throttle
from preswapd.preswap.creation import Served
from preswapd.preswap.files.maps import PENDING
from preswapd.preswap.files.zone import zone
from preswapd.preswap.moving.client import AwayError, Client, NoExportError
from preswapd.preswap.moving.link import ANSWER_SECONDS, CONNECTIONS, Link
from preswapd.preswap.moving.names import DONE, MAP, OTHER_LIFE, PULL, RELEASE, TAKE
from preswapd.preswap.moving.note import Note, remove_note
from preswapd.units import PAGE_SIZE

# Pages in one read, of which the other host's map is looked at at once.
READ_PAGES = 256
# What a read takes: as it is received, and once more as what is kept.
READ_BYTES = 2 * READ_PAGES * PAGE_SIZE
LOOK_PAGES = 1 << 16
PACE_SECONDS = 0.2
# Where the other host is away, or has pages that cannot be read now.
PAUSE_SECONDS = 0.5
MOST_SECONDS = 15.0


class Interrupted(Exception):
    """The pull is to end."""


@dataclass
class Ends:
    """Both connections of one round."""

    pages: Client
    states: Client


class Pull:
    """Of one device; its thread runs from the guest's first change here until the source is told
    that all has been fetched.  `rate`: bytes a second, 0 without a limit."""

    def __init__(self, served: Served, link: Link, log: Log) -> None:
        self.served = served
        self.link = link
        self.log = log
        self.rate = 0
        self.complaints = Throttle()
        self.stopped = threading.Event()
        self.thread: threading.Thread | None = None
        served.device.on_take = self.take
        served.device.on_fetch = self.fetch

    @property
    def name(self) -> str:
        return self.served.device.name

    @property
    def path(self) -> Path:
        return self.served.record.paths.source(self.name)

    @property
    def is_over(self) -> bool:
        """All is here, and the source knows."""
        return not is_there(self.path)

    @property
    def may_take(self) -> int:
        """Bytes of memory, at most, for what is read from there: by itself, and for its guest."""
        thread = self.thread
        reads = 1 if thread is not None and thread.is_alive() else 0
        if self.served.record.sidecar.source and self.served.device.connections:
            reads += CONNECTIONS
        return reads * READ_BYTES

    # --- requests of the guest ---

    def take(self) -> None:
        """Before its first change, one at a time.  OSError: it fails, and is tried again."""
        try:
            answer = self.link.settle(TAKE)
        except AwayError as error:
            self.complain(
                f"{self.name}: its guest's first change fails, as {self.uri} does not"
                f" answer: {error}"
            )
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH)) from None
        if answer == DONE:
            self.bring_zone()
            self.served.record.note_taken()
            self.log(NOTICE, f"{self.name} is taken from {self.uri}: its guest is here")
            self.start()
        elif answer == OTHER_LIFE:
            self.lose()
        else:
            self.complain(
                f"{self.name}: another host has taken what {self.uri} had: `preswapctl"
                f" pull {self.name} --abandon` gives its pages up"
            )
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def bring_zone(self) -> None:
        """It has no map: after a reboot it is what the disk file has, also where nothing else is
        known.  Nobody changes it over there any more.  OSError."""
        device, ends = self.served.device, time.monotonic() + ANSWER_SECONDS
        for part in zone(device.pages):
            for run in runs(device.state_bytes(part.start, len(part)), part.start):
                for first, content in self.readable(run):
                    device.keep(first, content)
                if time.monotonic() > ends:
                    raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        device.sync()

    def readable(self, run: range) -> Iterator[tuple[int, bytes]]:
        """But for what its disk does not give."""
        try:
            yield run.start, self.link.read(run.start, len(run))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            if len(run) > 1:
                middle = (run.start + run.stop) // 2
                yield from self.readable(range(run.start, middle))
                yield from self.readable(range(middle, run.stop))

    def fetch(self, first: int, pages: int) -> bytes:
        """OSError: they cannot be had now."""
        return self.link.read(first, pages)

    @property
    def uri(self) -> str:
        return self.link.place.uri

    def complain(self, text: str) -> None:
        if self.complaints.passes():
            self.log(WARNING, text)

    # --- in the background ---

    def start(self) -> None:
        self.link.keeps_open = True
        if self.thread is None or not self.thread.is_alive():
            self.thread = threading.Thread(target=self.run, name="pull", daemon=True)
            self.thread.start()

    def stop(self) -> bool:
        """Whether it has ended.  It goes on with start(), if nobody drops it."""
        self.stopped.set()
        thread = self.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(2 * ANSWER_SECONDS)
            if thread.is_alive():
                return False
        self.thread = None
        return True

    def close(self) -> None:
        self.served.device.on_take = self.served.device.on_fetch = None
        self.link.close()

    def run(self) -> None:
        pause = PAUSE_SECONDS
        while not self.stopped.is_set() and not self.served.device.is_stopped:
            fetched = self.served.device.stats()["fetched_pages"]
            try:
                if self.turn():
                    return
            except Interrupted:
                return
            except (AwayError, NoExportError) as error:
                self.link.trouble = str(error)
            except Exception as error:
                if self.served.device.is_stopped:
                    return
                self.link.trouble = str(error)
                if self.complaints.passes():
                    self.log(ERROR, f"pull of {self.name} failed: {with_place(error)}")
            moves = self.served.device.stats()["fetched_pages"] != fetched
            pause = PAUSE_SECONDS if moves else min(2 * pause, MOST_SECONDS)
            self.stopped.wait(pause)

    def turn(self) -> bool:
        """Whether there is nothing left to do."""
        record = self.served.record
        if not record.sidecar.source:
            return self.release()
        if self.pending and (is_lost := self.fetch_or_ask()) is not None:
            return is_lost
        if self.pending:
            return False
        self.let_go()
        return self.release()

    def fetch_or_ask(self) -> bool | None:
        """None: all was asked for.  Else whether it is lost, and there is nothing left to do."""
        try:
            with closing(self.connect(PULL)) as pages, closing(self.connect(MAP)) as states:
                self.fetch_all(Ends(pages, states))
        except NoExportError:
            return self.ask_again()
        except OSError as error:
            if error.errno != errno.ESHUTDOWN or self.served.device.is_stopped:
                raise
            return self.ask_again()
        return None

    @property
    def pending(self) -> int:
        return self.served.device.stats()["pending_pages"]

    def connect(self, word: str) -> Client:
        return Client(self.link.place, self.link.named(word), ANSWER_SECONDS)

    def ask_again(self) -> bool:
        """It gives no pages: is that for good?"""
        answer = self.link.settle(TAKE)
        if answer == OTHER_LIFE:
            self.lose()
            return True
        if answer != DONE:
            self.link.trouble = "another host has taken what it had"
        return False

    def fetch_all(self, ends: Ends) -> None:
        """Once through the device, the zone first."""
        for part in zone(self.served.device.pages):
            self.fetch_part(ends, part)
        pages = self.served.device.pages
        for at in range(0, pages, LOOK_PAGES):
            self.fetch_part(ends, range(at, min(pages, at + LOOK_PAGES)))

    def fetch_part(self, ends: Ends, part: range) -> None:
        device = self.served.device
        if PENDING not in device.state_bytes(part.start, len(part)):
            return
        there = ends.states.read(part.start, len(part), ANSWER_SECONDS)
        device.take_states(part.start, there)
        for run in runs(device.state_bytes(part.start, len(part)), part.start):
            self.fetch_run(ends.pages, run)

    def fetch_run(self, client: Client, run: range) -> None:
        """What cannot be read stays PENDING: only its map says that the source has lost a page."""
        if self.stopped.is_set():
            raise Interrupted
        began = time.monotonic()
        count = len(run) * PAGE_SIZE
        try:
            content = client.read(run.start * PAGE_SIZE, count, ANSWER_SECONDS)
        except OSError as error:
            if error.errno == errno.ESHUTDOWN:
                raise
            if len(run) > 1:
                middle = (run.start + run.stop) // 2
                self.fetch_run(client, range(run.start, middle))
                self.fetch_run(client, range(middle, run.stop))
            else:
                self.link.trouble = f"page {run.start} cannot be read there: {error.strerror}"
            return
        self.link.trouble = None
        self.served.device.keep(run.start, content)
        while self.rate and (rest := count / self.rate - (time.monotonic() - began)) > 0:
            # It may be told another rate meanwhile.
            if self.stopped.wait(min(rest, PACE_SECONDS)):
                raise Interrupted

    # --- the end ---

    def let_go(self) -> None:
        """All is here.  First the next start is told, then the source is nobody's."""
        link = self.link
        # Of the zone some may have come late, and the source drops what it had synced.
        self.served.device.sync()
        Note(self.uri, link.home, link.life, link.arrival, True).write(self.path)
        self.served.record.note(source=0, arrival=0, taken=False)
        self.log(NOTICE, f"{self.name} has all pages of {self.uri}")

    def release(self) -> bool:
        """The source may drop what it has: or has done so, or is another's."""
        self.link.close()
        self.link.settle(RELEASE)
        remove_note(self.path)
        return True

    def lose(self) -> None:
        """The pages that were announced are gone for good."""
        lost = self.pending
        self.abandon()
        self.log(
            ERROR,
            f"{self.name}: {self.uri} has not got its pages any more (its pages were"
            f" dropped there, or its host was rebooted): {lost} pages are lost",
        )

    def abandon(self) -> None:
        """PENDING pages are LOST."""
        self.served.device.give_up()
        self.served.record.note(source=0, arrival=0, taken=False)
        remove_note(self.path)

    def status(self) -> PullStatus:
        sidecar = self.served.record.sidecar
        return PullStatus(
            source=self.uri,
            taken=self.served.device.guest == "here",
            pending=self.pending,
            fetched=self.served.device.stats()["fetched_pages"],
            rate=self.rate,
            complete=not sidecar.source,
            trouble=self.link.trouble,
        )


def runs(states: bytes, first: int) -> Iterator[range]:
    """Where pages are PENDING, READ_PAGES at most each."""
    at = first
    for is_pending, group in groupby(states, PENDING.__eq__):
        length = sum(1 for _ in group)
        if is_pending:
            for start in range(at, at + length, READ_PAGES):
                yield range(start, min(at + length, start + READ_PAGES))
        at += length
