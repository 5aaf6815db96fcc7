# SPDX-License-Identifier: BSD-3-Clause
"""A real `preswapd serve` on directories of its own, and `preswapctl` against it.

The demonstration, the benchmarks and the tests start, watch and end their servers here.
"""

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

from preswapd.api.client import Client
from preswapd.demo.checks import DemoError
from preswapd.errors import PreswapError
from preswapd.host.children import END_SECONDS, Child, ChildError
from preswapd.paths import InstancePaths
from preswapd.units import exact_size

START_SECONDS = 60.0
COMMAND_SECONDS = 120.0
LOG_LINES = 20
PREFIX, LOCK = "preswapd-demo-", "lock"


class ServerError(PreswapError):
    """It did not start, ended, or did not say what was waited for; a note holds its last lines."""

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        if log:
            self.add_note(f"The server's last lines:\n{log}")


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
    """Started and ended at will; its pages stay between two lives.

    `devices` gives each device's size and `pool_size` the pool's, as options have them; `extra` are
    further options.  `log_file` takes what it says, one life after the other.
    """

    def __init__(
        self,
        paths: InstancePaths,
        log_file: Path,
        devices: Mapping[str, str],
        pool_size: str,
        extra: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.paths = paths
        self.log_file = log_file
        self.devices = dict(devices)
        self.pool_size = pool_size
        self.extra = list(extra)
        self.env = {**os.environ, **(env or {})}
        self.child: Child | None = None

    # --- its life ---

    def arguments(self) -> list[str]:
        return [
            f"--runtime-dir={self.paths.runtime_dir}",
            f"--shm-dir={self.paths.shm_dir}",
            f"--state-dir={self.paths.state_dir}",
            f"--pool-size={self.pool_size}",
            *(f"--device={name}={size}" for name, size in self.devices.items()),
            *self.extra,
        ]

    def command(self) -> list[str]:
        return [installed("preswapd"), "serve", *self.arguments()]

    def start(self) -> None:
        """Starts it and waits until it serves."""
        self.launch(self.command())

    def launch(self, command: Sequence[str], pass_fds: Sequence[int] = ()) -> None:
        """Starts it by another command, for the same directories."""
        if self.child is not None:
            raise ServerError("the server runs already", self.log_tail())
        before = len(self.lines)
        self.child = Child(command, self.log_file, pass_fds=pass_fds, env=self.env)
        self.wait_for_line("ready", since=before)

    @property
    def running(self) -> Child:
        """The process of a server that was started and neither ended nor waited for."""
        if self.child is None:
            raise ServerError("the server does not run", self.log_tail())
        return self.child

    @property
    def pid(self) -> int:
        return self.running.pid

    def check_alive(self) -> None:
        if self.child is not None and self.child.status is not None:
            raise ServerError(f"the server ended with {self.child.ending}", self.log_tail())

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to end and returns its exit status."""
        self.running.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """As kill -9 does; nothing where it does not run."""
        if self.child is not None:
            self.stop(signal.SIGKILL)

    def wait(self, seconds: float = END_SECONDS) -> int:
        """Waits until it has ended by itself; its exit status.  ServerError when it goes on."""
        try:
            status = self.running.wait(seconds)
        except subprocess.TimeoutExpired:
            message = f"the server had not ended after {seconds:.0f} s"
            raise ServerError(message, self.log_tail()) from None
        self.child = None
        return status

    def restart(self) -> None:
        """Starts it again, after a stop where it still runs."""
        if self.child is not None:
            self.stop()
        self.start()

    # --- what it says ---

    @property
    def lines(self) -> list[str]:
        """Of all its lives; a line that it has not yet ended is left out while it runs."""
        if not self.log_file.exists():
            return []
        ended = self.child is None or self.child.status is not None
        *whole, begun = self.log_file.read_text(errors="replace").split("\n")
        return [*whole, begun] if begun and ended else whole

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def log_tail(self) -> str:
        return "\n".join(self.lines[-LOG_LINES:])

    def wait_for_line(self, start: str, *, since: int = 0, timeout: float = START_SECONDS) -> str:
        """The first log line from number `since` on that begins like this."""

        def look() -> str | None:
            return next((line for line in self.lines[since:] if line.startswith(start)), None)

        try:
            if self.child is not None:
                return self.child.watch(look, timeout)
            if (seen := look()) is not None:
                return seen
            why = "it does not run"
        except ChildError as error:
            why = str(error)
        raise ServerError(f"the server did not say {start!r}: {why}", self.log_tail())

    # --- where it is, and what the host sees of it ---

    def nbd_uri(self, export: str = "") -> str:
        return f"nbd+unix:///{quote(export)}?socket={quote(str(self.paths.nbd_socket))}"

    def arena_size(self) -> int:
        """Memory of the host that holds pages: allocated blocks, whatever the server says."""
        return allocated(self.paths.arena)

    def disk_file_size(self, device: str) -> int:
        return allocated(self.paths.disk_file(device))

    # --- the operator's side ---

    @property
    def client(self) -> Client:
        return Client(self.paths.control_socket)

    def control(self, *arguments: str) -> "ControlCommand":
        return ControlCommand(self.paths.runtime_dir, arguments)

    def run(self, *arguments: str) -> str:
        with self.control(*arguments) as command:
            return command.wait()


class TemporaryServer(Server):
    """A server with one device, for as long as the `with` block lasts; sizes in bytes.

    Its log and disk files lie on a disk: where /tmp is a tmpfs, pages in it would be in the host's
    memory after all.
    """

    def __init__(
        self, pool_size: int, device: str, device_size: int, extra: Sequence[str] = ()
    ) -> None:
        with ExitStack() as stack:
            # Sockets too, whose paths must be short.
            memory = Path(stack.enter_context(temporary("/dev/shm")))
            disk = Path(stack.enter_context(temporary("/var/tmp")))
            paths = InstancePaths(memory / "run", memory / "shm", disk / "state")
            devices = {device: exact_size(device_size)}
            # What is configured here for an instance of that name is not for this one.
            extra = ["--config=/dev/null", *extra]
            super().__init__(paths, disk / "log", devices, exact_size(pool_size), extra)
            stack.callback(self.kill)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


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


@contextmanager
def temporary(parent: str) -> Iterator[str]:
    """A directory in it; those of this user's demonstrations that were killed outright go first."""
    for left in Path(parent).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if left.lstat().st_uid == os.getuid():
                remove_unless_locked(left)
    with (
        tempfile.TemporaryDirectory(
            prefix=PREFIX, dir=parent, ignore_cleanup_errors=True
        ) as folder,
        tempfile.NamedTemporaryFile(dir=folder, delete=False) as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Not before: whoever finds it and can lock it takes the directory for left.
        os.rename(lock.name, Path(folder, LOCK))
        yield folder


def remove_unless_locked(folder: Path) -> None:
    with (folder / LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def as_a_shell_reads(text: str) -> list[str]:
    """The words of what somebody pastes after a command."""
    done = subprocess.run(
        ["sh", "-c", f"printf '%s\\0' {text}"], capture_output=True, check=True, timeout=END_SECONDS
    )
    return done.stdout.decode().split("\0")[:-1]
