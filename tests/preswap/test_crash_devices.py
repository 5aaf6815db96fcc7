# SPDX-License-Identifier: BSD-3-Clause
"""Killed while devices come and go, or while a start adopts or discards them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from preswapd.errors import RefusedError
from preswapd.preswap.device._device import FLAG_FUA
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.killing import OPEN, Killer
from tests.preswap.running import Running, pages_read, read
from tests.preswap.saves import saved
from tests.preswap.stepped import text_page
from tests.stepping import Operation, Stepper

SIZE = 16 * PAGE
Pages = list[bytes | None]
DATA: list[Operation] = [OPEN, ["write", 1, 1, 0], ["write", 2, 2, FLAG_FUA]]
ZEROS = bytes(PAGE)
# Pages 1 and up.
KEPT: Pages = [text_page(1), text_page(2), *[ZEROS] * (SIZE // PAGE - 3)]
UNKNOWN: Pages = [None] * (SIZE // PAGE - 1)


def everything_of(running: Running) -> set[str]:
    """The files that an instance with these devices has."""
    names = {"arena"}
    for name in running.instance.devices:
        names |= {f"{name}.map", f"{name}.img", f"{name}.json"}
    return names


def opened(base: Path, *, discard: bool = False) -> Running:
    """It starts, its files are those of its devices, and each has a swap header."""
    running = Running.small_at(base)
    running.open(discard=discard)
    check_coherence(running.instance)
    for device in running.instance.devices.values():
        assert read(device.connect(), 0, PAGE).endswith(b"SWAPSPACE2")
    assert {path.name for path in running.snapshot()} == everything_of(running)
    return running


def contents(running: Running) -> Pages:
    return pages_read(running.connect())[1:]


def is_new(pages: Pages) -> bool:
    """Nothing is known, or what has become known are zeros."""
    return set(pages) <= {None, ZEROS}


@pytest.fixture
def kill_everywhere(steppers: tuple[Stepper, Stepper], base: Path) -> Callable[..., int]:
    """Runs the setup, and kills before each change of one operation and of the start after it."""

    def run(
        setup: list[Operation],
        operation: Operation,
        check: Callable[[Path], None],
        recovery: Operation = OPEN,
    ) -> int:
        worker, recoverer = steppers
        killer = Killer(recoverer, base, check)
        for _ in worker.run(base / "live", setup, [operation]):
            killer.kill_now(None, recovery)
        return killer.states

    return run


Kill = Callable[..., int]


def test_crash_first_start(kill_everywhere: Kill) -> None:
    def check(base: Path) -> None:
        running = opened(base)
        assert is_new(contents(running))
        running.kill()

    assert kill_everywhere([], OPEN, check) > 20


def test_crash_create(kill_everywhere: Kill) -> None:
    def check(base: Path) -> None:
        running = opened(base)
        assert contents(running) == KEPT
        new = running.instance.devices.get("new")
        assert new is None or pages_read(new.connect())[1:] == UNKNOWN
        running.kill()

    assert kill_everywhere(DATA, ["create", "new", SIZE], check) > 10


def test_crash_remove(kill_everywhere: Kill) -> None:
    """Configured, it is whole or new."""

    def check(base: Path) -> None:
        running = opened(base)
        found = contents(running)
        assert found == KEPT or is_new(found)
        running.kill()

    assert kill_everywhere(DATA, ["remove", "g1"], check) > 10


def test_crash_remove_created(kill_everywhere: Kill) -> None:
    """Not configured, it is whole or gone."""

    def check(base: Path) -> None:
        running = opened(base)
        assert contents(running) == KEPT
        running.kill()

    setup = [*DATA, ["create", "new", SIZE]]
    assert kill_everywhere(setup, ["remove", "new"], check) > 5


def test_crash_remove_and_reboot(kill_everywhere: Kill) -> None:
    """The host goes down with the server: the others are served all the same."""

    def check(base: Path) -> None:
        running = Running.small_at(base)
        running.reboot()
        running.open()
        read(running.connect(), 0, PAGE)
        assert contents(running) == UNKNOWN
        running.kill()

    setup = [*DATA, ["create", "new", SIZE]]
    assert kill_everywhere(setup, ["remove", "new"], check) > 5


def test_crash_adopt_clean(kill_everywhere: Kill) -> None:
    def check(base: Path) -> None:
        running = opened(base)
        assert contents(running) == KEPT
        running.kill()

    setup: list[Operation] = [*DATA, ["shrink", 0], ["close"], ["kill"], ["reboot"]]
    assert kill_everywhere(setup, OPEN, check) > 10


def test_crash_adopt_dirty(kill_everywhere: Kill) -> None:
    def check(base: Path) -> None:
        running = opened(base)
        assert contents(running) == UNKNOWN
        running.kill()

    assert kill_everywhere([*DATA, ["kill"], ["reboot"]], OPEN, check) > 10


def test_crash_discard(kill_everywhere: Kill) -> None:
    """What a killed discard leaves is refused or served; discarding again ends it."""

    def check(base: Path) -> None:
        try:
            running = opened(base)
        except RefusedError:
            running = opened(base, discard=True)
        found = contents(running)
        assert found == KEPT or is_new(found)
        running.kill()

    setup: list[Operation] = [*DATA, ["kill"]]
    assert kill_everywhere(setup, ["discard"], check, ["discard"]) > 10


def test_crash_mkswap(kill_everywhere: Kill) -> None:
    def check(base: Path) -> None:
        running = opened(base)
        assert all(
            found in (kept, None) for found, kept in zip(contents(running), KEPT, strict=True)
        )
        running.kill()

    assert kill_everywhere(DATA, ["mkswap", "g1"], check) > 1


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (["write", 1, 9, 0], {1: text_page(9)}),
        (["write", 2, 9, FLAG_FUA], {2: text_page(9)}),
        (["trim", PAGE, 2 * PAGE, 0], {2: ZEROS}),
        (["zero", PAGE, 2 * PAGE, FLAG_FUA], {2: ZEROS}),
        (["swapoff", "g1"], dict.fromkeys(range(1, SIZE // PAGE))),
        (["close"], {}),
    ],
)
def test_crash_first_change_and_reboot(
    kill_everywhere: Kill, base: Path, change: Operation, after: dict[int, bytes | None]
) -> None:
    """No page is older than what was acknowledged, whatever the saved map said."""

    def pages_after_reboot(where: Path) -> Pages:
        running = Running.small_at(where)
        running.reboot()
        running.open()
        found = pages_read(running.connect())
        running.kill()
        return found

    def check(where: Path) -> None:
        for page, found in enumerate(pages_after_reboot(where)[1:], 1):
            assert found in (KEPT[page - 1], after.get(page), None), f"page {page}"

    setup: list[Operation] = [*DATA, ["shrink", 0], ["close"], ["kill"], OPEN]
    assert kill_everywhere(setup, change, check) >= 1
    for page, found in enumerate(pages_after_reboot(base / "live")[1:], 1):
        assert found in (after.get(page, KEPT[page - 1]), None), f"page {page}"


# --- a restore ---

# Trimmed, never written, and in memory or on disk.
RESTORED: Pages = [text_page(1), ZEROS, None, text_page(4), *UNKNOWN[4:]]
NEW_DEVICE: list[Operation] = [OPEN, ["swapoff", "g1"]]
HEADER = b"the saved header".ljust(PAGE - 10) + b"SWAPSPACE2"


@pytest.fixture
def save(tmp_path: Path, base: Path) -> Path:
    running = Running.small_at(base / "source")
    running.open(known=False)
    client = running.connect()
    for page, found in enumerate([HEADER, *RESTORED]):
        if found == ZEROS:
            client.trim(PAGE, page * PAGE, 0)
        elif found is not None:
            client.pwrite(found, page * PAGE, 0)
    client.close()
    path = tmp_path / "save"
    path.write_bytes(saved(running))
    running.kill()
    return path


def first_page(running: Running) -> bytes:
    return read(running.connect(), 0, PAGE)


@pytest.mark.parametrize("most_in_memory", [16, 1])
def test_crash_restore(kill_everywhere: Kill, save: Path, most_in_memory: int) -> None:
    """All of it or nothing, and the saved header only with its pages."""
    seen = set()

    def check(base: Path) -> None:
        running = opened(base)
        found, has_header = contents(running), first_page(running) == HEADER
        assert (found, has_header) in ((RESTORED, True), (UNKNOWN, False))
        assert running.sidecar().restore == ""
        seen.add(has_header)
        running.kill()

    setup = [*NEW_DEVICE, ["max_pages", most_in_memory]]
    assert kill_everywhere(setup, ["restore", str(save)], check) > 20
    assert seen == {True, False}


def test_crash_restore_and_reboot(kill_everywhere: Kill, save: Path) -> None:
    """No page of it was synced; the header is the old one, the saved one, or a new one, in full."""

    def check(base: Path) -> None:
        running = Running.small_at(base)
        running.reboot()
        running.open()
        assert contents(running) == UNKNOWN
        assert first_page(running).endswith(b"SWAPSPACE2")
        assert running.sidecar().restore == ""
        running.kill()

    assert kill_everywhere(NEW_DEVICE, ["restore", str(save)], check) > 5


@pytest.mark.parametrize("left_out", [1, 40])
def test_crash_restore_that_fails(kill_everywhere: Kill, save: Path, left_out: int) -> None:
    save.write_bytes(save.read_bytes()[:-left_out])

    def check(base: Path) -> None:
        running = opened(base)
        assert contents(running) == UNKNOWN
        assert first_page(running) != HEADER
        running.kill()

    assert kill_everywhere(NEW_DEVICE, ["restore", str(save)], check) > 20
