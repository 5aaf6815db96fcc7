# SPDX-License-Identifier: BSD-3-Clause
"""What systemd and the kernel say of a process."""

import os
import time
from pathlib import Path

PROC = Path("/proc")
SERVICE = ".service"
# What an operator, or a debugger, has stopped.
STOPPED = (["T"], ["t"])


def own_unit(cgroup: Path = PROC / "self/cgroup") -> str:
    """The systemd unit whose main process this is; "" where it was started by somebody else."""
    if os.environ.get("SYSTEMD_EXEC_PID") != str(os.getpid()):
        return ""
    return unit_of(cgroup)


def unit_of(cgroup: Path) -> str:
    """The service that the cgroup is of; "" for any other cgroup."""
    try:
        groups = [line.split(":", 2) for line in cgroup.read_text().splitlines()]
    except OSError:
        return ""
    names = [path.rpartition("/")[2] for _, controllers, path in groups if is_systemds(controllers)]
    return next((name for name in names if name.endswith(SERVICE)), "")


def is_systemds(controllers: str) -> bool:
    """Of the two hierarchies that systemd may use."""
    return controllers in ("", "name=systemd")


def is_stopped(pid: int) -> bool:
    """By SIGSTOP, or for a debugger."""
    return facts(pid)[:1] in STOPPED


def age(pid: int) -> float | None:
    """Seconds since it was started; None where there is no such process."""
    try:
        # Not by /proc/uptime: in a container it may be the container's, and this is the host's.
        started = int(facts(pid)[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError):
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def exists(pid: int) -> bool:
    """Also of one that /proc does not show to this user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def resident(pid: int) -> int | None:
    """Bytes of the host's memory that it takes; None where that cannot be seen."""
    try:
        pages = int((PROC / str(pid) / "statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def facts(pid: int) -> list[str]:
    """From its state on, as proc(5) numbers them; empty where there is no such process.  What is
    left out, its name, may hold spaces."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
