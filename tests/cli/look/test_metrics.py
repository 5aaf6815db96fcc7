# SPDX-License-Identifier: BSD-3-Clause
"""`metrics`: all instances' figures in one text, and the file for a collector."""

import os
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from preswapd.api.client import Client
from preswapd.api.figures import Statistics
from preswapd.cli.look.metrics import those_with_a_name_of_their_own
from preswapd.cli.main import preswapctl
from preswapd.errors import PreswapError, UnreachableError
from tests.running import PRESWAPCTL, RunningServer, run


def instances(text: str) -> set[str]:
    return {
        sample.labels["instance"]
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
    }


def without_values(text: str) -> list[str]:
    return [line.rpartition(" ")[0] for line in text.splitlines()]


def test_metrics_are_those_of_the_server(module_server: RunningServer) -> None:
    printed = module_server.ctl("metrics").stdout
    assert without_values(printed) == without_values(Client(module_server.control_socket).metrics())


def test_textfile_is_replaced_whole(module_server: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "preswapd.prom"
    path.write_text("what was there\n")
    before = path.stat().st_ino
    done = module_server.ctl("metrics", "--textfile", str(path))
    assert (done.stdout, done.stderr) == ("", "")
    assert instances(path.read_text()) == {"default"}
    assert path.stat().st_ino != before
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["preswapd.prom"]


def test_textfile_that_cannot_be_is_one_line(module_server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "folder.prom").mkdir()
    for path in (tmp_path / "missing" / "a.prom", tmp_path / "folder.prom"):
        done = module_server.ctl("metrics", "--textfile", str(path), check=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert done.stderr.startswith(f"preswapctl: {path}: ")
    assert os.listdir(tmp_path) == ["folder.prom"]


def test_textfile_takes_the_place_of_nothing_but_a_file(
    module_server: RunningServer, tmp_path: Path
) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        done = module_server.ctl("metrics", "--textfile", str(path), check=False)
        assert (done.returncode, done.stderr) == (1, f"preswapctl: {path}: Not a regular file\n")
    assert (pipe.is_fifo(), link.is_symlink()) == (True, True)
    pipe.unlink()
    pipe.write_text("what was there\n")
    module_server.ctl("metrics", "--textfile", str(link))
    assert link.is_symlink()
    assert instances(pipe.read_text()) == {"default"}


def test_json_is_refused(module_server: RunningServer) -> None:
    assert module_server.ctl("--json", "metrics", check=False).returncode == 2


def test_nobody_there_leaves_no_old_figures(tmp_path: Path) -> None:
    path = tmp_path / "preswapd.prom"
    path.write_text('preswapd_build_info{instance="gone"} 1\n')
    done = run([PRESWAPCTL, f"--runtime-dir={tmp_path}", "metrics", f"--textfile={path}"])
    assert done.returncode == 3
    assert path.read_text() == ""


def test_two_of_one_name_are_left_out() -> None:
    a, b, other = (cast(Statistics, {"instance": name}) for name in "aba")
    assert those_with_a_name_of_their_own([a, b]) == ([a, b], [])
    assert those_with_a_name_of_their_own([a, b, other]) == ([b], ["a"])


def test_file_has_the_others_when_two_have_one_name(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two names for one runtime directory are two servers to whoever looks."""
    root = tmp_path / "root"
    root.mkdir()
    for name in ("one", "other"):
        (root / name).symlink_to(server.runtime_dir)
    monkeypatch.setattr("preswapd.cli.instances.runtime_root", lambda: root)
    path = tmp_path / "preswapd.prom"
    path.write_text('preswapd_build_info{instance="default"} 1\n')
    done = CliRunner().invoke(preswapctl, ["metrics", f"--textfile={path}"])
    assert isinstance(done.exception, PreswapError)
    assert str(done.exception) == "several servers have the name default: left out"
    assert path.read_text() == ""


def test_one_name_is_told_beside_one_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the two the unit for the collector takes only the latter for success."""
    answers = [{"instance": "a"}, {"instance": "a"}], [UnreachableError("b does not answer")]
    monkeypatch.setattr("preswapd.cli.look.metrics.answers_of_all", lambda _: answers)
    error = CliRunner().invoke(preswapctl, ["metrics"]).exception
    assert isinstance(error, PreswapError)
    assert error.exit_status == 1
    assert str(error) == "several servers have the name a: left out; b does not answer"
