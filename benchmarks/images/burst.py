# SPDX-License-Identifier: BSD-3-Clause
"""A pool full of an image's pages, and then a guest of the same instance swaps, fast."""

import threading
import time
from pathlib import Path

import nbd

from benchmarks.images.contenders import CONTENDERS, IMAGE, OURS, served
from benchmarks.load import FILL, fio
from benchmarks.sections import Figures
from benchmarks.servers import Running

DEVICE = "bench"
REQUEST = 1 << 20
LOOK_SECONDS = 0.02
# Of the pool, once half of each page is compressed away.
BURST, LEFT = 0.8, 0.53


def measure(image: Path, pool: int) -> Figures:
    """`full`: of the image, which is larger than the pool; `empty`: the same burst without it."""
    size = int(BURST / LEFT * pool)
    return {
        "pool": pool,
        "size": size,
        "empty": one_burst(image, pool, size, fill=False),
        "full": one_burst(image, pool, size, fill=True),
    }


def one_burst(image: Path, pool: int, size: int, *, fill: bool) -> Figures:
    ours = next(one for one in CONTENDERS if one.name == OURS)
    with served(ours, image, pool) as serving:
        assert serving.serving
        serving.wait_until_cached()
        if fill:
            read_all(serving.serving, image.stat().st_size)
        before = serving.serving.image()["cached_bytes"]
        looks, seconds = burst(serving.serving, size)
        device, tmem = serving.serving.device(DEVICE), serving.serving.tmem()
        return {
            "seconds": seconds,
            "cached_before": before,
            "cached_after": looks[-1][1],
            "stores": device["succ_stores"],
            "rejected": device["failed_stores"],
            "disk_writes": device["disk_writes"],
            "no_mem_puts": tmem["no_mem_puts"],
            "looks": looks,
        }


def read_all(serving: Running, size: int) -> None:
    handle = nbd.NBD()
    handle.connect_uri(serving.uri)
    for at in range(0, size, REQUEST):
        handle.pread(min(REQUEST, size - at), at)
    handle.shutdown()


def burst(serving: Running, size: int) -> tuple[list[list[float]], float]:
    """Looks at it until all is written, and the seconds of that."""
    looks: list[list[float]] = []
    failed: list[Exception] = []
    uri = serving.uri.replace(f"/{IMAGE}?", f"/{DEVICE}?")

    def write() -> None:
        try:
            fio(uri, FILL, None, str(size))
        except Exception as error:
            failed.append(error)

    writer = threading.Thread(target=write)
    begun = time.monotonic()
    writer.start()
    while writer.is_alive():
        looks.append(look(serving, begun))
        time.sleep(LOOK_SECONDS)
    writer.join()
    seconds = time.monotonic() - begun
    if failed:
        raise failed[0]
    looks.append(look(serving, begun))
    return looks, seconds


def look(serving: Running, begun: float) -> list[float]:
    """Seconds, and the bytes of the image's pages and of others in memory."""
    cached = serving.image()["cached_bytes"]
    return [time.monotonic() - begun, cached, serving.tmem()["mem_used_total"] - cached]
