# SPDX-License-Identifier: BSD-3-Clause
"""Which virtual machines are parked, as a start after a kill finds it."""

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from preswapd.api.messages import Parked
from preswapd.errors import RefusedError
from preswapd.paths import RuntimePaths
from preswapd.preswap.parking import Parking

VM = Parked(128 << 20, 1 << 30, "/run/vm1.qmp", 0, 1.5)


@pytest.fixture
def paths(tmp_path: Path) -> RuntimePaths:
    return RuntimePaths(tmp_path)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as running:
        yield running
        running.kill()


def started(
    paths: RuntimePaths,
    awaited: tuple[str, ...] = ("g1", "g2"),
    log: list[str] | None = None,
    boot: str = "this",
) -> Parking:
    return Parking(paths, boot, awaited, lambda priority, text: (log or []).append(text))


def test_start_after_a_kill_knows_it(paths: RuntimePaths) -> None:
    started(paths).note("g1", VM)
    for _ in range(2):
        now = started(paths)
        assert (now.of("g1"), now.of("g2")) == (VM, None)


def test_what_is_forgotten_stays_so(paths: RuntimePaths) -> None:
    before = started(paths)
    before.note("g1", VM)
    before.note("g2", VM)
    before.forget("g1")
    assert (before.of("g1"), before.of("g2")) == (None, VM)
    assert (started(paths).of("g1"), started(paths).of("g2")) == (None, VM)


def test_client_that_left_before_the_kill_is_not_parked(paths: RuntimePaths) -> None:
    started(paths).note("g1", VM)
    assert started(paths, awaited=("g2",)).of("g1") is None


def test_machine_that_ended_is_not_parked(
    paths: RuntimePaths, process: subprocess.Popen[bytes]
) -> None:
    parking = started(paths)
    parking.note("g1", with_pid(process))
    assert parking.of("g1") == with_pid(process)
    assert started(paths).of("g1") == with_pid(process)
    process.kill()
    process.wait()
    assert parking.of("g1") is None
    assert started(paths).of("g1") is None


def with_pid(process: subprocess.Popen[bytes]) -> Parked:
    return Parked(VM.left, VM.whole, VM.qmp, process.pid, VM.since)


def test_process_that_the_server_cannot_see_says_nothing(
    paths: RuntimePaths, process: subprocess.Popen[bytes]
) -> None:
    """Of another container, say: its number means nothing here."""
    process.kill()
    process.wait()
    parking = started(paths)
    parking.note("g1", with_pid(process))
    assert parking.of("g1") == VM


def test_reboot_of_the_host_ends_it(paths: RuntimePaths) -> None:
    started(paths).note("g1", VM)
    assert started(paths, boot="next").of("g1") is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"boot_id": "this"}', '{"boot_id": "this", "devices": {"g1": {}}}']
)
def test_damaged_file_is_ignored(paths: RuntimePaths, text: str) -> None:
    paths.parked.write_text(text)
    said: list[str] = [""]
    assert started(paths, log=said).of("g1") is None
    assert "is ignored" in said[-1]
    started(paths).note("g1", VM)
    assert started(paths).of("g1") == VM


def test_what_cannot_be_kept_is_refused(paths: RuntimePaths) -> None:
    parking = started(paths)
    parking.note("g1", VM)
    paths.parked.unlink()
    paths.parked.mkdir()
    with pytest.raises(RefusedError, match="cannot be written"):
        parking.note("g2", VM)
    assert (parking.of("g1"), parking.of("g2")) == (VM, None)
    parking.forget("g1")
    assert parking.of("g1") is None


def test_two_at_once_lose_none(paths: RuntimePaths) -> None:
    names = [f"d{number}" for number in range(20)]
    parking = started(paths, awaited=tuple(names))
    threads = [threading.Thread(target=parking.note, args=(name, VM)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(started(paths, awaited=tuple(names)).known) == set(names)
