# SPDX-License-Identifier: BSD-3-Clause
"""A QEMU that runs nothing but its firmware, for what is told to QEMU and not to a guest; and a
terminal on which preswapctl asks."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol

import pytest

from preswapd.guest.programs import find
from preswapd.qmp import Monitor, MonitorError
from tests.running import PATIENCE, PRESWAPCTL, RunningServer, wait_until


class Machine:
    """A QEMU with a monitor, and no guest in it."""

    def __init__(self, process: subprocess.Popen[bytes], qmp: Path) -> None:
        self.process = process
        self.qmp = qmp

    def ask(self, command: str, **arguments: object) -> Any:
        with closing(Monitor.at(self.qmp)) as monitor:
            return monitor.execute(command, **arguments)

    def nodes(self) -> set[str]:
        return {node["node-name"] for node in self.ask("query-named-block-nodes", flat=True)}

    def devices(self) -> set[str]:
        """Those with an id."""
        return {
            device["name"]
            for device in self.ask("qom-list", path="/machine/peripheral")
            if device["name"] != "type"
        }

    def disks(self) -> list[str]:
        """What holds each of its disks."""
        return [block["qdev"] for block in self.ask("query-block")]


def answers(qmp: Path) -> bool:
    """Its file is there a moment before QEMU listens."""
    try:
        Monitor.at(qmp).close()
    except MonitorError:
        return False
    return True


class StartMachine(Protocol):
    def __call__(self, *arguments: str) -> Machine: ...


@pytest.fixture
def start_machine(server: RunningServer) -> Iterator[StartMachine]:
    """Starts QEMU with these arguments; its socket lies beside the server's."""
    with ExitStack() as stack:

        def start(*arguments: str) -> Machine:
            qmp = server.base / f"qmp{len(list(server.base.glob('qmp*')))}"
            process = subprocess.Popen(
                [
                    str(find("qemu-system-x86_64", "qemu-system-x86")),
                    *("-nodefaults", "-no-user-config", "-display", "none", "-m", "32M"),
                    *("-accel", "tcg", "-qmp", f"unix:{qmp},server=on,wait=off", *arguments),
                ],
                stdin=subprocess.DEVNULL,
            )
            stack.callback(process.wait, PATIENCE)
            stack.callback(process.kill)
            wait_until(lambda: answers(qmp) or process.poll() is not None, "QEMU's monitor")
            assert process.poll() is None, "QEMU ended"
            return Machine(process, qmp)

        yield start


def at_a_terminal(
    server: RunningServer,
    answer: str,
    *arguments: str,
    meanwhile: Callable[[], object] = lambda: None,
) -> tuple[int, str]:
    """Exit status, and what is said on standard error; `meanwhile`: while the question stands."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [PRESWAPCTL, f"--runtime-dir={server.runtime_dir}", *arguments],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        question = ""
        # Older releases of click print the space behind it to stdout.
        while not question.endswith("]:") and (more := process.stderr.read(1)):
            question += more
        meanwhile()
        os.write(ours, answer.encode())
        _, said = process.communicate(timeout=PATIENCE)
    os.close(ours)
    os.close(theirs)
    return process.returncode, question + said
