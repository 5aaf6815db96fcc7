# SPDX-License-Identifier: BSD-3-Clause
"""doctor's checks of what an orderly reboot of the host would lose."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from preswapd.api.messages import ServerFacts
from preswapd.cli.doctor.finding import NOTE, OK, Finding
from preswapd.host.disks import write_rate
from preswapd.host.systemd import properties
from preswapd.units import PAGE_SIZE, format_size

# Guests are stopped first, and reboot.target ends the whole shutdown by force after 30 minutes.
MOST_MINUTES = 20
# A disk that would need that long for less takes 3.4 MiB/s, and is of no use for swap.
WORTH_MEASURING = 4 << 30
UNIT = "preswapd@{name}.service"
SYNC = "preswapd-sync@{name}.service"

Ask = Callable[..., dict[str, str]]


def check_sync_unit(instance: str, facts: ServerFacts, ask: Ask = properties) -> list[Finding]:
    """Of a server that systemd runs."""
    if ask(UNIT.format(name=instance), "MainPID").get("MainPID") != str(facts.pid):
        return []
    unit = SYNC.format(name=instance)
    state = ask(unit, "ActiveState").get("ActiveState")
    if state == "active":
        return [Finding(OK, unit, "brings all pages to disk when the host shuts down")]
    return [
        Finding(
            NOTE,
            unit,
            f"is not active ({state or 'unknown'}): a reboot of the host loses what guests that are"
            " saved meanwhile have in memory",
            f"systemctl start {unit}; `systemctl unmask` it first where it is masked",
        )
    ]


def check_reboot(
    pages: Iterable[tuple[Path, int]], rate: Callable[[Path], float] = write_rate
) -> Iterator[Finding]:
    """Whether a shutdown has the time for all pages in memory.

    `pages`: the state directory of each instance, and its pages in memory.
    """
    disks: dict[int, tuple[Path, int]] = {}
    for directory, number in pages:
        try:
            disk = directory.stat().st_dev
        except OSError:
            continue  # reported elsewhere
        first, before = disks.get(disk, (directory, 0))
        disks[disk] = first, before + number * PAGE_SIZE
    for directory, size in disks.values():
        if size >= WORTH_MEASURING:
            yield check_disk(directory, size, rate)


def check_disk(directory: Path, size: int, rate: Callable[[Path], float]) -> Finding:
    subject = "reboot"
    try:
        bytes_per_second = rate(directory)
    except OSError as error:
        text = f"how fast the disk of {directory} is could not be tried: {error.strerror}"
        return Finding(NOTE, subject, text)
    minutes = size / bytes_per_second / 60
    text = (
        f"the {format_size(size)} that guests have in memory take {minutes:.0f} minutes to the disk"
        f" of {directory}, at {format_size(int(bytes_per_second))}/s"
    )
    if minutes <= MOST_MINUTES:
        return Finding(OK, subject, text)
    return Finding(
        NOTE,
        subject,
        f"{text}, and a shutdown ends by force after 30",
        "`preswapctl sync` some time before it, and again with the guests saved or shut down; or a"
        " faster disk, or smaller pools",
    )
