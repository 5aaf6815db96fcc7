# SPDX-License-Identifier: BSD-3-Clause
"""An instance in this process, on directories of its own: opened, stopped, killed, opened again."""

import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

from preswapd.paths import InstancePaths
from preswapd.preswap.device._device import Connection, Device
from preswapd.preswap.files.disk_file import data_ranges
from preswapd.preswap.files.sidecar import Sidecar
from preswapd.preswap.instance import Instance
from preswapd.preswap.settings import DeviceSpec, Settings
from preswapd.remote._remote import Remote
from preswapd.units import PAGE_SIZE
from tests.running import PATIENCE

MIB = 1 << 20
ONE_DEVICE = (DeviceSpec("g1", MIB),)


class Running:
    """`open()` starts what lies in the directories; `kill()` leaves them as a kill -9 would."""

    def __init__(
        self,
        tmp: Path,
        devices: Sequence[DeviceSpec] = ONE_DEVICE,
        pool_size: int = 8 * MIB,
        compress: str = "lz4",
        base: Path | None = None,
    ) -> None:
        self.base = base or Path(tempfile.mkdtemp(prefix="preswapd-test-", dir="/dev/shm"))
        self.paths = InstancePaths(self.base / "run", self.base / "shm", tmp / "state")
        self.paths.shm_dir.mkdir(parents=True, exist_ok=True)
        self.paths.state_dir.mkdir(parents=True, exist_ok=True)
        self.settings = Settings(
            "test", self.paths, pool_size, tuple(devices), compress, host_reserve=0
        )
        self.opened: Instance | None = None
        self.log: list[str] = []

    @classmethod
    def small_at(cls, base: Path) -> Self:
        """One device of 16 pages, all its files under one directory of the caller's."""
        return cls(base, [DeviceSpec("g1", MIB // 16)], 4 * MIB, base=base)

    @property
    def instance(self) -> Instance:
        assert self.opened is not None
        return self.opened

    @property
    def device(self) -> Device:
        return self.instance.devices["g1"]

    def connect(self) -> Connection:
        return self.device.connect()

    def fitted(self) -> None:
        """Waits for what lowered limits have begun."""
        while shrink := self.instance.shrinks.under_way():
            assert shrink.ended.wait(PATIENCE)

    def open(
        self,
        *devices: DeviceSpec,
        discard: bool = False,
        accept_moved: bool = False,
        known: bool = True,
    ) -> Instance:
        """With these devices configured, or those of before.  New ones are zeros where they are
        `known`, as after a guest's `swapon --discard`."""
        if devices:
            self.settings = replace(self.settings, devices=devices)
        settings = replace(self.settings, discard_state=discard, accept_moved=accept_moved)
        found = {path.stem for path in self.paths.state_dir.glob("*.json")}
        said = self.log
        self.opened = Instance(settings, lambda level, text: said.append(text), self.remote())
        for name, device in self.opened.devices.items():
            if known and (discard or name not in found):
                device.make_known()
        return self.opened

    def remote(self) -> Remote | None:
        """The next one's remote tier: none."""
        return None

    def stop(self) -> None:
        """A clean stop."""
        self.instance.close()
        self.kill()

    def kill(self) -> None:
        """Nothing is stored any more; what was, stays."""
        instance, self.opened = self.opened, None
        if instance is not None:
            end_shrinks(instance)
            for device in instance.devices.values():
                device.close()
            for refused in instance.refused.values():
                if refused.descriptor is not None:
                    os.close(refused.descriptor)
            instance.host.close()

    def reboot(self) -> None:
        """The host starts again: no shared memory, and what disk knows is of an earlier boot."""
        self.kill()
        shutil.rmtree(self.paths.shm_dir)
        self.paths.shm_dir.mkdir()
        for path in self.paths.state_dir.glob("*.json"):
            replace(Sidecar.read(path), boot_id="the boot before").write(path)

    def snapshot(self) -> dict[Path, tuple[int, int, list[tuple[int, bytes]]]]:
        """Size, blocks and data of each file, on disk and in shared memory."""
        found = {}
        for folder in (self.paths.shm_dir, self.paths.state_dir):
            for path in sorted(folder.iterdir()):
                status = path.lstat()
                data = data_of(path) if path.is_file() else []
                found[path] = (status.st_size, status.st_blocks, data)
        return found

    def sidecar(self, name: str = "g1") -> Sidecar:
        return Sidecar.read(self.paths.sidecar(name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(Exception):
            self.kill()
        shutil.rmtree(self.base)


def end_shrinks(instance: Instance) -> None:
    """A thread that goes on would move pages of an arena that is closed."""
    while shrink := instance.shrinks.under_way():
        shrink.stop()
        assert shrink.ended.wait(PATIENCE)


def data_of(path: Path) -> list[tuple[int, bytes]]:
    """What a sparse file holds, without its holes."""
    with path.open("rb") as file:
        descriptor, size = file.fileno(), path.stat().st_size
        return [
            (start, os.pread(descriptor, end - start, start))
            for start, end in data_ranges(descriptor, size)
        ]


def pages_read(connection: Connection) -> list[bytes | None]:
    """Each page of the device; None where it can't be read."""
    pages: list[bytes | None] = []
    for offset in range(0, connection.device.size, PAGE_SIZE):
        try:
            pages.append(read(connection, offset, PAGE_SIZE))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            pages.append(None)
    return pages


def read(connection: Connection, offset: int = 0, count: int | None = None) -> bytes:
    into = bytearray(connection.device.size - offset if count is None else count)
    connection.pread(into, offset)
    return bytes(into)
