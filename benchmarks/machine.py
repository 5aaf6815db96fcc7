# SPDX-License-Identifier: BSD-3-Clause
"""What the figures were measured on and with."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.peers import nbd_server
from preswapd.guest.faults import GuestError
from preswapd.host.meminfo import MEMINFO, amounts
from preswapd.version import VERSION

TOOL_SECONDS = 20
# What each says of itself, and which word of its first line is the version.
TOOLS: Mapping[str, tuple[tuple[str, ...], int]] = {
    "nbdkit": (("nbdkit", "--version"), 1),
    "QEMU": (("qemu-system-x86_64", "--version"), 3),
    "qemu-nbd": (("qemu-nbd", "--version"), 1),
    "fio": (("fio", "--version"), 0),
}


def describe() -> dict[str, Any]:
    """Date, versions and machine; sizes in bytes."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "machine": {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "memory": amounts(MEMINFO.read_text())["MemTotal"],
            # Over a minute, before the first measurement: an idle machine has less than 0.2.
            "load_before": round(os.getloadavg()[0], 2),
        },
    }


def versions() -> dict[str, str]:
    return {
        "preswapd": VERSION,
        "commit": commit(),
        **{name: version(command, word) for name, (command, word) in TOOLS.items()},
        "nbd-server": nbd_server_version(),
        "kernel": platform.release(),
        "Python": platform.python_version(),
    }


def version(command: tuple[str, ...], word: int) -> str:
    words = first_line(command).split()
    return words[word] if len(words) > word else "not here"


def first_line(command: tuple[str, ...]) -> str:
    """Empty where the command fails, or is not there."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False
        )
    except OSError:
        return ""
    return (done.stdout.splitlines() or [""])[0] if done.returncode == 0 else ""


def commit() -> str:
    """Of this checkout, "changed" when files differ from it; empty in a source archive."""
    root = str(Path(__file__).parent.parent)
    name = first_line(("git", "-C", root, "rev-parse", "--short=12", "HEAD"))
    changed = first_line(("git", "-C", root, "status", "--porcelain", "--untracked-files=no"))
    return f"{name}, changed" if changed else name


def nbd_server_version() -> str:
    try:
        return first_line((str(nbd_server()), "-V")).rpartition(" ")[2] or "unknown"
    except GuestError:
        return "not here"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
