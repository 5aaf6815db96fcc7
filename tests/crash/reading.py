# SPDX-License-Identifier: BSD-3-Clause
"""Clients of read-only images, each answer compared with the file, until the server has gone."""

import random
import threading
from collections.abc import Callable, Mapping

import nbd

from preswapd.units import PAGE_SIZE as PAGE
from tests.crash.load import WrongAnswerError, connected

# Half of the reads are of these, so that they are read again.
HOT_PAGES = 48
LENGTHS = (1, 1, 1, 4, 16, 64)
SERVER_GONE_SECONDS = 60


class Readers:
    """Two for each image; `contents` must not change meanwhile."""

    def __init__(
        self, contents: Mapping[str, bytes], uri: Callable[[str], str], random_seed: int
    ) -> None:
        self.failures: list[Exception] = []
        self.pages = 0
        self.threads = [
            threading.Thread(
                target=self.read_until_gone,
                args=(
                    connected(uri(name)),
                    name,
                    right,
                    random.Random(f"{random_seed} {name} {n}"),
                ),
            )
            for name, right in contents.items()
            for n in range(2)
        ]
        for thread in self.threads:
            thread.start()

    def read_until_gone(
        self, handle: nbd.NBD, name: str, right: bytes, chosen: random.Random
    ) -> None:
        pages = len(right) // PAGE
        while True:
            first = chosen.randrange(HOT_PAGES if chosen.random() < 0.5 else pages)
            count = min(chosen.choice(LENGTHS), pages - first)
            try:
                found = bytes(handle.pread(count * PAGE, first * PAGE))
            except nbd.Error as error:
                if not (handle.aio_is_dead() or handle.aio_is_closed()):
                    self.failures.append(WrongAnswerError(f"{name}, page {first}: {error}"))
                return
            self.pages += count
            if found != right[first * PAGE : (first + count) * PAGE]:
                self.failures.append(WrongAnswerError(f"{name}: other bytes from page {first} on"))
                return

    def join(self) -> None:
        """Once the server has gone."""
        for thread in self.threads:
            thread.join(SERVER_GONE_SECONDS)
            if thread.is_alive():
                raise WrongAnswerError("a read of an image was not ended by the server's end")
        if self.failures:
            raise self.failures[0]
