# SPDX-License-Identifier: BSD-3-Clause
"""How long the processes of this host wait for memory (PSI)."""

import re
from dataclasses import dataclass
from pathlib import Path

# Not there, or not readable, where the kernel was built or started without it.
PRESSURE = Path("/proc/pressure/memory")


@dataclass(frozen=True)
class Pressure:
    """Percent of the last seconds in which some processes, or all, waited for memory."""

    some: float
    full: float


def stalled_seconds(path: Path = PRESSURE) -> float | None:
    """How long some process has waited for memory since the host's start."""
    try:
        found = re.search(r"^some .*\btotal=(\d+)", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1]) / 1e6


def memory_pressure(path: Path = PRESSURE, seconds: int = 10) -> Pressure | None:
    """The kernel has it of the last 10, 60 and 300 seconds."""
    try:
        text = path.read_text()
    except OSError:
        return None
    found = re.findall(rf"^(some|full) .*\bavg{seconds}=([\d.]+)", text, re.MULTILINE)
    shares = {kind: float(share) for kind, share in found}
    return Pressure(**shares) if shares.keys() == {"some", "full"} else None
