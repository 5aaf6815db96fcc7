# SPDX-License-Identifier: BSD-3-Clause
"""An instance that does not run while its guests' pages lie in shared memory."""

import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from preswapd.api.last_start import LastStart
from preswapd.cli.instances import Instances
from preswapd.cli.main import preswapctl
from preswapd.cli.stopped import pages_in_tmem, stopped
from preswapd.errors import UnreachableError, UsageError
from tests.clients import BEHIND_ZONE, connected
from tests.conftest import StartServer
from tests.running import RunningServer

PAGES = 7
CONTENT = b"preswapd" * 512 * PAGES


@pytest.fixture
def pair(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, RunningServer]:
    """a with g1 and shared, which runs, and b with g2 and shared, which was killed with pages."""
    found: dict[str, RunningServer] = {}
    for name, own in (("a", "g1"), ("b", "g2")):
        server = start_server(
            devices={own: "1M", "shared": "1M"}, extra=[f"--instance={name}"], start=False
        )
        root = found["a"].base / "root" if found else server.base / "root"
        server.paths = replace(server.paths, runtime_dir=root / name)
        server.start()
        found[name] = server
    monkeypatch.setattr("preswapd.cli.instances.runtime_root", lambda: root)
    monkeypatch.setattr("preswapd.paths.runtime_root", lambda: root)
    monkeypatch.setattr("preswapd.cli.instances.default_shm_dirs", dict)
    monkeypatch.delenv("PRESWAPD_RUNTIME_DIR", raising=False)
    client = connected(found["b"], "g2")
    client.pwrite(CONTENT, 4096)
    found["b"].kill()
    return found


def ctl(*arguments: str) -> None:
    preswapctl.main(list(arguments), standalone_mode=False)


def told(pair: dict[str, RunningServer]) -> str:
    return (
        f"preswapctl: instance b does not run, and {PAGES} pages (28K) of its guests lie in"
        f" {pair['b'].shm_dir}: `preswapctl doctor` says how to start it\n"
    )


