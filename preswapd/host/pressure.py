"""How much memory this host has left, and how long its processes wait for it."""

import re
from dataclasses import dataclass
from pathlib import Path

from preswapd.host.meminfo import MEMINFO, amounts

# Not there, or not readable, where the kernel was built or started without it.
PRESSURE = Path("/proc/pressure/memory")


@dataclass(frozen=True)
class Pressure:
    """Percent of the last seconds in which some processes, or all, waited for memory."""

    some: float
    full: float


def available_memory(path: Path = MEMINFO) -> int | None:
    return amounts(text_of(path)).get("MemAvailable")


def memory_pressure(path: Path = PRESSURE, seconds: int = 10) -> Pressure | None:
    """The kernel has it of the last 10, 60 and 300 seconds."""
    found = re.findall(rf"^(some|full) .*\bavg{seconds}=([\d.]+)", text_of(path), re.MULTILINE)
    shares = {kind: float(share) for kind, share in found}
    return Pressure(**shares) if shares.keys() == {"some", "full"} else None


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
