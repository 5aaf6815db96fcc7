# SPDX-License-Identifier: BSD-3-Clause
"""Killed while a device moves to another host: "arrival" to "give up" of docs/concurrency.md."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from preswapd.preswap.device._device import FLAG_FUA
from preswapd.preswap.files.maps import DISK, LOST, PENDING, TMEM, UNKNOWN
from preswapd.preswap.files.sidecar import Sidecar
from preswapd.preswap.moving.pull import Pull
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.killing import OPEN, Killer
from tests.preswap.running import Running, pages_read, read
from tests.preswap.saves import saved
from tests.preswap.stepped import ARRIVAL, LIFE, text_page
from tests.stepping import Operation, Stepper

PAGES = 16
ZEROS = bytes(PAGE)
DATA: list[Operation] = [OPEN, ["write", 1, 1, 0], ["write", 2, 2, FLAG_FUA]]
KEPT = [text_page(1), text_page(2), *[ZEROS] * (PAGES - 3)]
NOTHING = [None] * (PAGES - 1)
ARRIVED: list[Operation] = [OPEN, ["moving", "arrive"]]
HERE: list[Operation] = [*ARRIVED, ["moving", "come"], ["write", 1, 1, 0]]


@pytest.fixture(autouse=True)
def nothing_is_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pull, "start", lambda self: None)


@pytest.fixture
def kill_everywhere(steppers: tuple[Stepper, Stepper], base: Path) -> Callable[..., int]:
    """Runs the setup, and kills before each change of one operation and of the start after it;
    `check` gets what is opened then."""

    def run(setup: list[Operation], operation: Operation, check: Callable[[Running], None]) -> int:
        worker, recoverer = steppers

        def look(where: Path) -> None:
            running = Running.small_at(where)
            running.open()
            check_coherence(running.instance)
            check(running)
            running.kill()

        killer = Killer(recoverer, base, look)
        for _ in worker.run(base / "live", setup, [operation]):
            killer.kill_now(None)
        return killer.states

    return run


Kill = Callable[..., int]


def contents(running: Running) -> list[bytes | None]:
    return pages_read(running.connect())[1:]


def states(running: Running) -> bytes:
    return running.device.state_bytes()


def sidecar(running: Running) -> Sidecar:
    return running.instance.served["g1"].record.sidecar


def pulled(running: Running) -> list[bytes | None]:
    return pages_read(running.device.pull(LIFE, ARRIVAL))[1:]


def test_taken(kill_everywhere: Kill) -> None:
    """Served here, or to who has taken it, and never to both."""
    seen = set()

    def check(running: Running) -> None:
        guest = running.device.guest
        seen.add(guest)
        assert contents(running) == (KEPT if guest == "here" else NOTHING)
        assert (guest == "gone") == (sidecar(running).moved == ARRIVAL)
        assert pulled(running) == KEPT

    assert kill_everywhere([*DATA, ["moving", "announced"]], ["moving", "taken"], check) > 2
    assert seen == {"here", "gone"}


@pytest.mark.parametrize("saved", [False, True])
def test_released(kill_everywhere: Kill, saved: bool) -> None:
    """No guest gets what was there."""
    seen = set()

    def check(running: Running) -> None:
        guest = running.device.guest
        seen.add(guest)
        assert contents(running) == NOTHING
        if guest == "gone":
            assert pulled(running) == KEPT
        else:
            assert set(states(running)[1:]) == {UNKNOWN}
            assert read(running.connect(), 0, PAGE).endswith(b"SWAPSPACE2")
            assert sidecar(running) == sidecar(running).settled()

    setup: list[Operation] = [*DATA, ["moving", "announced"], ["moving", "taken"]]
    if saved:
        setup += [["sync"]]
    assert kill_everywhere(setup, ["moving", "released"], check) > 10
    assert seen == {"gone", "here"}


def test_arrival(kill_everywhere: Kill) -> None:
    """All as it was, or all on the other host."""
    seen = set()

    def check(running: Running) -> None:
        guest = running.device.guest
        seen.add(guest)
        if guest == "here":
            assert contents(running) == KEPT
        else:
            assert set(states(running)) == {PENDING}
            assert sidecar(running).source == LIFE
            assert "g1" in running.instance.moves.pulls
            assert running.instance.host.stats()["stored_pages"] == 0

    assert kill_everywhere(DATA, ["moving", "arrive"], check) > 10
    assert seen == {"here", "coming"}


def test_arrival_and_reboot(kill_everywhere: Kill) -> None:
    def check(running: Running) -> None:
        running.reboot()
        running.open()
        if running.device.guest == "here":
            assert set(contents(running)) == {None}
        else:
            assert set(states(running)) == {PENDING}

    assert kill_everywhere(DATA, ["moving", "arrive"], check) > 10


@pytest.mark.parametrize("saved", [False, True])
def test_first_change(kill_everywhere: Kill, saved: bool) -> None:
    """It is made only where the source has been taken, and the zone is here."""
    seen = set()

    def check(running: Running) -> None:
        found = states(running)
        seen.add((running.device.guest, found[0], found[1]))
        assert set(found[2:]) == {PENDING}
        if found[0] != PENDING:
            assert read(running.connect(), 0, PAGE) == text_page(0)
        if found[1] != PENDING:
            assert running.device.guest == "here"
            assert read(running.connect(), PAGE, PAGE) == text_page(1)
        assert running.device.guest == "coming" or found[0] == DISK

    setup = [*ARRIVED, ["moving", "comes"]]
    if saved:
        setup += [["sync"]]
    assert kill_everywhere(setup, ["write", 1, 1, 0], check) > 3
    assert {("coming", PENDING, PENDING), ("coming", DISK, PENDING)} <= seen
    assert ("here", DISK, PENDING) in seen


@pytest.mark.parametrize("saved", [False, True])
def test_first_change_and_reboot(kill_everywhere: Kill, saved: bool) -> None:
    """Where it may have been made, nothing is fetched any more, and the zone is the guest's."""
    seen = set()

    def check(running: Running) -> None:
        was_here = running.device.guest == "here"
        seen.add(was_here)
        running.reboot()
        running.open()
        found = states(running)
        if was_here:
            assert set(found[1:]) == {UNKNOWN}
            assert read(running.connect(), 0, PAGE) == text_page(0)
        else:
            assert set(found) == {PENDING}

    setup = [*ARRIVED, ["moving", "comes"]]
    if saved:
        setup += [["sync"]]
    assert kill_everywhere(setup, ["write", 1, 1, 0], check) > 3
    assert seen == {False, True}


