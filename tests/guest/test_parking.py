# SPDX-License-Identifier: BSD-3-Clause
"""A real guest that is parked: it runs on, comes back whole, and survives whoever is killed."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from preswapd.cli.park.park import ENDS
from preswapd.cli.park.policy import SLOW_SECONDS, Action
from preswapd.guest.kernel import Kernel
from tests.conftest import StartServer
from tests.guest.parking import MIB, PARK_SECONDS, IdleGuest
from tests.guest.swapping import glance
from tests.running import GUEST_PATIENCE, PRESWAPCTL, wait_for, wait_until

# A minute each, half of it pauses between the steps.
pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(400)]

FLOOR = 152 * MIB


@pytest.fixture
def guest(
    start_server: StartServer, kernel: Kernel, guest_cache: Path, tmp_path: Path
) -> Iterator[IdleGuest]:
    server = start_server(devices={"g1": "512M"}, pool_size="128M")
    with IdleGuest(server, kernel, guest_cache, tmp_path) as running:
        running.fill()
        yield running


def command(guest: IdleGuest, *options: str) -> list[str]:
    floor = f"--floor={FLOOR // MIB}M"
    directory = f"--runtime-dir={guest.server.runtime_dir}"
    return [PRESWAPCTL, directory, "park", "g1", f"--qmp={guest.qmp}", floor, *options]


def parked(guest: IdleGuest) -> int:
    return int(glance(guest.server)["parked"])


@contextmanager
def parking(guest: IdleGuest, *options: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command(guest, *options), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


def assert_unharmed(guest: IdleGuest) -> None:
    guest.check()
    assert guest.troubles() == []
    assert "BLOCK_IO_ERROR" not in guest.kinds()


def test_parked_guest_runs_on_and_comes_back_whole(guest: IdleGuest) -> None:
    whole = guest.hardware.memory
    before = guest.block()
    with parking(guest) as process:
        said, progress = process.communicate(timeout=PARK_SECONDS)
    assert process.returncode == 0, progress
    assert said.startswith("g1 is parked, with 152M of 320M")
    assert guest.has() <= FLOOR + MIB
    # What khugepaged has filled up again by then, 16 MiB in 10 s, depends on the host.
    assert guest.block() < before - 48 * MIB
    assert parked(guest) == FLOOR
    head, row = guest.server.ctl("list").stdout.splitlines()
    assert (head.split()[-1], row.split()[-1]) == ("PARKED", "152M")
    assert guest.run("echo here").output == "here\n"

    said = guest.server.ctl("unpark", "g1").stdout
    assert said == "g1 has all of its memory: 320M of 320M\n"
    assert (guest.has(), parked(guest)) == (whole, 0)
    assert_unharmed(guest)


def test_killed_in_each_step(guest: IdleGuest) -> None:
    """Whoever is killed: the guest runs on with what it has, and `park` goes on from there."""
    lowest = guest.hardware.memory
    for _ in range(20):
        with parking(guest) as process:
            line = first_line(process)
            process.kill()
            process.communicate()
        if not line.startswith("g1: "):
            assert line == "", line
            break
        # What it was told last, and no less than the guest was left with.
        assert FLOOR <= parked(guest) < lowest
        lowest = parked(guest)
        wait_for(guest.has, partial(at_most, lowest + MIB), GUEST_PATIENCE)
        assert guest.run("echo here").output == "here\n"
    assert parked(guest) == FLOOR

    guest.server.ctl("unpark", "g1")
    assert parked(guest) == 0
    with parking(guest) as process:
        first_line(process)
        guest.server.kill()
        guest.server.start()
        _, progress = process.communicate(timeout=PARK_SECONDS)
    assert process.returncode == 0, progress
    assert parked(guest) == FLOOR

    for _ in range(3):
        with subprocess.Popen([*command(guest)[:2], "unpark", "g1"]) as unparking:
            wait_until(
                lambda: guest_has_more(guest) or unparking.poll() is not None,
                "it to give back",
            )
            unparking.send_signal(signal.SIGKILL)
    guest.server.ctl("unpark", "g1", f"--qmp={guest.qmp}")
    assert (guest.has(), parked(guest)) == (guest.hardware.memory, 0)
    assert_unharmed(guest)


def at_most(bound: int, size: int) -> bool:
    return size <= bound


def guest_has_more(guest: IdleGuest) -> bool:
    """By the memory that it took back on the host: its monitor takes one client at a time."""
    return guest.block() > FLOOR + 2 * MIB


def test_guest_that_uses_its_memory_is_not_parked_to_the_floor(guest: IdleGuest) -> None:
    """It reads all of it over and over, and gets the step back that made it thrash.

    On a host so busy that it comes to less than 100 pages a second now and then, its balloon is
    seen to stand still for two minutes instead: it keeps what it has then.
    """
    guest.start("reader", "while :; do printf c >/run/ask; sleep 1; done")
    with parking(guest) as process:
        _, said = process.communicate(timeout=PARK_SECONDS + SLOW_SECONDS)
    assert process.returncode == 5, said
    assert ENDS[Action.THRASHES] in said or ENDS[Action.STUCK] in said
    left = parked(guest)
    assert FLOOR < left < guest.hardware.memory
    assert f"g1 runs on with {left // MIB}M of 320M" in said
    guest.server.ctl("unpark", "g1")
    assert guest.troubles() == []


def test_guest_that_wakes_gets_all_back(guest: IdleGuest) -> None:
    with parking(guest, "--watch") as process:
        wait_until(lambda: parked(guest) == FLOOR, "the floor", PARK_SECONDS)
        said = ""
        while "gets all back once" not in said:
            said = first_line(process)
            assert said
        guest.server.kill()
        guest.server.start()
        assert guest.has() <= FLOOR + MIB
        guest.order_soon("c")
        _, said = process.communicate(timeout=2 * GUEST_PATIENCE)
    assert process.returncode == 0
    assert said.startswith("g1 wakes up\n")
    assert (guest.has(), parked(guest)) == (guest.hardware.memory, 0)
    assert_unharmed(guest)


def test_end_of_the_guest_is_the_end_of_it(guest: IdleGuest) -> None:
    with parking(guest) as process:
        assert first_line(process).startswith("g1: ")
        assert parked(guest) > 0
        guest._child.kill()
        _, said = process.communicate(timeout=GUEST_PATIENCE)
    assert process.returncode == 1
    assert "QEMU" in said
    wait_until(lambda: parked(guest) == 0, "the server to see it")
