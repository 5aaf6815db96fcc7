# SPDX-License-Identifier: BSD-3-Clause
"""A real `preswapd serve` for tests, on directories that go when it ends, and `preswapctl`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

from preswapd.demo.server import Server
from preswapd.paths import InstancePaths
from preswapd.preswap.files.sidecar import Sidecar

BIN = Path(sys.executable).parent
PRESWAPD = str(BIN / "preswapd")
PRESWAPCTL = str(BIN / "preswapctl")

# A loaded machine with two cores needs a few seconds for what otherwise takes half of one.
PATIENCE = 30.0
# Of tools/sanitize.
IS_SANITIZED = "san.so" in os.environ.get("LD_PRELOAD", "")
# It ends a shell, and the coroutines of QEMU's tools, when it is preloaded.
NO_SANITIZER = {"LD_PRELOAD": ""} if IS_SANITIZED else {}
# A guest under emulation needs more.
GUEST_PATIENCE = 120.0
LOOK_SECONDS = 0.02
LONGEST_PAUSE = 0.3
NOBODY = 65534

T = TypeVar("T")


@contextmanager
def as_nobody_special() -> Iterator[None]:
    """Root reads everything: inside, this process has another user's rights."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


class RunningServer(Server):
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
        paths = InstancePaths(self.base / "run", self.base / "shm", tmp / "state")
        served = {"g1": "64M"} if devices is None else devices
        super().__init__(paths, self.base / "server.log", served, pool_size, extra, env=env)
        if start:
            try:
                self.start()
            except BaseException:
                self.close()
                raise

    # --- where it is ---

    @property
    def runtime_dir(self) -> Path:
        return self.paths.runtime_dir

    @property
    def shm_dir(self) -> Path:
        return self.paths.shm_dir

    @property
    def state_dir(self) -> Path:
        return self.paths.state_dir

    @property
    def nbd_socket(self) -> Path:
        return self.paths.nbd_socket

    @property
    def control_socket(self) -> Path:
        return self.paths.control_socket

    @property
    def arena(self) -> Path:
        return self.paths.arena

    # --- its end ---

    def reboot(self) -> None:
        """Once it has ended: the host starts again, and shared memory is gone."""
        assert self.child is None
        for path in self.shm_dir.iterdir():
            path.unlink()
        for path in self.state_dir.glob("*.json"):
            replace(Sidecar.read(path), boot_id="the boot before").write(path)

    def close(self) -> None:
        """Ends the server if it still runs and removes what it left in shared memory."""
        try:
            self.kill()
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

    def image(self, name: str) -> dict[str, Any]:
        """Its figures."""
        found: dict[str, Any] = self.json_stats()["images"][name]
        return found

    def settled_stats(self) -> dict[str, Any]:
        """Once every page is compressed that is still to be."""
        wait_until(lambda: not self.client.stats()["tmem"]["staged_pages"], "staged pages")
        return self.json_stats()


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = PATIENCE,
) -> subprocess.CompletedProcess[str]:
    """A command without a terminal, its output kept; `env` is added to the environment."""
    if IS_SANITIZED and command[0].startswith("qemu-"):
        env = NO_SANITIZER
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **(env or {})},
    )


def typed(line: str) -> subprocess.CompletedProcess[str]:
    """A line as it can be typed in a shell."""
    return run(["sh", "-c", line], env=NO_SANITIZER)


def wait_for(look: Callable[[], T], good: Callable[[T], bool], seconds: float = PATIENCE) -> T:
    """Looks again and again until what is seen is good, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        begun = time.monotonic()
        if good(seen := look()):
            return seen
        now = time.monotonic()
        assert now < deadline, f"after {seconds:.0f} s it is still {seen!r}"
        time.sleep(pause_after(now - begun))


def wait_until(done: Callable[[], bool], what: str, seconds: float = GUEST_PATIENCE) -> None:
    """The same, where nothing but yes or no is to be seen."""
    deadline = time.monotonic() + seconds
    while True:
        begun = time.monotonic()
        if done():
            return
        now = time.monotonic()
        assert now < deadline, f"after {seconds:.0f} s still waiting for {what}"
        time.sleep(pause_after(now - begun))


def pause_after(look_seconds: float) -> float:
    """A look that starts a process keeps a processor busy, which what is waited for needs too."""
    return min(max(LOOK_SECONDS, look_seconds), LONGEST_PAUSE)
