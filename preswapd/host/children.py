"""Programs that run beside this one and are ended by it, also where it is killed outright."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

# From one that was killed; it cannot be put off.
END_SECONDS = 10.0
NOWHERE = Path(os.devnull)
DIES_WITH_US = ("setpriv", "--pdeathsig=KILL", "--")


def start_child(
    command: Sequence[str], output: Path = NOWHERE, pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """What it says goes to the end of the file `output`.

    A session of its own keeps a Ctrl-C from it: who started it ends it, in an order of their own.
    """
    with output.open("ab") as log:
        return subprocess.Popen(
            [*DIES_WITH_US, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=pass_fds,
            start_new_session=True,
        )


def kill_child(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(END_SECONDS)
