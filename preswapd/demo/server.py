"""A real `preswapd serve` on directories of its own, and `preswapctl` against it."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from preswapd.api.client import Client
from preswapd.demo.faults import DemoError
from preswapd.host.children import kill_child, start_child
from preswapd.paths import InstancePaths
from preswapd.units import exact_size

START_SECONDS = 60.0
END_SECONDS = 10.0
COMMAND_SECONDS = 120.0
POLL_SECONDS = 0.01
LOG_LINES = 20


def installed(name: str) -> str:
    """The command of the installation that runs this, else the one in PATH."""
    for folder in (Path(sys.executable).parent, Path(sys.argv[0]).resolve().parent):
        if os.access(folder / name, os.X_OK):
            return str(folder / name)
    found = shutil.which(name)
    if found is None:
        raise DemoError(f"the command {name} is not installed beside this one, nor in PATH")
    return found


class Server:
    """Started and killed at will while the `with` block lasts; its pages stay between two lives."""

    def __init__(self, pool_size: int, device: str, device_size: int) -> None:
        self.pool_size = pool_size
        self.device = device
        self.device_size = device_size
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        enter = self._stack.enter_context
        try:
            # Sockets too, whose paths must be short.
            memory = Path(enter(temporary("/dev/shm")))
            # Where /tmp is a tmpfs, pages in it would be in the host's memory after all.
            disk = Path(enter(temporary("/var/tmp")))
        except BaseException:
            self._stack.close()
            raise
        self._log = disk / "log"
        self._stack.callback(self.kill)
        self.paths = InstancePaths(memory / "run", memory / "shm", disk / "state")
        self.client = Client(self.paths.control_socket)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    # --- its life ---

    def arguments(self) -> list[str]:
        return [
            f"--runtime-dir={self.paths.runtime_dir}",
            f"--shm-dir={self.paths.shm_dir}",
            f"--state-dir={self.paths.state_dir}",
            f"--pool-size={exact_size(self.pool_size)}",
            f"--device={self.device}={exact_size(self.device_size)}",
        ]

    def start(self) -> None:
        """Starts it and waits until it serves."""
        before = len(self._lines())
        command = [installed("preswapd"), "serve", *self.arguments()]
        self._process = start_child(command, self._log)
        deadline = time.monotonic() + START_SECONDS
        while not any(line.startswith("ready") for line in self._lines()[before:]):
            if self._process.poll() is not None:
                raise DemoError("the server did not start", self.log())
            if time.monotonic() > deadline:
                raise DemoError(f"the server was not ready after {START_SECONDS:.0f} s", self.log())
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """As kill -9 does."""
        if self._process is not None:
            kill_child(self._process)
            self._process = None

    def check_alive(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            raise DemoError(f"the server ended with status {self._process.returncode}", self.log())

    def log(self) -> str:
        return "\n".join(self._lines()[-LOG_LINES:])

    def _lines(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines() if self._log.exists() else []

    # --- the operator's side ---

    def control(self, *arguments: str) -> "ControlCommand":
        return ControlCommand(self.paths.runtime_dir, arguments)

    def run(self, *arguments: str) -> str:
        with self.control(*arguments) as command:
            return command.wait()

    # --- what the host sees of it ---

    def arena(self) -> int:
        """Memory of the host that holds pages: allocated blocks, whatever the server says."""
        return allocated(self.paths.arena)

    def image(self) -> int:
        return allocated(self.paths.image(self.device))


class ControlCommand:
    """A running preswapctl, which ends with the `with` block."""

    def __init__(self, runtime_dir: Path, arguments: tuple[str, ...]) -> None:
        self.shown = shlex.join(["preswapctl", *arguments])
        self._process = subprocess.Popen(
            [installed("preswapctl"), f"--runtime-dir={runtime_dir}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> str:
        """What it printed; DemoError when it failed."""
        try:
            output, errors = self._process.communicate(timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            raise DemoError(f"no end of {self.shown} in {COMMAND_SECONDS:.0f} s") from None
        if self._process.returncode:
            last = (errors.strip().splitlines() or ["it said nothing"])[-1]
            raise DemoError(f"{self.shown} ended with status {self._process.returncode}: {last}")
        return output


def temporary(parent: str) -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(
        prefix="preswapd-demo-", dir=parent, ignore_cleanup_errors=True
    )


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def as_a_shell_reads(text: str) -> list[str]:
    """The words of what somebody pastes after a command."""
    done = subprocess.run(
        ["sh", "-c", f"printf '%s\\0' {text}"], capture_output=True, check=True, timeout=END_SECONDS
    )
    return done.stdout.decode().split("\0")[:-1]
