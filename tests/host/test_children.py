"""Programs that run beside this one: what they say, and how they end."""

import subprocess
import sys
from pathlib import Path

from preswapd.host.children import kill_child, start_child
from tests.running import wait_for, wait_until

PARENT = """
from preswapd.host.children import start_child
print(start_child(["sleep", "600"]).pid, flush=True)
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
    assert start_child(["sh", "-c", "echo out; echo error >&2; cat"], output).wait(30) == 0
    assert output.read_text() == "before\nout\nerror\n"


def test_it_is_killed() -> None:
    child = start_child(["sleep", "600"])
    kill_child(child)
    assert child.returncode == -9


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
