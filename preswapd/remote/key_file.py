# SPDX-License-Identifier: BSD-3-Clause
"""The keys that pages in the store are sealed with: the one thing of them that the store never has.

Whoever has one can read what the store holds.  With another key everything in the store is a miss,
and no more: so it may be replaced at any time, and is in no backup.  An instance makes its own;
that of images is the operator's, as the hosts that share them have the same.
"""

import os
from contextlib import suppress
from pathlib import Path
from shlex import quote

from preswapd.errors import RefusedError
from preswapd.host.secret_files import read_secret

KEY_BYTES = 32
OWNER_ALONE = 0o600


def load(path: Path) -> bytes:
    """Makes it where it is missing; RefusedError says what is wrong with it, and how to mend it."""
    if not os.path.lexists(path):
        make(path)
    key = read_secret(path)
    if len(key) != KEY_BYTES:
        raise RefusedError(
            f"{path} has {len(key)} bytes, and a key has {KEY_BYTES}: remove it, and the next start"
            " makes a new one"
        )
    return key


def load_of_images(path: Path) -> bytes:
    """RefusedError where there is none, or what is wrong with it."""
    if not os.path.lexists(path):
        raise RefusedError(
            f"{path} is missing: (umask 077; head -c {KEY_BYTES} /dev/urandom > {quote(str(path))})"
            " makes a key, and the other hosts that share images need a copy of it"
        )
    key = read_secret(path)
    if len(key) != KEY_BYTES:
        raise RefusedError(
            f"{path} has {len(key)} bytes, and a key has {KEY_BYTES}: it is to be the same file on"
            " all hosts that share images"
        )
    return key


def make(path: Path) -> None:
    """Whole or not at all, and never instead of one that somebody else has put there meanwhile."""
    # Not named by the process: one that was killed here may have had the same number.
    fresh = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE)
        try:
            with open(descriptor, "wb") as file:
                file.write(os.urandom(KEY_BYTES))
                file.flush()
                os.fsync(descriptor)
            with suppress(FileExistsError):
                os.link(fresh, path)
        finally:
            fresh.unlink()
    except OSError as error:
        raise RefusedError(f"the key {path} cannot be made: {error.strerror}") from None
