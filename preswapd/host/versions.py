# SPDX-License-Identifier: BSD-3-Clause
"""Which versions of other programs are installed on this host."""

import re
import subprocess
from collections.abc import Iterable
from shutil import which

Version = tuple[int, ...]

LIBVIRTS = ("virsh", "virtqemud", "libvirtd")
# From here on <source> takes <reconnect delay=.../>.
LIBVIRT_RECONNECTS: Version = (9, 2, 0)

# An ordinary user's PATH has no sbin.
SYSTEM_PATH = "/usr/sbin:/sbin"
ANSWER_SECONDS = 10.0


def first_version(programs: Iterable[str]) -> Version | None:
    """The version of the first of these that is installed, None without any."""
    for program in programs:
        path = which(program) or which(program, path=SYSTEM_PATH)
        if path and (version := find_version(output_of_version(path))):
            return version
    return None


def version_text(version: Version) -> str:
    return ".".join(map(str, version))


def output_of_version(path: str) -> str:
    """What the program says to --version; nothing of one that fails or hangs."""
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def find_version(text: str) -> Version | None:
    """The first number with a dot in it, like 7.2.9 in "QEMU emulator version 7.2.9 (Debian …)"."""
    match = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(map(int, match[0].split("."))) if match else None
