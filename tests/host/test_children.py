# SPDX-License-Identifier: BSD-3-Clause
"""Programs that run beside this one: what they say, and how they end."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from preswapd.host.children import Child, ChildError
from tests.running import wait_for, wait_until

PARENT = """
from preswapd.host.children import Child
child = Child(["sleep", "600"])
print(child.pid, flush=True)
input()
"""


def command_of(pid: int) -> bytes:
    """Nothing of one that has ended, also where nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_what_it_says_is_added_to_its_file(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.write_text("before\n")
    assert Child(["sh", "-c", "echo out; echo error >&2; cat"], output).wait() == 0
    assert output.read_text() == "before\nout\nerror\n"


def test_it_is_killed() -> None:
    child = Child(["sleep", "600"])
    assert child.status is None
    assert child.kill() == -9
    assert child.ending == "signal SIGKILL"


def test_it_is_asked_to_end_and_killed_where_it_will_not() -> None:
    assert Child(["sleep", "600"]).stop() == -signal.SIGTERM
    deaf = Child(["sh", "-c", "trap '' TERM; while :; do sleep 0.01; done"])
    wait_until(lambda: ignores(deaf.pid, signal.SIGTERM), "it to be deaf")
    assert deaf.stop(seconds=0.1) == -signal.SIGKILL


def ignores(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (ignored,) = re.findall(r"^SigIgn:\s*(\w+)", status, re.M)
    return bool(int(ignored, 16) >> (number - 1) & 1)


def test_it_is_watched_until_something_is_seen(tmp_path: Path) -> None:
    output = tmp_path / "output"
    child = Child(["sh", "-c", "echo ready"], output)
    assert child.watch(lambda: output.read_text() or None, 30) == "ready\n"
    child.wait()  # or Python says that it still runs, where it is slow to end


def test_one_that_ends_or_takes_too_long_is_told() -> None:
    with pytest.raises(ChildError, match="ended with status 3"):
        Child(["sh", "-c", "exit 3"]).watch(lambda: None, 30)
    slow = Child(["sleep", "600"])
    with pytest.raises(ChildError, match="after 0 s"):
        slow.watch(lambda: None, 0.05)
    slow.kill()


def test_one_that_starts_a_daemon_may_end_well() -> None:
    child = Child(["true"])
    child.wait()
    looks = iter([None, None, "seen"])
    assert child.watch(lambda: next(looks), 30, ends_well=True) == "seen"
    with pytest.raises(ChildError, match="ended with status 0"):
        child.watch(lambda: None, 30)


def test_it_ends_when_we_are_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        # Before that it has not yet said with whom it ends.
        wait_for(lambda: command_of(child), lambda command: command == b"sleep 600")
        parent.kill()
    wait_until(lambda: command_of(child) == b"", "the child to end")
