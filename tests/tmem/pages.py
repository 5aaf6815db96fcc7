# SPDX-License-Identifier: BSD-3-Clause
"""Pages of every kind that the codecs tell apart, made again from a kind and a number."""

import random
from functools import lru_cache

from preswapd.tmem._tmem import Host
from preswapd.units import PAGE_SIZE as PAGE

KINDS = ("zeros", "same", "text", "half", "letters", "boundary", "noise")


@lru_cache(4096)
def make_page(kind: str, tag: int) -> bytes:
    """Pages of different tags differ, but for zeros.  "sized": tag/1000 bytes of noise.

    In most pages of "letters" zstd makes half of what LZ4 makes.
    """
    rng = random.Random(tag)
    if kind == "zeros":
        return bytes(PAGE)
    if kind == "same":
        return (tag * 0x9E3779B97F4A7C15 + 1 & 2**64 - 1).to_bytes(8, "little") * (PAGE // 8)
    if kind == "text":
        return (b"%d bottles of beer on the wall, " % tag * 256)[:PAGE]
    if kind == "half":
        return rng.randbytes(16 + tag * 97 % 3900).ljust(PAGE, b"\0")
    if kind == "letters":
        return rng.randbytes(16 + tag * 97 % 2000).hex().encode().ljust(PAGE, b"\0")
    if kind == "sized":
        return rng.randbytes(tag // 1000).ljust(PAGE, b"\0")
    if kind == "boundary":
        return rng.randbytes(4016 + tag % 24).ljust(PAGE, b"\0")
    return rng.randbytes(PAGE)


def read_page(host: Host, pool: int, obj: int, index: int) -> bytes | None:
    """The page, or None when it is not stored."""
    into = bytearray(b"\xee" * PAGE)
    return bytes(into) if host.get_page(pool, obj, index, into) else None
