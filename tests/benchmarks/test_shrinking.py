# SPDX-License-Identifier: BSD-3-Clause
"""What a light load sees of a shrink, on a real server."""

from pathlib import Path

import pytest

from benchmarks import giving_back, shrinking

MIB = 1 << 20


def test_reads_before_a_shrink_during_it_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shrinking, "FILLED", 16 * MIB)
    with shrinking.LoadedServer() as server:
        server.start()
        server.fill()
        seen = shrinking.seen_of_shrink(server, tmp_path)
    assert seen.before
    assert seen.after


def test_a_load_that_has_ended_is_an_error(tmp_path: Path) -> None:
    nobody = ["--ioengine=nbd", f"--uri=nbd+unix:///?socket={tmp_path}/nobody"]
    with shrinking.light_load(nobody, tmp_path) as load:
        load._fio.wait()
        with pytest.raises(RuntimeError, match=r"(?s)status 1: .*No such file"):
            load.end()


def test_times_of_no_request_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="no request was timed"):
        giving_back.percentiles([])
