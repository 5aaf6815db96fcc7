"""From kill to serving: how long a start takes for what is stored."""

import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import Load, run
from benchmarks.servers import preswapd, wait_for

FILL = Load("write", "1m", 4, compressible=0)


@dataclass(frozen=True)
class Restart:
    """Stored bytes, as the guest counts them; seconds from the new start to an answer."""

    stored: int
    seconds: float


def measure(folder: Path) -> Restart:
    """Fills a server with pages that do not compress, kills it and starts it again."""
    server = preswapd("lz4", pool="2G", disk="1280M")
    folder.mkdir(mode=0o700)
    command = [part.format(folder=folder) for part in server.command]
    first = start(command, folder / server.socket)
    run(server.uri(folder), FILL, None, size="1g")
    first.kill()
    first.wait()
    begun = time.monotonic()
    second = start(command, folder / server.socket)
    # The socket accepts before nbdkit serves: an answer counts.
    subprocess.run(["nbdinfo", "--size", server.uri(folder)], check=True, capture_output=True)
    seconds = time.monotonic() - begun
    second.send_signal(signal.SIGTERM)
    second.wait()
    return Restart(1 << 30, seconds)


def start(command: list[str], socket: Path) -> subprocess.Popen[bytes]:
    socket.unlink(missing_ok=True)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(socket, process)
    return process
