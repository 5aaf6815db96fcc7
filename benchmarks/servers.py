# SPDX-License-Identifier: BSD-3-Clause
"""The servers that are compared: preswapd, and what else serves a disk over NBD."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from benchmarks.host_usage import cpu_seconds, memory_of, upkeep_seconds, written_by
from benchmarks.peers import nbd_server
from preswapd.api.client import Client
from preswapd.demo.server import installed
from preswapd.host.children import Child, ChildError

DISK = "576M"
# The checkout is taken to lie on a disk, where /tmp may be a tmpfs.
DISKS = Path(__file__).parent.parent / "build" / "bench"
START_SECONDS = 20.0
ANSWER_SECONDS = 60.0
# Compressing 256 MiB that were only copied so far takes a few seconds of one core.
SETTLE_SECONDS = 60.0
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Server:
    """A way to serve a disk on a Unix socket.

    In `command` and `files` stand {folder}, on a tmpfs, and {disk}, on a disk.  A server that
    insists on being a daemon names the file that it writes its process's number to.
    """

    name: str
    command: tuple[str, ...]
    export: str = ""
    socket: str = "nbd.sock"
    control: str | None = None
    size: str = DISK
    files: Mapping[str, str] = field(default_factory=dict)
    pid_file: str | None = None


def nbdkit(name: str, *plugin: str, threads: int | None = None) -> Server:
    options = () if threads is None else (f"--threads={threads}",)
    return Server(name, ("nbdkit", "-f", *options, "-U", "{folder}/nbd.sock", *plugin))


def qemu_nbd(name: str, file: str, *options: str) -> Server:
    fixed = ("qemu-nbd", "--persistent", "--format=raw", "--discard=unmap")
    return Server(name, (*fixed, *options, "--socket={folder}/nbd.sock", file))


def classic(name: str, file: str) -> Server:
    """nbd-server: with a Unix socket it opens no port, but insists on a number for one."""
    config = (
        "[generic]\nlistenaddr = 127.0.0.1\nport = 10809\nunixsock = {folder}/nbd.sock\n"
        f"[bench]\nexportname = {file}\ntrim = true\n"
    )
    command = ("nbd-server", "-C", "{folder}/nbd-server.conf", "-p", "{folder}/pid")
    return Server(name, command, export="bench", files={"nbd-server.conf": config}, pid_file="pid")


def preswapd(
    compress: str,
    pool: str = "1G",
    size: str = DISK,
    note: str = "",
    options: Sequence[str] = (),
    instance: str | None = None,
) -> Server:
    """Its disk file lies on a disk: a page that the pool rejects costs what it costs.

    One that is named as an `instance` shares its folders with others.
    """
    own = "" if instance is None else f"/{instance}"
    named = () if instance is None else (f"--instance={instance}",)
    return Server(
        f"preswapd {compress}{note}",
        (
            *(installed("preswapd"), "serve", f"--compress={compress}", *named),
            *(f"--runtime-dir={{folder}}/run{own}", f"--shm-dir={{folder}}/shm{own}"),
            *(f"--state-dir={{disk}}/state{own}", f"--pool-size={pool}"),
            *(f"--device=bench={size}", *options),
        ),
        export="bench",
        socket=f"run{own}/nbd.sock",
        control=f"run{own}/control.sock",
        size=size,
    )


class Running:
    """A server that serves."""

    def __init__(self, server: Server, folder: Path, process: int) -> None:
        """`process`: the number of the one that serves."""
        self.server = server
        self.folder = folder
        self.process = process
        self._client = Client(folder / server.control) if server.control else None

    @property
    def uri(self) -> str:
        return f"nbd+unix:///{self.server.export}?socket={self.folder / self.server.socket}"

    def ask(self) -> None:
        """Returns with the first answer: a socket may accept long before that."""
        command = ["nbdinfo", "--size", self.uri]
        subprocess.run(command, check=True, capture_output=True, timeout=ANSWER_SECONDS)

    def greet(self) -> None:
        """The same for one of many: the greeting alone, without a program that asks for it."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(ANSWER_SECONDS)
            probe.connect(str(self.folder / self.server.socket))
            if not probe.recv(1):
                raise RuntimeError(f"{self.server.name} hung up")

    def cpu(self) -> float:
        """Seconds of processor time so far, its children's included."""
        children = Path(f"/proc/{self.process}/task/{self.process}/children").read_text()
        return sum(cpu_of(process) for process in (self.process, *map(int, children.split())))

    def upkeep(self) -> float:
        """Seconds of that which preswapd took by itself; 0 for others."""
        return upkeep_seconds(self.process)

    def resident(self) -> dict[str, int]:
        """Bytes of resident memory: all, and its parts (private, of files, shared memory)."""
        found = memory_of(self.process)
        names = {"VmRSS": "all", "RssAnon": "private", "RssFile": "files", "RssShmem": "shared"}
        return {name: found[of] for of, name in names.items()}

    def tmem(self) -> dict[str, Any]:
        """The figures of preswapd's pool; empty for others."""
        return dict(self._client.stats()["tmem"]) if self._client else {}

    def device(self, name: str | None = None) -> dict[str, Any]:
        """The figures of preswapd's device, or of the one with this name; empty for others."""
        return dict(self._client.device(name or self.server.export)) if self._client else {}

    def image(self) -> dict[str, Any]:
        """The figures of preswapd's image; empty for others."""
        return dict(self._client.stats()["images"][self.server.export]) if self._client else {}

    def written(self) -> int | None:
        """Bytes that the process has sent to disks so far; None where the kernel does not say."""
        return written_by(self.process)

    def settle(self) -> float:
        """Waits for pages that are stored as they came to be compressed; seconds that it took."""
        begun = time.monotonic()
        while self.tmem().get("staged_pages", 0) and time.monotonic() - begun < SETTLE_SECONDS:
            time.sleep(POLL_SECONDS)
        return time.monotonic() - begun


