# SPDX-License-Identifier: BSD-3-Clause
"""The C of the remote tier below its courier, without Python around it."""

import ctypes
import subprocess
from pathlib import Path

from tests.compiling import INCLUDES, REMOTE

DEVICE_BYTES = 16
SEAL_BYTES = 19
NONCE_BYTES = 12
LENGTH_BITS = 13


class Packed(ctypes.Structure):
    """As in tmem.h."""

    _fields_ = (
        ("bytes", ctypes.c_void_p),
        ("length", ctypes.c_uint16),
        ("codec", ctypes.c_uint8),
    )


class Of(ctypes.Structure):
    """As in seal.h."""

    _fields_ = (
        ("device", ctypes.c_char_p),
        ("page", ctypes.c_uint64),
        ("version", ctypes.c_uint64),
        ("nonce", ctypes.c_char_p),
    )


def built(folder: Path) -> ctypes.CDLL:
    library = folder / "remote.so"
    files = [str(REMOTE / name) for name in ("seal.c", "versions.c")]
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, *INCLUDES, "-o", library, *files, "-lcrypto"], check=True)
    return ctypes.CDLL(str(library))
