# SPDX-License-Identifier: BSD-3-Clause
"""What systemd and the kernel say of a process."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from preswapd.host.processes import age, exists, is_stopped, own_unit, resident, unit_of
from tests.running import wait_until

SERVICE = "0::/system.slice/system-preswapd.slice/preswapd@vm1.service\n"


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        (SERVICE, "preswapd@vm1.service"),
        (f"4:memory:/other.service\n1:name=systemd:/a/x.service\n{SERVICE}", "x.service"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", ""),
        ("0::/\n", ""),
        ("", ""),
    ],
)
def test_unit_of_a_cgroup(tmp_path: Path, text: str, unit: str) -> None:
    path = tmp_path / "cgroup"
    path.write_text(text)
    assert unit_of(path) == unit
    assert unit_of(tmp_path / "missing") == ""


def test_own_unit_is_that_of_its_main_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell that a service has started, such as ssh's, is not that service."""
    path = tmp_path / "cgroup"
    path.write_text(SERVICE)
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()))
    assert own_unit(path) == "preswapd@vm1.service"
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getppid()))
    assert own_unit(path) == ""
    monkeypatch.delenv("SYSTEMD_EXEC_PID")
    assert own_unit(path) == ""


def test_state_and_age() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            assert not is_stopped(process.pid)
            seconds = age(process.pid)
            assert seconds is not None
            assert -1 < seconds < age(os.getpid())  # type: ignore[operator]
            process.send_signal(signal.SIGSTOP)
            wait_until(lambda: is_stopped(process.pid), "it to stop")
        finally:
            process.kill()
    assert not is_stopped(process.pid)
    assert age(process.pid) is None


def test_process_that_is_there() -> None:
    assert exists(os.getpid())
    assert exists(1)  # root's
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert not exists(process.pid)


def test_memory_of_a_process() -> None:
    before = resident(os.getpid())
    assert before is not None
    taken = b"x" * (64 << 20)
    now = resident(os.getpid())
    assert now is not None
    assert now - before > len(taken) // 2
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert resident(process.pid) is None
