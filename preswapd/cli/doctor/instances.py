# SPDX-License-Identifier: BSD-3-Clause
"""doctor's checks of a running instance and its devices."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from preswapd.api.figures import DeviceFigures, TmemFigures
from preswapd.api.messages import ServerFacts
from preswapd.cli.doctor.finding import FIX, NOTE, OK, Finding
from preswapd.cli.doctor.host import (
    check_remove_ipc,
    check_shared_memory,
    check_state_directory,
)
from preswapd.cli.doctor.sharing import Share
from preswapd.cli.instances import RunningInstance
from preswapd.paths import SharedMemoryPaths, StatePaths
from preswapd.units import PAGE_SIZE, format_size

# A guest trims whole clusters of 512 pages, so one that has written a few of them must have trimmed
# some, unless it still uses all that it has ever swapped.
PAGES_WITHOUT_TRIM = 16 * 512
OPEN_FILES = "Max open files"
FEW_DESCRIPTORS = 1024


def check_instance(instance: RunningInstance) -> list[Finding]:
    facts = instance.client.facts()
    stats = instance.client.stats()
    name = f"instance {stats['instance']}"
    shm_dir, state_dir = Path(facts.shm_dir), Path(facts.state_dir)
    return [
        *process(name, facts),
        *check_descriptors(name, Path(f"/proc/{facts.pid}/limits")),
        *directory_of_pages(shm_dir, f"{name}, shared memory"),
        *check_state_directory(state_dir, f"{name}, disk files"),
        *pool(name, stats["tmem"]),
        *check_files(
            name, files_of(SharedMemoryPaths(shm_dir), StatePaths(state_dir), stats["devices"])
        ),
        *(
            finding
            for device, counters in stats["devices"].items()
            for finding in check_device(f"{name}, device {device}", counters)
        ),
    ]


def share_of(instance: RunningInstance) -> Share:
    stats = instance.client.stats()
    return Share(
        stats["instance"], Path(instance.client.facts().shm_dir), stats["tmem"]["mem_limit"]
    )


def directory_of_pages(shm_dir: Path, subject: str) -> list[Finding]:
    """Nothing about one that was deleted: check_files reports that."""
    if not shm_dir.is_dir():
        return []
    return [check_shared_memory(shm_dir, subject), *check_remove_ipc(shm_dir.stat().st_uid)]


def process(name: str, facts: ServerFacts) -> Iterator[Finding]:
    threads = f"{facts.threads} worker thread{'s' if facts.threads > 1 else ''} for each connection"
    yield Finding(OK, name, f"process {facts.pid}, nbdkit {facts.nbdkit}")
    yield Finding(OK, name, f"{threads}: {facts.threads_reason}")
    offered = "structured replies" if facts.structured_replies else "no structured replies"
    yield Finding(OK, name, f"{offered}: {facts.structured_replies_reason}")


def check_descriptors(name: str, limits: Path) -> list[Finding]:
    """Each client takes a descriptor; with none left nobody can connect, nor can an operator."""
    try:
        lines = limits.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        if line.startswith(OPEN_FILES):
            most = line.removeprefix(OPEN_FILES).split()[0]
            if most.isdigit() and int(most) < FEW_DESCRIPTORS:
                return [
                    Finding(
                        NOTE,
                        name,
                        f"it may have {most} files open, and each client takes one",
                        "set LimitNOFILE=65536 in its unit, or raise ulimit -Hn before it starts",
                    )
                ]
    return []


def files_of(
    memory: SharedMemoryPaths, state: StatePaths, devices: Iterable[str]
) -> Iterator[Path]:
    """What the next start needs."""
    yield memory.arena
    for device in devices:
        yield memory.map(device)
        yield state.disk_file(device)
        yield state.sidecar(device)


def check_files(name: str, files: Iterable[Path]) -> Iterator[Finding]:
    """A running server has them open already, so nobody would notice before it ends."""
    for path in files:
        if not path.exists():
            yield Finding(
                FIX,
                name,
                f"{path} is missing: guests are served until the server ends, but not after that",
                "shut the guests down, or swapoff there and `preswapctl remove`, before a restart",
            )


def pool(name: str, tmem: TmemFigures) -> Iterator[Finding]:
    used, limit = tmem["mem_used_total"], tmem["mem_limit"]
    yield Finding(OK, name, f"the pool has {format_size(used)} of {format_size(limit)} in use")
    if tmem["checksum_errors"]:
        yield Finding(
            FIX,
            name,
            f"{tmem['checksum_errors']} reads of a damaged or lost page",
            "check the host's memory: the guest got I/O errors for these pages",
        )


def check_device(name: str, device: DeviceFigures) -> Iterator[Finding]:
    written = device["succ_stores"] + device["failed_stores"]
    if written > PAGES_WITHOUT_TRIM and device["trims"] == 0:
        yield Finding(
            FIX,
            name,
            f"no trims seen although {format_size(written * PAGE_SIZE)} was written: swap that"
            " the guest frees is not given back",
            "attach it as `preswapctl qemu-args` says, and use swapon --discard in the guest",
        )
    elif written > PAGES_WITHOUT_TRIM and device["trims"] <= device["size"] // PAGE_SIZE:
        # swapon discards the whole area once, also on a disk that is never trimmed again.
        yield Finding(
            NOTE,
            name,
            "no trims seen since swapon: if the guest has freed swap, its disk is rotational",
            "attach it as `preswapctl qemu-args` says; the guest's dmesg should show SSDsc",
        )
    if device.get("quarantined"):
        refused = device.get("quarantined_reads", 0)
        yield Finding(
            FIX if refused else NOTE,
            name,
            "the host was rebooted while its pages were in memory: reads are refused until a"
            f" freshly booted guest uses it ({refused} refused so far)",
            "a guest that was suspended or restored has lost them: reboot it",
        )
    if device["disk_errors"]:
        yield Finding(
            FIX,
            name,
            f"{device['disk_errors']} reads or writes of its disk file failed",
            "see the server's log",
        )
    if device["connections"] == 0:
        yield Finding(NOTE, name, "no client is connected")
