# SPDX-License-Identifier: BSD-3-Clause
"""What a page costs in the store itself: no NBD, no Python in between but one call a page.

A store of one's own does not stage unless it is told to: a put compresses before it returns.
"""

import tempfile
import time
from pathlib import Path

from preswapd.tmem import PERSISTENT, Host
from preswapd.units import PAGE_SIZE

LIMIT = 1 << 30


def measure(file: Path, codec: str) -> dict[str, float]:
    """Microseconds of processor time a page: to put it, to get it, to put it over itself."""
    data = memoryview(file.read_bytes())
    pages = [data[at : at + PAGE_SIZE] for at in range(0, len(data), PAGE_SIZE)]
    with tempfile.TemporaryDirectory(prefix="preswapd-bench-", dir="/dev/shm") as folder:
        host = Host(Path(folder) / "arena", limit=LIMIT, create=True)
        try:
            return {
                "first_put": put(host, pages, codec),
                # The second time no fresh memory has to be cleared.
                "put": put(host, pages, codec),
                "get": get(host, pages),
            }
        finally:
            host.close()


def put(host: Host, pages: list[memoryview], codec: str) -> float:
    begun = time.process_time()
    pool = host.new_pool(flags=PERSISTENT) if not host.has_pool(0) else 0
    for index, page in enumerate(pages):
        if not host.put_page(pool, 1, index, page, compress=codec):
            raise RuntimeError("a page was rejected by a pool with room")
    return 1e6 * (time.process_time() - begun) / len(pages)


def get(host: Host, pages: list[memoryview]) -> float:
    into = bytearray(PAGE_SIZE)
    begun = time.process_time()
    for index in range(len(pages)):
        host.get_page(0, 1, index, into)
    return 1e6 * (time.process_time() - begun) / len(pages)
