"""How much memory this host has left, and how long its processes wait for it."""

import re
from dataclasses import dataclass
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
# Not there, or not readable, where the kernel was built or started without it.
PRESSURE = Path("/proc/pressure/memory")

AVAILABLE = re.compile(r"^MemAvailable:\s*(\d+) kB$", re.MULTILINE)
SHARE = re.compile(r"^(some|full) avg10=([\d.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Pressure:
    """Percent of the last ten seconds in which some processes, or all, waited for memory."""

    some: float
    full: float


def available_memory(path: Path = MEMINFO) -> int | None:
    found = AVAILABLE.search(text_of(path))
    return int(found[1]) * 1024 if found else None


def memory_pressure(path: Path = PRESSURE) -> Pressure | None:
    shares = {kind: float(share) for kind, share in SHARE.findall(text_of(path))}
    return Pressure(**shares) if shares.keys() == {"some", "full"} else None


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
