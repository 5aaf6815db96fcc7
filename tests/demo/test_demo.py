# SPDX-License-Identifier: BSD-3-Clause
"""The whole demonstration, as a user runs it, with a real guest."""

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.running import PRESWAPD, wait_for

pytestmark = [pytest.mark.guest, pytest.mark.slow]

# Two minutes here; it gives itself up after ten.
WHOLE_SECONDS = 660
BOOT_SECONDS = 100.0


def demo(log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen(
            [PRESWAPD, "demo", "--verbose"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def places(log: str) -> list[Path]:
    """The directories that it works in, which it shows."""
    found = [Path(text).parent for text in re.findall(r"--(?:shm|state)-dir=(\S+)", log)]
    assert len(found) == 2
    return found


def processes_at(place: Path) -> list[str]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if str(place) in line]


def assert_nothing_left(log: str) -> None:
    for place in places(log):
        assert not place.exists()
        assert processes_at(place) == []


@pytest.mark.timeout(WHOLE_SECONDS + 30)
def test_demo_passes_every_check_and_cleans_up(tmp_path: Path) -> None:
    log = tmp_path / "log"
    status = demo(log).wait(WHOLE_SECONDS)
    said = log.read_text()
    assert status == 0, said
    assert "Nothing was lost" in said
    assert_nothing_left(said)


def test_demo_interrupted_leaves_nothing_behind(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with demo(log) as running:
        # From here on there are a server and a guest.
        wait_for(
            lambda: (running.poll(), log.read_text()),
            lambda seen: seen[0] is not None or "swapon by LABEL" in seen[1],
            BOOT_SECONDS,
        )
        assert running.poll() is None, log.read_text()
        assert processes_at(places(log.read_text())[0])
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 130
    assert_nothing_left(log.read_text())
