# SPDX-License-Identifier: BSD-3-Clause
"""Files that hold a secret: one that everybody can read holds none."""

import os
import stat
from pathlib import Path
from shlex import quote

from preswapd.errors import RefusedError
from preswapd.host import plain_files

# A group may read it: the service's, where root keeps the file.
OTHERS = stat.S_IRWXO | stat.S_IWGRP


def read_secret(path: Path) -> bytes:
    """RefusedError with a sentence, which has no word of it."""
    try:
        secret = plain_files.read(path)
        mode = path.stat().st_mode
    except OSError as error:
        hint = ""
        if isinstance(error, PermissionError):
            hint = f": let user {os.geteuid()} read it, and nobody else"
        raise RefusedError(f"{path}: {error.strerror}{hint}") from None
    if mode & OTHERS:
        raise RefusedError(
            f"{path} can be read or changed by others: chmod o=,g-w {quote(str(path))}"
        )
    return secret