@pytest.mark.parametrize(
    "command",
    ["list", "--json list", "stats", "stats -o USED", "sysctl -a", "stats -w 1 --count 1"],
)
def test_what_shows_all_tells_of_it(
    pair: dict[str, RunningServer], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    ctl(*command.split())
    shown = capsys.readouterr()
    assert shown.err == told(pair)
    assert "g2" not in shown.out


def test_one_that_is_named_is_all_there_is(
    pair: dict[str, RunningServer], capsys: pytest.CaptureFixture[str]
) -> None:
    ctl("--instance=a", "list")
    assert capsys.readouterr().err == ""


def test_top_shows_it_until_it_runs(
    pair: dict[str, RunningServer], capsys: pytest.CaptureFixture[str]
) -> None:
    ctl("top", "-b", "-n1")
    assert re.search(rf"^b  does not run, and {PAGES} pages", capsys.readouterr().out, re.M)
    pair["b"].start()
    ctl("top", "-b", "-n1")
    shown = capsys.readouterr().out
    assert "does not run" not in shown
    assert "g2" in shown


def test_metrics_are_not_all_there(
    pair: dict[str, RunningServer], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UnreachableError, match="instance b does not run"):
        ctl("metrics")
    text = capsys.readouterr().out
    assert 'instance="a"' in text
    assert 'instance="b"' not in text


def test_none_runs_but_pages_are_there(pair: dict[str, RunningServer]) -> None:
    pair["a"].stop()
    with pytest.raises(UnreachableError, match=r"no preswapd server runs.*; instance b does not"):
        ctl("list")


def test_no_other_guests_device_is_taken_for_its_own(pair: dict[str, RunningServer]) -> None:
    """Both have a device of this name: it is b's guest whose operator looks for it."""
    for command in (["swapoff", "shared", "--yes"], ["shrink", "0", "shared"]):
        with pytest.raises(
            UsageError, match=r"have a device 'shared' \(a, b, which does not run\)"
        ):
            ctl(*command)
    with pytest.raises(UsageError, match=r"several instances \(a, b, which does not run\)"):
        ctl("shrink", "0")
    assert Instances().having("g1").name == "a"


@pytest.mark.parametrize("command", ["swapoff g2 --yes", "sysctl preswap.b.frozen"])
def test_what_is_its_own_is_unreachable(pair: dict[str, RunningServer], command: str) -> None:
    with pytest.raises(UnreachableError, match="instance b does not run"):
        ctl(*command.split())


@pytest.mark.parametrize("named", [(), ("--instance=b",)])
def test_doctor_starts_it(
    pair: dict[str, RunningServer], capsys: pytest.CaptureFixture[str], named: tuple[str, ...]
) -> None:
    ctl(*named, "--json", "doctor")
    found = {check["subject"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    check = found["instance b"]
    assert check["status"] == "fix"
    assert f"{PAGES} pages (28K)" in check["text"]
    assert "(g2)" in check["text"]
    assert check["mend"].endswith(check["command"])
    pair["b"].launch(["sh", "-c", f"exec {check['command']}"])
    assert bytes(connected(pair["b"], "g2").pread(len(CONTENT), 4096)) == CONTENT
    ctl("list")
    assert capsys.readouterr().err == ""


# --- what is found ---


def test_clean_stop_leaves_pages_too(pair: dict[str, RunningServer]) -> None:
    pair["b"].start()
    pair["b"].stop()
    (gone,) = Instances().stopped
    assert (gone.name, gone.pages) == ("b", {"g2": PAGES, "shared": 0})


def test_one_that_runs_elsewhere_is_not_gone(server: RunningServer, tmp_path: Path) -> None:
    """Only its pages are where others' would be."""
    connected(server, "g1").pwrite(CONTENT, BEHIND_ZONE)
    shm_dirs = {"x": server.shm_dir}
    assert list(stopped([tmp_path / "x"], shm_dirs)) == []
    server.kill()
    (gone,) = stopped([tmp_path / "x"], shm_dirs)
    assert (gone.name, gone.pages, gone.last_start) == ("x", {"g1": PAGES}, None)


def test_empty_ones_are_not_told_of(server: RunningServer, tmp_path: Path) -> None:
    server.kill()
    assert list(stopped([server.runtime_dir], {})) == []


def test_what_others_lay_into_shared_memory(tmp_path: Path) -> None:
    """Root's doctor must not wait for a pipe, or count what a link leads to."""
    pages = tmp_path / "pages"
    pages.write_bytes(bytes([0xF0]) * 9)
    (tmp_path / "link.map").symlink_to(pages)
    os.mkfifo(tmp_path / "pipe.map")
    (tmp_path / "own.map").write_bytes(bytes([0xF0, 0, 0x0F, 0xF0]))
    assert dict(pages_in_tmem(tmp_path)) == {"link": 0, "own": 2, "pipe": 0}
    (tmp_path / "linked").symlink_to(tmp_path)
    assert list(stopped([tmp_path / "x"], {"x": tmp_path / "linked"})) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a directory away")
def test_directory_of_another_user_is_not_believed(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "g1.map").write_bytes(bytes([0xF0]))
    runtime_dir = tmp_path / "x"
    assert len(list(stopped([runtime_dir], {"x": theirs}))) == 1
    os.chown(theirs, 12345, 12345)
    assert list(stopped([runtime_dir], {"x": theirs})) == []
    runtime_dir.mkdir()
    os.chown(runtime_dir, 12345, 12345)
    assert len(list(stopped([runtime_dir], {"x": theirs}))) == 1


# --- how it was started last ---


def test_what_counts_once_is_not_said_again(server: RunningServer) -> None:
    """--discard-state above all: the pages that the start is to bring back."""
    server.stop()
    server.extra.append("--discard-state")
    server.start()
    last_start = LastStart.read(server.paths.last_start)
    assert last_start is not None
    assert last_start.command == tuple(server.command()[:-1])
    assert (last_start.directory, last_start.shm_dir) == (os.getcwd(), str(server.shm_dir))
    assert last_start.unit == ""
    assert stat.S_IMODE(server.paths.last_start.stat().st_mode) == 0o600


def test_last_start_that_cannot_be_told(tmp_path: Path) -> None:
    start = LastStart(("preswapd", "serve"), "/", "x.service", "/dev/shm/x")
    path = tmp_path / "start.json"
    start.write(path)
    assert LastStart.read(path) == start
    path.write_text(path.read_text()[:-9])
    assert LastStart.read(path) is None
    start._replace(directory="/tmp").write(path)
    assert LastStart.read(path) == start._replace(directory="/tmp")
    start.write(tmp_path / "missing" / "start.json")
    assert LastStart.read(tmp_path / "missing" / "start.json") is None
    for text in ("[]", '{"command": 1}', "null"):
        path.write_text(text)
        assert LastStart.read(path) is None
