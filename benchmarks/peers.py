# SPDX-License-Identifier: BSD-3-Clause
"""nbd-server, fetched but not installed: Debian's package would start a service."""

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from preswapd.guest.faults import SetupError
from preswapd.guest.kernel import DOWNLOAD_SECONDS, command, default_cache

PACKAGE = "nbd-server"


def nbd_server() -> Path:
    """The program, fetched once into the user's cache; SetupError where that is not possible."""
    if found := shutil.which(PACKAGE):
        return Path(found)
    unpacked = default_cache() / PACKAGE
    if not program_in(unpacked):
        fetch(unpacked)
    program = program_in(unpacked)
    if program is None:
        raise SetupError(f"the package {PACKAGE} has no program {PACKAGE}")
    return program


def program_in(folder: Path) -> Path | None:
    """Debian moves /bin into /usr/bin between its releases."""
    found = [folder / place / PACKAGE for place in ("bin", "usr/bin")]
    return next((path for path in found if os.access(path, os.X_OK)), None)


def fetch(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    if shutil.which("apt-get") is None:
        raise SetupError(f"{PACKAGE} is not installed, and apt-get is not here to fetch it")
    print(f"Fetching {PACKAGE} into {folder}, to be run from there", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=folder.parent) as scratch:
        complaint = f"cannot download {PACKAGE}"
        command(
            ["apt-get", "--quiet", "download", PACKAGE],
            complaint,
            Path(scratch),
            seconds=DOWNLOAD_SECONDS,
        )
        archive = next(Path(scratch).glob("*.deb"))
        tree = Path(scratch) / "tree"
        command(["dpkg-deb", "--extract", str(archive), str(tree)], f"cannot unpack {PACKAGE}")
        # Another fetch may have been quicker.
        with suppress(OSError):
            tree.rename(folder)
