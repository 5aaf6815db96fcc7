"""The servers that are compared: preswapd, and what else serves memory over NBD."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DISK = "512M"
START_SECONDS = 20.0
PRESWAPD = str(Path(sys.executable).parent / "preswapd")


@dataclass(frozen=True)
class Server:
    """A way to serve 512 MiB on a Unix socket; `command` has {socket} and {folder} in it."""

    name: str
    command: tuple[str, ...]
    export: str = ""
    socket: str = "nbd.sock"

    def uri(self, folder: Path) -> str:
        return f"nbd+unix:///{self.export}?socket={folder / self.socket}"


def nbdkit(name: str, *plugin: str, threads: int | None = None) -> Server:
    options = () if threads is None else (f"--threads={threads}",)
    return Server(name, ("nbdkit", "-f", *options, "-U", "{folder}/nbd.sock", *plugin))


def preswapd(compress: str, pool: str = "1G", disk: str = DISK) -> Server:
    return Server(
        f"preswapd {compress}",
        (
            *(PRESWAPD, "serve", "--runtime-dir={folder}/run", "--shm-dir={folder}/shm"),
            *("--state-dir={folder}/state", f"--pool-size={pool}", f"--device=bench={disk}"),
            f"--compress={compress}",
        ),
        export="bench",
        socket="run/nbd.sock",
    )


# The best configuration of nbdkit's memory plugin depends on the load: both are run.
MEMORY = ("nbdkit memory", "nbdkit memory -t 1")
PEERS = (
    nbdkit("nbdkit null", "null", DISK),
    nbdkit(MEMORY[0], "memory", DISK),
    nbdkit(MEMORY[1], "memory", DISK, threads=1),
    nbdkit("nbdkit memory zstd", "memory", DISK, "allocator=zstd"),
    nbdkit("nbdkit file, tmpfs", "file", "{folder}/disk"),
    Server(
        "qemu-nbd, tmpfs",
        ("qemu-nbd", "-t", "-f", "raw", "--socket={folder}/nbd.sock", "{folder}/disk"),
    ),
)
OURS = tuple(preswapd(compress) for compress in ("lz4", "zstd", "none"))


def available(servers: tuple[Server, ...]) -> list[Server]:
    return [server for server in servers if shutil.which(server.command[0])]


@contextmanager
def running(server: Server, folder: Path) -> Iterator[str]:
    """The server's address while it runs; the folder lies on a tmpfs."""
    folder.mkdir(mode=0o700)
    subprocess.run(["truncate", "-s", DISK, str(folder / "disk")], check=True)
    process = subprocess.Popen(
        [part.format(folder=folder) for part in server.command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(folder / server.socket, process)
        yield server.uri(folder)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_SECONDS)
        shutil.rmtree(folder)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the socket accepts."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                time.sleep(0.02)
                continue
            return
    raise RuntimeError(f"{process.args!r} does not serve")
