# SPDX-License-Identifier: BSD-3-Clause
"""QEMU's monitor, for the commands that speak to it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from preswapd.qmp import Monitor, MonitorBusyError

QMP_HELP = "The Unix socket of QEMU's option -qmp unix:SOCK,server=on,wait=off."


@contextmanager
def monitor_at(path: Path, otherwise: str) -> Iterator[Monitor]:
    """`otherwise`: what to do where somebody else has it."""
    try:
        monitor = Monitor.at(path)
    except MonitorBusyError as error:
        raise MonitorBusyError(f"{error}; {otherwise}") from None
    with closing(monitor):
        yield monitor