def cpu_of(process: int) -> float:
    """Seconds, those of children that it has waited for included; 0 for one that is gone."""
    try:
        return cpu_seconds(process, with_children=True)
    except OSError:
        return 0.0


@contextmanager
def folders() -> Iterator[tuple[Path, Path]]:
    """One on a tmpfs, with a short path as sockets need it, and one on a disk."""
    DISKS.mkdir(parents=True, exist_ok=True)
    prefix = "preswapd-bench-"
    with (
        tempfile.TemporaryDirectory(prefix=prefix, dir="/dev/shm") as memory,
        tempfile.TemporaryDirectory(prefix=prefix, dir=DISKS) as disk,
    ):
        yield Path(memory), Path(disk)


@contextmanager
def running(server: Server) -> Iterator[Running]:
    """The server while it runs, in folders of its own."""
    with folders() as (folder, disk):
        prepare(server, folder, disk)
        with started(server, folder, disk) as serving:
            yield serving


def prepare(server: Server, folder: Path, disk: Path) -> None:
    for place in (folder, disk):
        subprocess.run(["truncate", "-s", server.size, str(place / "disk")], check=True)
    for name, text in server.files.items():
        (folder / name).write_text(text.format(folder=folder, disk=disk))


@contextmanager
def started(server: Server, folder: Path, disk: Path) -> Iterator[Running]:
    child = start(server, folder, disk)
    try:
        serving = serving_from(server, folder, child)
        serving.ask()
        yield serving
    finally:
        end(server, folder, child)


def start(server: Server, folder: Path, disk: Path) -> Child:
    program, *arguments = server.command
    if program == "nbd-server":
        program = str(nbd_server())
    elif shutil.which(program) is None:
        raise FileNotFoundError(f"{program} is not installed")
    return Child([program, *(part.format(folder=folder, disk=disk) for part in arguments)])


def serving_from(
    server: Server, folder: Path, child: Child, seconds: float = START_SECONDS
) -> Running:
    """Waits until its socket accepts, or tells that it never will."""
    daemon = folder / server.pid_file if server.pid_file else None
    try:
        child.watch(
            partial(accepting, folder / server.socket), seconds, ends_well=daemon is not None
        )
    except ChildError as error:
        raise RuntimeError(f"{server.name} does not serve: {error}") from None
    return Running(server, folder, int(daemon.read_text()) if daemon else child.pid)


def accepting(path: Path) -> Literal[True] | None:
    """Whether the socket there accepts."""
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.connect(str(path))
        return True
    return None


def end(server: Server, folder: Path, child: Child) -> None:
    child.stop(seconds=START_SECONDS)
    if server.pid_file and (folder / server.pid_file).exists():
        os.kill(int((folder / server.pid_file).read_text()), signal.SIGTERM)
