# SPDX-License-Identifier: BSD-3-Clause
"""NBD clients of a test's server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import nbd

from preswapd.units import PAGE_SIZE as PAGE
from tests.running import RunningServer

Connect = Callable[..., Any]

# From here to 2 MiB before the end of a device no page is in the scan zone, which bypasses tmem.
BEHIND_ZONE = 8 << 20


def connected(server: RunningServer, export: str = "", *, strict: bool = True) -> Any:
    """Without `strict`, libnbd does not keep it from sending what is wrong."""
    client = nbd.NBD()
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
