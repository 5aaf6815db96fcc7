# SPDX-License-Identifier: BSD-3-Clause
"""Which nbdkit is installed here, and what its version requires of the server."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from preswapd.errors import MisfitError, RefusedError
from preswapd.host.inherited import LOCALE, NO_JIT, without_chance
from preswapd.host.versions import SYSTEM_PATH, Version, find_version, version_text

# The Python plugin has after_fork and cleanup from here on.
OLDEST: Version = (1, 28, 0)
# From here on a client that hangs up with requests in flight ends its connection, not the process.
SURVIVES_HANG_UP: Version = (1, 33, 10)
# CVE-2025-47711: the first fixed release of each series that got the fix; later series have it.
BLOCK_STATUS_FIXED: dict[Version, int] = {(1, 38): 6, (1, 40): 6, (1, 42): 2}
BLOCK_STATUS_FIXED_SERIES = (1, 44)

# QEMU has at most this many requests in flight; with fewer, one slow disk read stops the guest.
THREADS = 16
PROBE_SECONDS = 20

OUR_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# Of an interpreter without the global lock (PEP 703).
FREE_THREADED = "t"
OF_THE_DISTRIBUTION = (
    "a virtual environment made with the distribution's own (/usr/bin/python3 -m venv)"
)


@dataclass(frozen=True)
class Nbdkit:
    """The nbdkit that was found."""

    path: str
    version: Version
    python: str  # major.minor of the Python that its plugin embeds

    @property
    def version_text(self) -> str:
        return version_text(self.version)


def environment() -> dict[str, str]:
    """Ours, made so that the embedded Python adopts the virtual environment that we run in, and
    writes names as we do: it cannot be told that by an option."""
    own_bin = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    ours = without_chance(os.environ)
    return {**ours, "LC_ALL": LOCALE, "PATH": f"{own_bin}{os.pathsep}{path}", **NO_JIT}


def probe() -> Nbdkit:
    """Looks at the installed nbdkit; RefusedError says what to install when it will not do."""
    path = shutil.which("nbdkit", path=environment()["PATH"])
    # An ordinary user's PATH has no sbin, where some distributions keep it.
    path = path or shutil.which("nbdkit", path=SYSTEM_PATH)
    if path is None:
        raise RefusedError("nbdkit is not installed: install nbdkit and its Python plugin")
    path = os.path.abspath(path)
    version = version_of(output_of(path, "--version"))
    if version < OLDEST:
        raise RefusedError(
            f"nbdkit {version_text(version)} is too old: {version_text(OLDEST)} or newer is needed"
        )
    # What it embeds does not depend on the virtual environment, which takes as long to load.
    python = python_of(output_of(path, "python", "--dump-plugin", env=without_chance(os.environ)))
    if python != OUR_PYTHON:
        raise MisfitError(
            f"nbdkit's plugin embeds Python {python}, this is Python {OUR_PYTHON}: install preswapd"
            f" again, for the Python that is here now, or into {OF_THE_DISTRIBUTION}"
        )
    # It has the same number, but what was compiled for it does not load in the other.
    if FREE_THREADED in sys.abiflags:
        raise MisfitError(
            f"this is a free-threaded Python {OUR_PYTHON}, whose extensions do not load in the"
            f" ordinary one of nbdkit's plugin: install preswapd into {OF_THE_DISTRIBUTION}"
        )
    return Nbdkit(path, version, python)


def tried(*command: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """How it ended; RefusedError where it has not."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            # nbdkit 1.48 does not start in a directory that was deleted, 1.42 does.
            cwd="/",
            env=env or environment(),
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RefusedError(f"{' '.join(command)} gave no answer in {PROBE_SECONDS} s") from None


def complaint_of(done: subprocess.CompletedProcess[str]) -> str:
    """The first line of what it said."""
    return (done.stderr.strip() or "no message").splitlines()[0]


def output_of(*command: str, env: Mapping[str, str] | None = None) -> str:
    done = tried(*command, env=env)
    if done.returncode:
        hint = (
            ": its Python plugin is not installed (Debian: nbdkit-plugin-python)"
            if "cannot open plugin" in done.stderr
            else ""
        )
        raise RefusedError(f"{' '.join(command)} failed{hint}: {complaint_of(done)}")
    return done.stdout


def version_of(text: str) -> Version:
    version = find_version(text)
    if not text.startswith("nbdkit ") or version is None or len(version) < 3:
        raise RefusedError(f"nbdkit --version says {text.strip()!r}, which is not a version")
    return version[:3]


def python_of(dump: str) -> str:
    match = re.search(r"^python_version=(\d+\.\d+)", dump, re.MULTILINE)
    if match is None:
        raise RefusedError("nbdkit's Python plugin does not say which Python it embeds")
    return match[1]


def choose_threads(version: Version, asked: int | None) -> tuple[int, str]:
    """How many worker threads a connection gets, and why."""
    fragile = (
        f"nbdkit before {version_text(SURVIVES_HANG_UP)} with more than one thread aborts when"
        " a client hangs up with requests in flight"
    )
    if asked is None:
        if version < SURVIVES_HANG_UP:
            return 1, fragile
        return THREADS, "as many as QEMU has requests in flight"
    if asked > 1 and version < SURVIVES_HANG_UP:
        return asked, f"as configured, although {fragile}"
    return asked, "as configured"


def choose_structured_replies(version: Version) -> tuple[bool, str]:
    """Whether clients may ask for structured replies, and with them for block status, and why."""
    series = version[:2]
    if series >= BLOCK_STATUS_FIXED_SERIES or version[2] >= BLOCK_STATUS_FIXED.get(
        series, version[2] + 1
    ):
        return True, "this nbdkit has the fix of CVE-2025-47711"
    return False, (
        "one block status request of a client can abort this nbdkit (CVE-2025-47711, fixed in"
        " 1.38.6, 1.40.6 and 1.42.2)"
    )
