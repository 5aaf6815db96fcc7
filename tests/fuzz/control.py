# SPDX-License-Identifier: BSD-3-Clause
"""A control server, and the checks on what a connection to it may do."""

import re
import socket
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from preswapd.api.messages import ServerFacts
from preswapd.control.http import ControlServer
from preswapd.control.routes import Api
from preswapd.errors import RefusedError
from preswapd.preswap.instance import Instance
from preswapd.preswap.moving.client import parse_uri
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE
from tests.fuzz.answers import Wrong, statuses
from tests.preswap.running import MIB, Running

FACTS = ServerFacts(1, "1.0", 1, "a reason", False, "a reason", "/run", "/shm", "/state")
# What a socket's buffer holds, so that nobody has to read while it is sent.
LONGEST = 1 << 16
HANG_SECONDS = 20.0
CHANGES = re.compile(rb"POST|DELETE")


class SmallInstance(Instance):
    """A device of terabytes is possible, and takes its time."""

    def create(
        self,
        name: str,
        size: int,
        compress: str | None = None,
        *,
        source: str | None = None,
        force: bool = False,
    ) -> None:
        if size > MIB:
            raise RefusedError("too large for a test")
        # Whom it names is not to be asked.
        if source is not None:
            parse_uri(source)
            raise RefusedError("nobody answers there")
        super().create(name, size, compress)


class SmallRunning(Running):
    def open(
        self,
        *devices: DeviceSpec,
        discard: bool = False,
        accept_moved: bool = False,
        known: bool = True,
    ) -> Instance:
        self.opened = SmallInstance(self.settings, lambda level, text: self.log.append(text))
        return self.opened


class Server(ControlServer):
    """Notes what the real one takes for a broken connection."""

    def __init__(self, api: Api) -> None:
        self.wrong: list[str] = []
        super().__init__(
            socket.socket(socket.AF_UNIX), api, lambda level, text: self.wrong.append(text)
        )

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            self.wrong.append(repr(error))


class Control:
    """Each input is one connection; an input that changed something is followed by a restart."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.start()

    def start(self) -> None:
        self.running = SmallRunning(self.base / "instance", base=self.base / "instance")
        instance = self.running.open()
        connection = self.running.connect()
        for page in range(1, 40):
            connection.pwrite(bytes([page]) * PAGE_SIZE, page * PAGE_SIZE)
        connection.close()
        self.server = Server(Api(instance, FACTS))

    def stop(self) -> None:
        self.server.server_close()
        self.running.__exit__(None, None, None)

    def state(self) -> object:
        paths = self.running.paths
        files = [(path.name, path.stat()) for path in sorted(paths.state_dir.iterdir())]
        return (
            [
                (name, device.size, device.preswap_pages, device.disk_pages, device.connections)
                for name, device in self.running.instance.devices.items()
            ],
            [(name, found.st_size, found.st_mtime_ns) for name, found in files],
            sorted(path.name for path in paths.shm_dir.iterdir()),
        )

    def run(self, sent: bytes) -> None:
        before = self.state()
        answers = statuses(self.talk(sent[:LONGEST]))
        if self.server.wrong:
            raise Wrong(self.server.wrong)
        if self.state() == before:
            return
        if not (CHANGES.search(sent) and any(200 <= status < 300 for status in answers)):
            raise Wrong("something has changed without a request")
        self.stop()
        self.start()

    def talk(self, sent: bytes) -> bytes:
        """What comes back until the server closes the connection."""
        ours, theirs = socket.socketpair()
        with closing(ours):
            ours.settimeout(HANG_SECONDS)
            self.server.process_request(theirs, "")
            # It may have closed the connection before the end.
            with suppress(BrokenPipeError, ConnectionResetError):
                ours.sendall(sent)
                ours.shutdown(socket.SHUT_WR)
            return received(ours)


def received(ours: socket.socket) -> bytes:
    parts = []
    try:
        while part := ours.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass  # closed with something unread
    except TimeoutError:
        raise Wrong("it hangs") from None
    return b"".join(parts)
