# SPDX-License-Identifier: BSD-3-Clause
"""NBD clients of a test's server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import nbd

from preswapd.units import PAGE_SIZE as PAGE
from tests.running import RunningServer, wait_until

Connect = Callable[..., Any]

# From here to 2 MiB before the end of a device no page is in the scan zone, which bypasses tmem.
BEHIND_ZONE = 8 << 20


class Splitting(nbd.NBD):  # type: ignore[misc]
    """A client that asks for no more at once than the server takes, as QEMU does.

    `nbd.NBD.pwrite(client, …)` sends a request as it is.
    """

    def pread(self, count: int, offset: int, **options: Any) -> bytearray:
        pieces = self.pieces(count)
        read = (super(Splitting, self).pread(size, offset + at, **options) for at, size in pieces)
        return bytearray().join(read)

    def pwrite(self, data: bytes, offset: int, **options: Any) -> None:
        for at, size in self.pieces(len(data)):
            super().pwrite(data[at : at + size], offset + at, **options)

    def pieces(self, count: int) -> list[tuple[int, int]]:
        """One of no length for a request of no length."""
        most = self.get_block_size(nbd.SIZE_MAXIMUM) or count or 1
        return [(at, min(most, count - at)) for at in range(0, count, most)] or [(0, count)]


def connected(server: RunningServer, export: str = "", *, strict: bool = True) -> Any:
    """Without `strict`, libnbd does not keep it from sending what is wrong."""
    client = Splitting()
    if not strict:
        client.set_strict_mode(0)
    client.connect_uri(server.nbd_uri(export))
    return client


def discard(client: Any) -> Any:
    """What a guest's `swapon --discard` does with a device that is new, or of which a start or an
    operator made the pages UNKNOWN: behind the swap header all is zeros.  Returns the client.
    """
    client.trim(client.get_size() - PAGE, PAGE)
    return client


def gone(server: RunningServer, client: Any, device: str = "g1") -> None:
    """The client hangs up, and the server has noticed: it may be a moment later."""
    client.shutdown()

    def has_gone() -> bool:
        return not server.json_stats()["devices"][device]["connections"]

    wait_until(has_gone, f"the client of {device} to be gone")


@contextmanager
def clients(*, strict: bool = True) -> Iterator[Connect]:
    """Makes clients as connected() does; all are closed at the end."""
    made = []

    def connect(server: RunningServer, export: str = "") -> Any:
        made.append(connected(server, export, strict=strict))
        return made[-1]

    try:
        yield connect
    finally:
        for client in made:
            with suppress(nbd.Error):
                client.shutdown()


def begun(client: Any, data: bytes, offset: int, flags: int = 0) -> list[int]:
    """A write; the list holds its errno once it is answered."""
    answers: list[int] = []

    def completed(error: Any) -> int:
        answers.append(error.value)
        return 1

    client.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), offset, completed, flags)
    return answers


def answered(client: Any, answers: list[int]) -> int:
    while not answers:
        client.poll(-1)
    return answers[0]
