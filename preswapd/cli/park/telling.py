# SPDX-License-Identifier: BSD-3-Clause
"""What both commands say."""

from preswapd.cli.instances import RunningInstance
from preswapd.cli.park.policy import MIB
from preswapd.cli.typed import control
from preswapd.host.processes import resident
from preswapd.units import format_size

OTHERWISE = (
    "libvirt keeps it to itself: use `virsh setmem GUEST SIZE --live` there, and Ctrl-C where"
    " `preswapctl park` is still at it"
)


def sizes(left: int, whole: int) -> str:
    return f"{format_size(left // MIB * MIB)} of {format_size(whole)}"


def host_memory(pid: int) -> int | None:
    return resident(pid) if pid else None


def taken(now: int | None, before: int | None) -> str:
    """QEMU's memory on the host, where it can be seen."""
    if now is None or before is None:
        return ""
    return f"; QEMU takes {format_size(now)} of the host, {format_size(before)} before"


def typed(instance: RunningInstance, *words: str) -> str:
    return f"`{control(instance.runtime_dir, *words)}`"
