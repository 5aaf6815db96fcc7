# SPDX-License-Identifier: BSD-3-Clause
"""Where a guest swaps to: preswapd, a plain file past or in the host's page cache, or zram."""

import json
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.guest_jobs import Material
from benchmarks.host_usage import cpu_seconds, resident, upkeep_seconds, written_by
from benchmarks.memory_group import MemoryGroup, memory_group
from preswapd.demo.server import TemporaryServer
from preswapd.guest.initramfs import MODULES
from preswapd.guest.kernel import Kernel
from preswapd.guest.machine import Guest, Hardware, Software
from preswapd.guest.modules import ModuleTree

MIB = 1 << 20
LABEL = "swap0"
# Of swap, wherever it is: more than the jobs can fill.
SIZE = 256 * MIB
ZRAM_MODULES = ("zram", "lz4")
ZRAM = "/sys/block/zram0"
LIFE_SECONDS = 1200.0


class CannotError(Exception):
    """This kind of swap is not to be had on this host."""


@dataclass(frozen=True)
class Place:
    """What all guests are made from; `disk` is a folder on the file system that is measured."""

    kernel: Kernel
    cache: Path
    material: Material
    disk: Path


@dataclass(frozen=True)
class Budget:
    """Bytes of host memory that preswapd took at its peak: its guest's QEMU, and its pool."""

    qemu: int = 0
    pool: int = 0


class Swapping:
    """A guest with its jobs that swaps somewhere, as long as the `with` block lasts.

    `memory` is the guest's; the budget is what its swap may take of the host beside it.
    """

    name = "nowhere"
    life = LIFE_SECONDS

    def __init__(self, place: Place, memory: int, budget: Budget) -> None:
        self.place = place
        self.memory = memory
        self.budget = budget
        self.stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def start(self) -> None:
        raise NotImplementedError

    def boot(
        self,
        disks: list[str],
        *,
        memory: int | None = None,
        wrapper: tuple[str, ...] = (),
        files: dict[str, bytes] | None = None,
    ) -> None:
        material = self.place.material
        hardware = Hardware(
            memory or self.memory, disks=disks, material=material.disk, wrapper=wrapper
        )
        software = Software(
            self.place.kernel, material.programs, {**material.files, **(files or {})}
        )
        self.guest = self.stack.enter_context(
            Guest(hardware, software, self.place.cache, life=self.life)
        )

    def raw_file(self, *, cached: bool) -> list[str]:
        """QEMU's options for a file of its own, attached as preswapd's disk is."""
        folder = tempfile.TemporaryDirectory(prefix="preswapd-bench-", dir=self.place.disk)
        path = Path(self.stack.enter_context(folder)) / "swap"
        with path.open("wb") as file:
            file.truncate(SIZE)
        node = {
            "driver": "raw",
            "node-name": "swap",
            "discard": "unmap",
            "cache": {"direct": not cached},
            "file": {
                "driver": "file",
                "filename": str(path),
                "discard": "unmap",
                "cache": {"direct": not cached},
                # Linux' own asynchronous I/O works past the page cache only.
                "aio": "threads" if cached else "native",
            },
        }
        return [
            *("-blockdev", json.dumps(node), "-device", "virtio-scsi-pci,id=pss0"),
            *("-device", "scsi-hd,bus=pss0.0,drive=swap,rotation_rate=1"),
        ]

    def before_round(self, budget: Budget) -> None:
        """Said again before each round: what preswapd took may have grown."""

    def server_cpu(self) -> float:
        """Seconds of processor time beside QEMU's."""
        return 0.0

    def written(self) -> int | None:
        """Bytes sent to the host's disk so far, by QEMU here; None where nobody knows."""
        return written_by(self.guest.pid)

    def host_memory(self) -> list[int]:
        """Bytes of host memory that the guest takes now: QEMU, a pool beside it, its server."""
        return [resident(self.guest.pid), 0, 0]


class Preswapd(Swapping):
    """Pages compressed in shared memory of the host."""

    codec = "lz4"
    name = "preswapd lz4"
    options: tuple[str, ...] = ()

    def pool(self) -> int:
        """Takes all that the guest swaps."""
        return SIZE

    def start(self) -> None:
        options = [f"--compress={self.codec}", *self.options]
        server = TemporaryServer(self.pool(), LABEL, SIZE, options)
        self.server = self.stack.enter_context(server)
        self.server.start()
        self.server_pid = self.server.client.facts().pid
        self.boot(json.loads(self.server.run("--json", "qemu-args", LABEL)))
        self.guest.swapon(LABEL)

    def server_cpu(self) -> float:
        return cpu_seconds(self.server_pid)

    def upkeep(self) -> float:
        """Seconds of that which it took by itself."""
        return upkeep_seconds(self.server_pid)

    def written(self) -> int | None:
        return written_by(self.server_pid)

    def host_memory(self) -> list[int]:
        return [resident(self.guest.pid), self.server.arena_size(), resident(self.server_pid)]


class PreswapdZstd(Preswapd):
    codec = "zstd"
    name = "preswapd zstd"


class DiskFile(Swapping):
    """A raw file, past the host's page cache."""

    name = "file, cache=none"

    def start(self) -> None:
        self.boot(self.raw_file(cached=False))
        self.turn_on()

    def turn_on(self) -> None:
        self.guest.run(f"mkswap -L {LABEL} /dev/sda")
        self.guest.swapon(LABEL)


class CachedFile(DiskFile):
    """The same file in the host's page cache, whose size a memory cgroup limits."""

    name = "file, cache=writeback"
    group: MemoryGroup

    def start(self) -> None:
        group = self.stack.enter_context(memory_group())
        if group is None:
            raise CannotError("no memory cgroup can be made here")
        self.group = group
        self.before_round(self.budget)
        self.boot(self.raw_file(cached=True), wrapper=group.wrapper)
        self.turn_on()

    def before_round(self, budget: Budget) -> None:
        self.group.limit(budget.qemu + budget.pool)

    def host_memory(self) -> list[int]:
        """The page cache is the pool; what QEMU shares with others is charged to those."""
        qemu = resident(self.guest.pid)
        return [qemu, max(self.group.usage() - qemu, 0), 0]


class Zram(Swapping):
    """Compressed memory in the guest itself, which is larger by what preswapd's pool took."""

    name = "zram lz4"

    def start(self) -> None:
        self.boot_with_zram([])
        settings = {f"{ZRAM}/comp_algorithm": "lz4", f"{ZRAM}/disksize": str(SIZE)}
        self.turn_on(settings)

    def boot_with_zram(self, disks: list[str]) -> None:
        memory = self.memory + -(-self.budget.pool // MIB) * MIB
        modules = dict(ModuleTree(self.place.kernel.modules).load_order((*MODULES, *ZRAM_MODULES)))
        known = dict(ModuleTree(self.place.kernel.modules).load_order(MODULES))
        more = {f"/zram/{name}.ko": data for name, data in modules.items() if name not in known}
        self.boot(disks, memory=memory, files=more)
        self.guest.run(" && ".join(f"insmod {path}" for path in more))

    def turn_on(self, settings: dict[str, str]) -> None:
        """In this order."""
        # As zram's users are told to: reading ahead only costs where no disk turns.
        settings = {**settings, "/proc/sys/vm/page-cluster": "0"}
        self.guest.run(" && ".join(f"echo {value} >{path}" for path, value in settings.items()))
        self.guest.run("mkswap /dev/zram0 && swapon -d /dev/zram0")


ALL: tuple[type[Swapping], ...] = (Preswapd, DiskFile, CachedFile, Zram, PreswapdZstd)
