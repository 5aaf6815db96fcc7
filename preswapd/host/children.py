# SPDX-License-Identifier: BSD-3-Clause
"""Programs that run beside this one and are ended by it, also where it is killed outright."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

from preswapd.errors import PreswapError

# Of one that was killed, which cannot be put off, or told to end on a busy machine.
END_SECONDS = 30.0
POLL_SECONDS = 0.01
NOWHERE = Path(os.devnull)
DIES_WITH_US = ("setpriv", "--pdeathsig=KILL", "--")

T = TypeVar("T")


class ChildError(PreswapError):
    """It ended, or ran out of time, before what was waited for."""


class Child:
    """A program, started at once; what it says goes to the end of the file `output`, or, with None,
    to where this process says what it does.

    A session of its own keeps a Ctrl-C from it: who started it ends it, in an order of their own.
    `ends_by_itself`: it asks the kernel itself to be killed with us, and so needs no setpriv, which
    a service's filter of system calls may not let run.
    """

    def __init__(
        self,
        command: Sequence[str],
        output: Path | None = NOWHERE,
        *,
        stdin: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
        ends_by_itself: bool = False,
    ) -> None:
        with output.open("ab") if output else nullcontext() as log:
            self._process = subprocess.Popen(
                [*(() if ends_by_itself else DIES_WITH_US), *command],
                stdin=stdin,
                stdout=log,
                stderr=log,
                pass_fds=pass_fds,
                env=env,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """None while it runs; its exit status, or the negative number of the signal it ended by."""
        return self._process.poll()

    @property
    def ending(self) -> str:
        """How it ended, for a sentence; only of one that has."""
        status = self._process.returncode
        return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"

    def watch(self, look: Callable[[], T | None], seconds: float, *, ends_well: bool = False) -> T:
        """Looks again and again until something is seen, and returns that.

        `ends_well`: it starts a daemon, and its own end with status 0 is not the end of the wait.
        """
        deadline = time.monotonic() + seconds
        while True:
            # Asked before the look, so that what it did last is seen too.
            ended = self.status is not None and not (ends_well and self.status == 0)
            if (seen := look()) is not None:
                return seen
            if ended:
                raise ChildError(f"it ended with {self.ending}")
            if time.monotonic() > deadline:
                raise ChildError(f"it was not ready after {seconds:.0f} s")
            time.sleep(POLL_SECONDS)

    def send_signal(self, number: int) -> None:
        """Sends nothing to one that has ended."""
        self._process.send_signal(number)

    def wait(self, seconds: float = END_SECONDS) -> int:
        """Waits for its end; returns its status.  subprocess.TimeoutExpired when it goes on."""
        return self._process.wait(seconds)

    def stop(self, number: int = signal.SIGTERM, seconds: float = END_SECONDS) -> int:
        """Asks it to end, and kills it when that takes too long; its status."""
        self.send_signal(number)
        try:
            return self.wait(seconds)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        self._process.kill()
        return self.wait()