@pytest.mark.parametrize("rejected", [False, True])
@pytest.mark.parametrize("page", [0, 5])
def test_kept(kill_everywhere: Kill, rejected: bool, page: int) -> None:
    seen = set()

    def check(running: Running) -> None:
        state = states(running)[page]
        seen.add(state)
        if state != PENDING:
            assert read(running.connect(), page * PAGE, PAGE) == text_page(5)
        assert read(running.connect(), PAGE, PAGE) == text_page(1)

    setup = [*HERE, *([["max_pages", 0]] if rejected else [])]
    assert kill_everywhere(setup, ["moving", "keep", page, 5], check) > 1
    assert seen == {PENDING, DISK if rejected or page == 0 else TMEM} or seen == {PENDING}


def test_kept_of_a_clean_device_and_reboot(kill_everywhere: Kill) -> None:
    def check(running: Running) -> None:
        running.reboot()
        running.open()
        found = states(running)
        assert found[5] in (PENDING, UNKNOWN)
        assert found[1] in (DISK, UNKNOWN)
        if found[1] == DISK:
            assert read(running.connect(), PAGE, PAGE) == text_page(1)

    assert kill_everywhere([*HERE, ["sync"]], ["moving", "keep", 5, 5], check) > 2


def test_let_go(kill_everywhere: Kill) -> None:
    """All is here; the source is told at the latest by the next start."""
    seen = set()
    kept: list[Operation] = [["moving", "keep", page, page] for page in range(PAGES)]

    def check(running: Running) -> None:
        found = contents(running)
        assert found == [text_page(page) for page in range(1, PAGES)]
        seen.add(sidecar(running).source)
        assert "g1" in running.instance.moves.pulls

    assert kill_everywhere([*HERE, *kept], ["moving", "let go"], check) > 1
    assert seen == {0, LIFE}


def test_abandoned(kill_everywhere: Kill) -> None:
    seen = set()

    def check(running: Running) -> None:
        found = states(running)
        seen.add(sidecar(running).source)
        assert found[1] == TMEM
        assert set(found[2:]) <= {PENDING, LOST}
        assert contents(running)[1:] == NOTHING[1:]
        if not sidecar(running).source:
            assert set(found[2:]) == {LOST}
            assert found[0] == DISK

    assert kill_everywhere(HERE, ["moving", "abandon"], check) > 10
    assert seen == {0, LIFE}


def test_restored(kill_everywhere: Kill, tmp_path: Path, base: Path) -> None:
    """Who was told of the device gets what its guest gets, or nothing, and never a part of it."""
    running = Running.small_at(base / "source")
    running.open(known=False)
    for page in (1, 2):
        running.connect().pwrite(text_page(page), page * PAGE)
    path = tmp_path / "save"
    path.write_bytes(saved(running))
    running.kill()
    whole = [text_page(1), text_page(2), *[None] * (PAGES - 3)]
    seen = set()

    def check(running: Running) -> None:
        found, life = contents(running), running.device.life
        seen.add((found == whole, life))
        assert found in (whole, NOTHING)
        assert life == sidecar(running).life
        if life:
            assert pulled(running) == found
        else:
            with pytest.raises(OSError, match=os.strerror(errno.ESHUTDOWN)):
                pulled(running)

    setup: list[Operation] = [OPEN, ["swapoff", "g1"], ["moving", "announced"]]
    assert kill_everywhere(setup, ["restore", str(path)], check) > 20
    assert {(True, LIFE), (False, 0)} <= seen <= {(True, LIFE), (False, 0), (False, LIFE)}
