# SPDX-License-Identifier: BSD-3-Clause
"""Two checkouts beside each other: what the table says of what was measured."""

from pathlib import Path

import pytest

from benchmarks import before_after
from benchmarks.load import Measured


def measured(iops: float, cpu: float) -> Measured:
    return Measured(iops, 0.0, 0.0, 0.0, cpu, 0.0, 0.0)


def test_ratios_are_of_one_round_and_same_ones_are_the_control() -> None:
    quiet = {
        "before, a": measured(100, 4),
        "before, b": measured(100, 4),
        "after, a": measured(110, 2),
        "after, b": measured(110, 1),
    }
    busy = {name: measured(one.iops / 10, one.cpu * 10) for name, one in quiet.items()}
    rounds = [{load.name: each for load in before_after.LOADS} for each in (quiet, busy, busy)]
    first, *_ = before_after.table(rounds).splitlines()[2:]
    assert first.split()[-6:] == ["1.10", "1.00", "1.00", "0.38", "1.00", "2.00"]


def test_the_other_checkout_runs_its_own_command(tmp_path: Path) -> None:
    servers = before_after.servers_of(tmp_path)
    own = {server.name: str(tmp_path) in server.command[0] for server in servers}
    assert own == {"before, a": True, "before, b": True, "after, a": False, "after, b": False}
    assert all(server.command[1] == "serve" for server in servers)


def test_a_folder_that_was_not_built_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["before_after", str(tmp_path)])
    with pytest.raises(SystemExit):
        before_after.main()
    assert "make build" in capsys.readouterr().err
