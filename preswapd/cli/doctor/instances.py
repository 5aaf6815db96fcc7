# SPDX-License-Identifier: BSD-3-Clause
"""doctor's checks of a running instance and its devices."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from preswapd.api.client import Client
from preswapd.api.figures import DeviceFigures, TmemFigures
from preswapd.api.last_start import LastStart
from preswapd.api.messages import ServerFacts
from preswapd.api.settings import DEFAULT, GOVERNED_LIMIT, QUOTA, UNLIMITED, VM_REMOTE
from preswapd.cli.doctor.clients import check_client
from preswapd.cli.doctor.container import check_places
from preswapd.cli.doctor.finding import FIX, NOTE, OK, Finding
from preswapd.cli.doctor.host import (
    check_remove_ipc,
    check_shared_memory,
    check_state_directory,
)
from preswapd.cli.doctor.images import check_images, check_sums
from preswapd.cli.doctor.keys import check_keys
from preswapd.cli.doctor.moving import check_moving
from preswapd.cli.doctor.reboot import check_sync_unit
from preswapd.cli.doctor.sharing import Share
from preswapd.cli.doctor.sockets import check_firewall, check_sockets
from preswapd.cli.doctor.store import check_remote
from preswapd.cli.instances import RunningInstance, is_there
from preswapd.cli.typed import as_root, control
from preswapd.host import filesystems
from preswapd.host.file_locks import holder
from preswapd.paths import (
    InstancePaths,
    RuntimePaths,
    SharedMemoryPaths,
    StatePaths,
    governor_runtime_dir,
)
from preswapd.units import PAGE_SIZE, format_pages, format_size

# A guest trims whole clusters of 512 pages, so one that has written a few of them must have trimmed
# some, unless it still uses all that it has ever swapped.
PAGES_WITHOUT_TRIM = 16 * 512
# Of a quota: a device that makes room keeps a part of it free.
NEARLY = 0.9
# 128 MiB that went to disk unasked: what a server does in its first minutes says little.
MANY_MOVED = 1 << 15
OPEN_FILES = "Max open files"
FEW_DESCRIPTORS = 1024


class Place(NamedTuple):
    """Where an instance is found, and what it calls itself."""

    instance: str
    runtime_dir: Path

    @property
    def name(self) -> str:
        return f"instance {self.instance}"

    def control(self, *words: str) -> str:
        return control(self.runtime_dir, *words)


def check_instance(instance: RunningInstance) -> list[Finding]:
    facts = instance.client.facts()
    stats = instance.client.stats()
    place = Place(stats["instance"], instance.runtime_dir)
    name = place.name
    shm_dir, state_dir = Path(facts.shm_dir), Path(facts.state_dir)
    files = files_of(SharedMemoryPaths(shm_dir), StatePaths(state_dir), stats["devices"])
    here = number_here(place.runtime_dir, facts.pid)
    return [
        *process(name, facts, here),
        *check_sync_unit(stats["instance"], facts),
        *check_sockets(name, facts),
        *check_firewall(stats["instance"], facts),
        *check_keys(name, facts),
        *check_descriptors(name, Path(f"/proc/{here}/limits")),
        *directory_of_pages(shm_dir, f"{name}, shared memory"),
        *check_state_directory(state_dir, f"{name}, disk files"),
        *check_places(name, places_of(place, shm_dir, state_dir)),
        *pool(place, stats["tmem"]),
        *check_files(place, files),
        *(
            finding
            for device, figures in stats["devices"].items()
            for finding in [
                *check_device(place, device, figures),
                *check_moves(place, instance.client, device, figures),
            ]
        ),
        *(
            Finding(
                FIX,
                f"{name}, device {device}",
                f"it is not served: {why}",
                "put that right, then restart the server",
            )
            for device, why in stats.get("refused", {}).items()
        ),
        *check_images(name, place.runtime_dir, stats),
        *check_sums(name, state_dir, stats),
        *check_remote(name, instance.client, place.control("sysctl", f"{VM_REMOTE}={DEFAULT}")),
    ]


def places_of(place: Place, shm_dir: Path, state_dir: Path) -> dict[str, Path]:
    """What of it must outlive a container."""
    return {
        "pages in memory": shm_dir,
        "pages on disk": state_dir,
        "the sockets": place.runtime_dir,
    }


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


def number_here(runtime_dir: Path, pid: int) -> int:
    """Its process number as we see it: in a container a server knows another one."""
    _, lock, _ = InstancePaths(runtime_dir, runtime_dir, runtime_dir).locks
    return holder(lock) or pid


def process(name: str, facts: ServerFacts, here: int) -> Iterator[Finding]:
    threads = f"{facts.threads} worker thread{'s' if facts.threads > 1 else ''} for each connection"
    number = str(here) if here == facts.pid else f"{here} ({facts.pid} in its container)"
    yield Finding(OK, name, f"process {number}, nbdkit {facts.nbdkit}")
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
) -> Iterator[tuple[Path, str | None]]:
    """What the next start needs, each with the device that it is of."""
    yield memory.arena, None
    for device in devices:
        for path in (memory.map(device), state.disk_file(device), state.sidecar(device)):
            yield path, device


def check_files(place: Place, files: Iterable[tuple[Path, str | None]]) -> Iterator[Finding]:
    """A running server has them open already, so nobody would notice before it ends."""
    for path, device in files:
        if not filesystems.is_there(path):
            way = "before a restart shut the guests down, or swapoff there"
            yield Finding(
                FIX,
                place.name,
                f"{path} is missing: guests are served until the server ends, but not after that",
                way if device is None else f"{way}, and then",
                None if device is None else place.control("remove", device),
            )


def pool(place: Place, tmem: TmemFigures) -> Iterator[Finding]:
    name = place.name
    used, limit = tmem["mem_used_total"], tmem["mem_limit"]
    whose = ", which is the governor's limit," if tmem.get("governed") else ""
    yield Finding(
        OK, name, f"the pool has {format_size(used)} of {format_size(limit)}{whose} in use"
    )
    if tmem.get("governed") and not is_there(governor_runtime_dir()):
        yield Finding(
            NOTE,
            name,
            "the pool's limit is that of a governor that does not run any more",
            "start it (systemctl start preswapd-governor), or end what it has set",
            place.control("sysctl", f"{GOVERNED_LIMIT.sysctl_key(place.instance)}=off"),
        )
    if tmem.get("frozen"):
        yield Finding(
            NOTE,
            name,
            "the pool is frozen: new pages go to disk",
            "let them in again",
            place.control("thaw"),
        )
    if tmem["checksum_errors"]:
        yield Finding(
            FIX,
            name,
            f"{tmem['checksum_errors']} reads of a damaged or lost page",
            "check the host's memory: the guest got I/O errors for these pages",
        )


def check_device(place: Place, device: str, figures: DeviceFigures) -> Iterator[Finding]:
    name = f"{place.name}, device {device}"
    yield from check_trims(name, figures, place.control("qemu-args", device))
    unlimited = f"{QUOTA.sysctl_key(place.instance, device)}={UNLIMITED}"
    yield from check_quota(name, figures, place.control("sysctl", unlimited))
    yield from check_refaults(name, figures, place.control("ages", device))
    if unknown := figures.get("unknown_reads", 0):
        yield Finding(
            FIX,
            name,
            f"{unknown} reads of pages that no guest has written, as far as this server knows,"
            " were I/O errors",
            "a guest that was restored or moved here, or outlived a reboot of the host, has lost"
            " them: reboot it; if its disk holds nothing that it needs, this makes them zeros",
            place.control("trim", device),
        )
    if figures["disk_errors"]:
        yield Finding(
            FIX,
            name,
            f"{figures['disk_errors']} reads or writes of its disk file failed",
            *reading_its_log(place.runtime_dir),
        )
    yield from check_client(name, figures)


def check_moves(
    place: Place, client: Client, device: str, figures: DeviceFigures
) -> Iterator[Finding]:
    status = client.pull_status(device) if figures.get("source") else None
    yield from check_moving(
        f"{place.name}, device {device}",
        figures,
        status,
        lambda word, *options: place.control(word, device, *options),
    )


def check_trims(name: str, figures: DeviceFigures, attaching: str) -> Iterator[Finding]:
    written = figures["succ_stores"] + figures["failed_stores"]
    if written > PAGES_WITHOUT_TRIM and figures["trims"] == 0:
        yield Finding(
            FIX,
            name,
            f"no trims seen although {format_size(written * PAGE_SIZE)} was written: swap that"
            " the guest frees is not given back",
            "use swapon --discard in the guest, and attach it as this says",
            attaching,
        )
    elif written > PAGES_WITHOUT_TRIM and figures["trims"] <= figures["size"] // PAGE_SIZE:
        # swapon discards the whole area once, also on a disk that is never trimmed again.
        yield Finding(
            NOTE,
            name,
            "no trims seen since swapon: if the guest has freed swap, its disk is rotational",
            "the guest's dmesg should show SSDsc, and does if it is attached as this says",
            attaching,
        )


def check_quota(name: str, figures: DeviceFigures, lifting: str) -> Iterator[Finding]:
    size, pages = figures["size"] // PAGE_SIZE, figures["preswap_pages"]
    quota = figures.get("quota", size)
    if quota >= size:
        return
    text = f"{pages} pages of its quota of {format_pages(quota)} are in tmem"
    if pages < quota * NEARLY:
        yield Finding(OK, name, text)
    else:
        yield Finding(NOTE, name, f"{text}: what it uses least goes to disk", "lift it", lifting)


def check_refaults(name: str, figures: DeviceFigures, looking: str) -> Iterator[Finding]:
    """Only where most went unasked: after an operator's shrink it is no wonder."""
    moved, refaults = figures.get("written_back_pages", 0), figures.get("refaults", 0)
    idle = figures.get("written_back_idle", 0)
    unasked = figures.get("written_back_room", 0) + idle
    if unasked < MANY_MOVED or unasked * 2 < moved or refaults * 4 < moved:
        return
    cause = "a longer writeback-idle" if idle * 2 > unasked else "a larger pool-size"
    yield Finding(
        NOTE,
        name,
        f"{format_pages(refaults)} of {format_pages(moved)} that were moved to disk were read again"
        " within ten minutes",
        f"{cause} would keep them in memory; how old the pages there are",
        looking,
    )


def reading_its_log(runtime_dir: Path) -> tuple[str, str] | tuple[str]:
    last_start = LastStart.read(RuntimePaths(runtime_dir).last_start)
    if last_start and last_start.unit:
        return "see its log", as_root(f"journalctl --unit {quote(last_start.unit)} --lines 50")
    return ("see the server's log, which is on its standard error",)
