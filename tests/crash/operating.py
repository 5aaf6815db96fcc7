# SPDX-License-Identifier: BSD-3-Clause
"""What an operator does while guests swap: shrinks, room, devices that come and go."""

import random
import threading
from contextlib import suppress

import nbd

from preswapd.api.client import Client
from preswapd.api.messages import ShrinkProgress
from preswapd.errors import PreswapError, UnreachableError
from preswapd.units import PAGE_SIZE as PAGE
from tests.crash.contents import Kind, page_content
from tests.crash.load import connected
from tests.running import RunningServer

# A device that is made and removed again, whose pages must never show in its successor.
SPARE = "g9"
SPARE_PAGES = 64


class InventedPageError(AssertionError):
    """A new device answers a read of what nobody wrote to it."""


class Operator:
    """One action after `delay`, or none, in a thread of its own.

    `failure` is what went wrong while the server ran.
    """

    def __init__(self, server: RunningServer, random: random.Random, delay: float | None) -> None:
        self.server = server
        self.client = Client(server.control_socket)
        self.random = random
        self.delay = delay
        self.killed = threading.Event()
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self.run, name="operator", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def join(self) -> None:
        """After the server has gone; what it left unfinished is no failure."""
        self.thread.join()
        if self.failure is not None:
            raise self.failure

    def run(self) -> None:
        if self.killed.wait(self.delay) or self.delay is None:
            return
        try:
            actions = [self.shrink, self.shrink, self.set_room, self.change_spare]
            if self.server.devices:
                actions.append(self.shrink_one)
            self.random.choice(actions)()
        except (UnreachableError, nbd.Error) as error:
            if not self.killed.is_set():
                self.failure = error
        except (PreswapError, OSError, AssertionError) as error:
            self.failure = error

    def shrink(self) -> None:
        """To nothing, mostly, so that the pool is not always full."""
        self.shrink_to(self.random.choice([0, 0, 0, 100, 400]), None)

    def shrink_one(self) -> None:
        self.shrink_to(self.random.choice([0, 200]), self.random.choice(list(self.server.devices)))

    def shrink_to(self, pages: int, device: str | None) -> None:
        def nobody_asks(step: ShrinkProgress) -> None:
            pass

        with self.client.shrink(pages, device) as running:
            report = running.wait(nobody_asks)
        if report.lost or not report.complete:
            raise AssertionError(f"a shrink ended with {report}")

    def set_room(self) -> None:
        """So that pages go to disk and come back all the time, or never; it is kept over kills."""
        (key,) = (key for key in self.client.sysctl() if key.endswith(".writeback_room"))
        self.client.set(key, self.random.choice(["default", "50%", "50%", "off"]))

    def change_spare(self) -> None:
        if SPARE in self.client.devices():
            self.client.remove(SPARE, force=True)
        self.client.create(SPARE, SPARE_PAGES * PAGE)
        handle = connected(self.server.nbd_uri(SPARE))
        for page in range(1, SPARE_PAGES):
            with suppress(nbd.Error):
                found = bytes(handle.pread(PAGE, page * PAGE))
                raise InventedPageError(f"a new device's page {page} is {found[:64]!r}")
            if handle.aio_is_dead() or handle.aio_is_closed():
                return
        for page in range(1, SPARE_PAGES):
            content = page_content(self.random.choice(list(Kind)), SPARE, page, 0, self.random)
            try:
                handle.pwrite(content, page * PAGE)
            except nbd.Error:
                if handle.aio_is_dead() or handle.aio_is_closed():
                    return
                raise
