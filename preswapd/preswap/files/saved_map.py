# SPDX-License-Identifier: BSD-3-Clause
"""STATE_DIR/NAME.map: what each page was at the last clean stop, for a start without shared memory.

A byte a page, as in shared memory.  The sidecar has its checksum, and says whether it holds.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from preswapd.block.digest import blake2b
from preswapd.host.filesystems import avoid_copy_on_write
from preswapd.preswap.files.durable import Fresh, replacing
from preswapd.preswap.files.maps import PIECE_PAGES, TMEM, UNKNOWN

# What is only in memory is not known after a reboot.
AS_SAVED = bytes.maketrans(bytes([TMEM]), bytes([UNKNOWN]))


def reserve_map(path: Path, pages: int) -> None:
    with replacing(path) as file:
        reserve(file, pages)


def reserve(file: Fresh, pages: int) -> None:
    """Room for all of it: a full disk must not keep a server from a clean stop."""
    avoid_copy_on_write(file.descriptor)
    os.posix_fallocate(file.descriptor, 0, pages)


def save_map(path: Path, pieces: Iterable[bytes]) -> str:
    """In place, and synced; returns its checksum.  Of what holds it, nothing may hold now."""
    digest = blake2b(digest_size=8)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        at = 0
        for piece in pieces:
            saved = piece.translate(AS_SAVED)
            digest.update(saved)
            if os.pwrite(descriptor, saved, at) != len(saved):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            at += len(saved)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def saved_pieces(path: Path, pages: int) -> Iterator[bytes]:
    """What was saved, in order; ends early where the file is too short."""
    with open(path, "rb") as file:
        for at in range(0, pages, PIECE_PAGES):
            yield file.read(min(PIECE_PAGES, pages - at))


def holds(path: Path, pages: int, checksum: str) -> bool:
    digest = blake2b(digest_size=8)
    try:
        for piece in saved_pieces(path, pages):
            digest.update(piece)
    except OSError:
        return False
    return digest.hexdigest() == checksum
