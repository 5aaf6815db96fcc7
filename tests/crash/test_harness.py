# SPDX-License-Identifier: BSD-3-Clause
"""Kills under verified load: a short run of the harness, and that it sees what it looks for."""

import signal
from pathlib import Path

import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.crash import harness
from tests.crash.expected import WrongPageError
from tests.crash.harness import DEVICES, POOL, DirtyRecoveryError, Harness, main
from tests.crash.load import WrongAnswerError, connected
from tests.precache.running import content
from tests.remote.stores import needs_store
from tests.running import RunningServer


@pytest.mark.slow
def test_no_kill_loses_mixes_or_invents_a_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["harness", "--kills=12", "--every=5"])
    assert main() == 0, capsys.readouterr().out


@pytest.mark.slow
def test_no_kill_takes_anything_of_an_image(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the pool to itself: what is read is cached, or evicted a moment ago."""
    monkeypatch.setattr("sys.argv", ["harness", "--kills=12", "--every=5", "--image-alone"])
    assert main() == 0, capsys.readouterr().out


@needs_store
@pytest.mark.slow
def test_no_kill_believes_a_store_that_remembers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What earlier lives have set is there, and none of it is read."""
    monkeypatch.setattr("sys.argv", ["harness", "--kills=6", "--every=3", "--remote"])
    assert main() == 0, capsys.readouterr().out


@pytest.mark.slow
def test_no_reboot_mixes_or_invents_a_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And after a clean stop it loses only what was in memory."""
    monkeypatch.setattr(harness, "SIGTERM_SHARE", 0.5)
    monkeypatch.setattr(harness, "REBOOT_SHARE", 1)
    monkeypatch.setattr("sys.argv", ["harness", "--kills=8", "--seed=2", "--every=5"])
    assert main() == 0, capsys.readouterr().out


def test_pages_that_a_clean_stop_forgot_are_found(tmp_path: Path) -> None:
    with RunningServer(tmp_path, DEVICES, str(POOL)) as server:
        tried = Harness(server, seed=1)
        tried.run_load(signal.SIGTERM)
        server.paths.saved_map("g1").unlink()
        with pytest.raises(DirtyRecoveryError, match="g1 has forgotten "):
            tried.reboot("SIGTERM")


def test_image_whose_file_was_changed_behind_its_back_is_found(tmp_path: Path) -> None:
    path = tmp_path / "g3.raw"
    path.write_bytes(bytes(64 * PAGE))
    options = [f"--image=g3={path}", "--writable=g3"]
    with RunningServer(tmp_path, {}, str(POOL), options) as server:
        tried = Harness(server, 1, {"g3": path})
        tried.run_load(signal.SIGKILL)
        tried.check_files()
        with path.open("rb+") as file:
            file.seek(33 * PAGE)
            file.write(b"forged")
        with pytest.raises(WrongPageError, match="g3, page 33: "):
            tried.check_files()


def test_base_image_that_reads_as_another_is_found(tmp_path: Path) -> None:
    path = tmp_path / "b1.raw"
    path.write_bytes(content(64 * PAGE))
    with RunningServer(tmp_path, {}, str(POOL), [f"--image=b1={path}"]) as server:
        tried = Harness(server, 1, bases={"b1": path})
        tried.check_bases()
        tried.bases["b1"] = content(64 * PAGE, seed=2)
        with pytest.raises(WrongPageError, match="b1 is not what its file is"):
            tried.check_bases()
        with pytest.raises(WrongAnswerError, match="b1: other bytes from page "):
            tried.run_load(signal.SIGKILL)
        with pytest.raises(WrongPageError, match="the file of b1 was written to"):
            tried.check_files()


def test_page_that_was_changed_behind_its_back_is_found(tmp_path: Path) -> None:
    with RunningServer(tmp_path, DEVICES, str(POOL)) as server:
        tried = Harness(server, seed=1)
        tried.run_load(signal.SIGKILL)
        tried.start()
        connected(server.nbd_uri("g1")).pwrite(b"forged", 77 * PAGE)
        with pytest.raises(WrongPageError, match="g1, page 77: "):
            tried.check_pages()
