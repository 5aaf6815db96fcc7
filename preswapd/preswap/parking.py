# SPDX-License-Identifier: BSD-3-Clause
"""Which virtual machines `preswapctl park` has parked, by the device that each of them has.

The balloon is QEMU's, and what it holds QEMU alone knows; this is what an operator was told last.
So it is noted before QEMU is told to take more, and forgotten after QEMU was told to give all back:
whatever is killed between the two, a machine that is parked is in here.  It is no longer when the
device's last client has gone, which is QEMU's end, and when there is no such process any more, as
after a start that finds it ended meanwhile.
"""

import json
import threading
from collections.abc import Container
from dataclasses import asdict, replace
from typing import Any

from preswapd.api.messages import Parked
from preswapd.errors import RefusedError
from preswapd.host.filesystems import is_there
from preswapd.host.processes import exists
from preswapd.log import WARNING, Log
from preswapd.paths import RuntimePaths
from preswapd.preswap.files.durable import write_file

BOOT_ID = "boot_id"


class Parking:
    """Kept through restarts and kills of the server, until the host reboots."""

    def __init__(
        self, paths: RuntimePaths, boot_id: str, awaited: Container[str], log: Log
    ) -> None:
        """`awaited`: the devices whose client may be coming back."""
        self.path = paths.parked
        self.boot_id = boot_id
        self.log = log
        self.changing = threading.Lock()
        try:
            found = self.read()
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log(WARNING, f"{self.path} is ignored: {error}")
            found = {}
        self.known = {name: parked for name, parked in found.items() if name in awaited}

    def read(self) -> dict[str, Parked]:
        if not is_there(self.path):
            return {}
        found: dict[str, Any] = json.loads(self.path.read_bytes())
        # A runtime directory on a disk keeps the file when the host restarts.
        if found[BOOT_ID] != self.boot_id:
            return {}
        return {name: Parked.from_json(parked) for name, parked in found["devices"].items()}

    def of(self, device: str) -> Parked | None:
        """None where it is not parked, or has ended."""
        parked = self.known.get(device)
        if parked is None or (parked.pid and not exists(parked.pid)):
            return None
        return parked

    def note(self, device: str, parked: Parked) -> None:
        """RefusedError where it cannot be kept; what was known before holds then."""
        seen = parked.pid if parked.pid and exists(parked.pid) else 0
        with self.changing:
            whole = {**self.known, device: replace(parked, pid=seen)}
            try:
                self.write(whole)
            except OSError as error:
                raise RefusedError(
                    f"{self.path} cannot be written, so that a restart of the server would forget"
                    f" that {device} is parked: {error.strerror}"
                ) from None
            self.known = whole

    def forget(self, device: str) -> None:
        with self.changing:
            if device not in self.known:
                return
            self.known = {name: one for name, one in self.known.items() if name != device}
            try:
                self.write(self.known)
            except OSError as error:
                # A start would find it parked, until its client goes.
                self.log(WARNING, f"{self.path}: {error.strerror}")

    def write(self, whole: dict[str, Parked]) -> None:
        devices = {name: asdict(parked) for name, parked in whole.items()}
        body = {BOOT_ID: self.boot_id, "devices": devices}
        write_file(self.path, json.dumps(body, indent=1).encode() + b"\n")
