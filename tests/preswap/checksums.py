# SPDX-License-Identifier: BSD-3-Clause
"""XXH3, as the arena's checksums are made: for tests that forge one."""

import ctypes
import ctypes.util
from functools import cache


@cache
def library() -> ctypes.CDLL:
    found = ctypes.CDLL(ctypes.util.find_library("xxhash"))
    found.XXH3_64bits_withSeed.restype = ctypes.c_uint64
    return found


def xxh3(data: bytes, seed: int = 0) -> int:
    return int(
        library().XXH3_64bits_withSeed(data, ctypes.c_size_t(len(data)), ctypes.c_uint64(seed))
    )
