# SPDX-License-Identifier: BSD-3-Clause
"""Kills under verified load: a short run of the harness, and that it sees what it looks for."""

import signal
from pathlib import Path

import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.crash.expected import WrongPageError
from tests.crash.harness import DEVICES, POOL, Harness, main
from tests.crash.load import connected
from tests.running import RunningServer


@pytest.mark.slow
def test_no_kill_loses_mixes_or_invents_a_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["harness", "--kills=12", "--every=5"])
    assert main() == 0, capsys.readouterr().out


def test_page_that_was_changed_behind_its_back_is_found(tmp_path: Path) -> None:
    with RunningServer(tmp_path, DEVICES, str(POOL)) as server:
        harness = Harness(server, seed=1)
        harness.run_load(signal.SIGKILL)
        harness.start()
        connected(server.nbd_uri("g1")).pwrite(b"forged", 77 * PAGE)
        with pytest.raises(WrongPageError, match="g1, page 77: "):
            harness.check_pages()
