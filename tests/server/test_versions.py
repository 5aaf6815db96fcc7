# SPDX-License-Identifier: BSD-3-Clause
"""Another version of the code takes over what the one before it left, and gives it back."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from preswapd.units import PAGE_SIZE as PAGE
from preswapd.version import VERSION
from tests.crash.harness import DEVICES, POOL, Harness
from tests.crash.load import connected
from tests.preswap.running import data_of
from tests.running import RunningServer, run

ROOT = Path(__file__).parents[2]
OTHER_VERSION = "9.8.7"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is installed, of another version."""
    folder = tmp_path_factory.mktemp("other")
    for package in ("preswapd", "nbd_plugin"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    version = folder / "preswapd" / "version.py"
    version.write_text(version.read_text().replace(f'"{VERSION}"', f'"{OTHER_VERSION}"'))
    return folder


def fill(harness: Harness) -> None:
    """Every page of each device: more than the pool takes, so the rest goes to disk."""
    for device in harness.devices:
        content = Random(device.name).randbytes(device.pages * PAGE)
        changes = device.begin_change(0, content)
        connected(harness.server.nbd_uri(device.name)).pwrite(content, 0)
        device.end_change(changes)


def loaded_from(pid: int) -> set[Path]:
    """The folders of the extensions in that process."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    paths = [Path(line.split(maxsplit=5)[5]) for line in lines if line.endswith(".so")]
    return {path.parents[2] for path in paths if path.parents[1].name == "preswapd"}


def taken_over(harness: Harness, code: Path, version: str) -> None:
    """It is this code that serves, with pages in tmem and on disk, and each page is right."""
    harness.server.env["PYTHONPATH"] = str(code)
    harness.start()
    assert loaded_from(harness.server.pid) == {code}
    stats = harness.server.json_stats()
    assert stats["version"] == version
    for where in ("preswap_pages", "disk_pages"):
        assert sum(device[where] for device in stats["devices"].values()) > 0
    harness.check_pages()


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    with RunningServer(tmp_path, DEVICES, str(POOL)) as server:
        yield Harness(server, seed=5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_another_version_takes_over_and_gives_back(
    harness: Harness, other: Path, number: signal.Signals
) -> None:
    """Each ends under load, and the other begins with its shared memory and disk files."""
    fill(harness)
    harness.run_load(number)
    taken_over(harness, other, OTHER_VERSION)
    harness.run_load(number)
    taken_over(harness, ROOT, VERSION)


def files_of(server: RunningServer) -> dict[Path, tuple[int, list[tuple[int, bytes]]]]:
    """Size and data of what outlives the server."""
    paths = (*server.shm_dir.iterdir(), *server.state_dir.iterdir())
    return {path: (path.stat().st_size, data_of(path)) for path in paths}


def set_format(arena: Path, number: int) -> None:
    with arena.open("r+b") as file:
        file.seek(8)
        file.write(number.to_bytes(4, "little"))


def test_arena_of_another_format_is_refused_and_left_for_its_own_version(harness: Harness) -> None:
    server = harness.server
    fill(harness)
    server.kill()
    set_format(server.arena, 2)
    before = files_of(server)
    done = run(server.command())
    assert done.returncode == 4
    assert "its format is version 2, this release reads version 1" in done.stderr
    assert files_of(server) == before
    set_format(server.arena, 1)
    harness.start()
    harness.check_pages()
