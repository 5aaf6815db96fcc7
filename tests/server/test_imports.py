# SPDX-License-Identifier: BSD-3-Clause
"""What a server imports stays in the memory of each instance: only what serves."""

import subprocess
import sys

# What it took before it was done without: http.server 3.5 MiB, with all of mail and TLS behind it,
# OpenSSL more than half a MiB, logging and threads for it half a MiB, uuid and tempfile 0.4.
HEAVY = {
    "_hashlib",
    "_ssl",
    "asyncio",
    "click",
    "concurrent.futures",
    "datetime",
    "email",
    "hashlib",
    "http.client",
    "http.server",
    "logging",
    "multiprocessing",
    "random",
    "shutil",
    "ssl",
    "subprocess",
    "tempfile",
    "tomllib",
    "traceback",
    "uuid",
}
TELL = "import sys; before = set(sys.modules); {}; print(*set(sys.modules) - before)"
SERVES = "import nbd_plugin._callbacks, preswapd.server.lifecycle"


def imported(what: str) -> set[str]:
    """Modules that Python has not imported by itself."""
    command = [sys.executable, "-I", "-c", TELL.format(what)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_server_imports_nothing_heavy() -> None:
    modules = imported(SERVES)
    assert "preswapd.preswap.instance" in modules
    assert modules & HEAVY == set()
