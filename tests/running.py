"""A real `preswapd serve` for tests: its own directories, started, watched and cleaned up after."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

BIN = Path(sys.executable).parent
PRESWAPD = str(BIN / "preswapd")
PRESWAPCTL = str(BIN / "preswapctl")

# A loaded machine with two cores needs a few seconds for what otherwise takes half of one.
PATIENCE = 30.0
# A guest under emulation needs more.
GUEST_PATIENCE = 60.0
LOOK_SECONDS = 0.02

T = TypeVar("T")


class ServerDied(AssertionError):
    """The server ended, or did not say what was waited for; the message holds its log."""


class RunningServer:
    """A server on directories of its own, serving while the `with` block runs.

    The disk files lie under `tmp`; shared memory must be a tmpfs and socket paths are short, so
    these two lie in a new directory under /dev/shm.  `start=False` leaves the start to the caller.
    """

    def __init__(
        self,
        tmp: Path,
        devices: Mapping[str, str] | None = None,
        pool_size: str = "32M",
        extra: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="preswapd-test-", dir="/dev/shm"))
        self.runtime_dir = self.base / "run"
        self.shm_dir = self.base / "shm"
        self.state_dir = tmp / "state"
        self.devices = {"g1": "64M"} if devices is None else dict(devices)
        self.pool_size = pool_size
        self.extra = list(extra)
        self.env = {**os.environ, **(env or {})}
        self.lines: list[str] = []
        self.news = threading.Condition()
        self.process: subprocess.Popen[str] | None = None
        self.reader: threading.Thread | None = None
        if start:
            try:
                self.start()
            except BaseException:
                self.close()
                raise

    # --- where it is ---

    @property
    def nbd_socket(self) -> Path:
        return self.runtime_dir / "nbd.sock"

    @property
    def control_socket(self) -> Path:
        return self.runtime_dir / "control.sock"

    @property
    def arena(self) -> Path:
        return self.shm_dir / "arena"

    def nbd_uri(self, export: str = "") -> str:
        return f"nbd+unix:///{quote(export)}?socket={quote(str(self.nbd_socket))}"

    @property
    def pid(self) -> int:
        assert self.process is not None, "the server is not running"
        return self.process.pid

    # --- its life ---

    def command(self) -> list[str]:
        devices = [f"--device={name}={size}" for name, size in self.devices.items()]
        return [
            PRESWAPD,
            "serve",
            f"--runtime-dir={self.runtime_dir}",
            f"--shm-dir={self.shm_dir}",
            f"--state-dir={self.state_dir}",
            f"--pool-size={self.pool_size}",
            *devices,
            *self.extra,
        ]

    def start(self) -> None:
        """Starts the server and waits until it is ready."""
        self.launch(self.command())

    def launch(self, command: Sequence[str], pass_fds: Sequence[int] = ()) -> None:
        """Starts it by another command, for the same directories."""
        assert self.process is None, "the server runs already"
        before = len(self.lines)
        process = subprocess.Popen(
            command,
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
        )
        self.process = process
        self.reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self.reader.start()
        self.wait_for_line("ready", since=before)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                with self.news:
                    self.lines.append(line.rstrip("\n"))
                    self.news.notify_all()
        with self.news:
            self.news.notify_all()

    def wait_for_line(self, start: str, *, since: int = 0, timeout: float = PATIENCE) -> str:
        """The first log line from number `since` on that begins like this."""
        deadline = time.monotonic() + timeout
        reader = self.reader
        with self.news:
            while True:
                for line in self.lines[since:]:
                    if line.startswith(start):
                        return line
                ended = reader is None or not reader.is_alive()
                if ended or not self.news.wait(max(0.0, deadline - time.monotonic())):
                    what = "ended" if ended else f"said nothing for {timeout} s"
                    raise ServerDied(f"waiting for {start!r}, the server {what}:\n{self.log}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to end and returns its exit status."""
        assert self.process is not None, "the server is not running"
        self.process.send_signal(number)
        return self.wait()

    def kill9(self) -> None:
        self.stop(signal.SIGKILL)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Waits until it has ended by itself; its exit status."""
        assert self.process is not None
        assert self.reader is not None
        status = self.process.wait(timeout)
        self.reader.join(timeout)
        self.process = None
        return status

    def restart(self) -> None:
        """Starts it again, after a stop where it still runs."""
        if self.process is not None:
            self.stop()
        self.start()

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def close(self) -> None:
        """Ends the server if it still runs and removes what it left in shared memory."""
        try:
            if self.process is not None:
                self.process.kill()
                self.wait()
        finally:
            # Shown by pytest when the test failed.
            print(f"--- log of {self.runtime_dir} ---\n{self.log}")
            shutil.rmtree(self.base, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- the operator's side ---

    def ctl(
        self, *args: str, check: bool = True, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Runs preswapctl against this server."""
        done = run([PRESWAPCTL, f"--runtime-dir={self.runtime_dir}", *args], timeout=timeout)
        if check and done.returncode:
            raise AssertionError(f"preswapctl {args} exited {done.returncode}: {done.stderr}")
        return done

    def json_stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = json.loads(self.ctl("--json", "stats").stdout)
        return stats

    def settled_stats(self) -> dict[str, Any]:
        """Once every page is compressed that is still to be."""
        return wait_for(self.json_stats, lambda stats: not stats["tmem"]["staged_pages"])


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = PATIENCE,
) -> subprocess.CompletedProcess[str]:
    """A command without a terminal, its output kept; `env` is added to the environment."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **(env or {})},
    )


def wait_for(look: Callable[[], T], good: Callable[[T], bool], seconds: float = PATIENCE) -> T:
    """Looks again and again until what is seen is good, and returns that."""
    deadline = time.monotonic() + seconds
    while not good(seen := look()):
        assert time.monotonic() < deadline, f"after {seconds:.0f} s it is still {seen!r}"
        time.sleep(LOOK_SECONDS)
    return seen


def wait_until(done: Callable[[], bool], what: str, seconds: float = GUEST_PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"after {seconds:.0f} s still waiting for {what}"
        time.sleep(LOOK_SECONDS)
