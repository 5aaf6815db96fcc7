# SPDX-License-Identifier: BSD-3-Clause
"""Killed before any change that a request makes, or the recovery after it: nothing is lost.

Each state of the files, in shared memory and on disk, that a kill could leave is copied and
recovered.  A page is then what it was before the operation or what it is after it, and once the
operation was acknowledged only the latter.  Then all is trimmed, and another kill brings nothing
back.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from preswapd.preswap.device._device import FLAG_FUA
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.killing import OPEN, Killer, content_of, write_copy
from tests.preswap.running import Running, pages_read, read
from tests.preswap.stepped import text_page
from tests.stepping import Operation, Stepper

SIZE = 16 * PAGE
Pages = list[bytes | None]

# Page 1 in tmem, page 2 on disk, page 3 trimmed on disk, page 4 on disk and then in tmem.
FEW: list[Operation] = [
    OPEN,
    ["write", 1, 1, 0],
    ["write", 2, 2, FLAG_FUA],
    ["write", 3, 3, FLAG_FUA],
    ["trim", PAGE, 3 * PAGE, 0],
    ["write", 4, 4, FLAG_FUA],
    ["write", 4, 5, 0],
]
FULL: list[Operation] = [*FEW, ["limit", 0]]

# Stopped in order, and started on the same boot: its saved map holds until it is changed.
CLEAN: list[Operation] = [*FEW, ["close"], ["kill"], OPEN]

# All on disk but page 4, and every page that is read comes back.
BACK: list[Operation] = [*FEW, ["shrink", 0], ["write", 4, 4, 0], ["come_back", None]]

SCENARIOS: dict[str, tuple[Sequence[Operation], Sequence[Operation]]] = {
    "put_new": (FEW, [["write", 5, 9, 0]]),
    "put_over": (FEW, [["write", 1, 9, 0]]),
    "put_over_disk": (FEW, [["write", 2, 9, 0]]),
    "put_first": ([OPEN], [["write", 5, 9, 0]]),
    "rejected_over_slot": (FULL, [["write", 1, 9, 0]]),
    "rejected_new": (FULL, [["write", 5, 9, 0], ["write", 2, 9, 0]]),
    "fua_over_slot": (FEW, [["write", 1, 9, FLAG_FUA]]),
    "page_zero": (FEW, [["write", 0, 9, 0]]),
    "trim": (FEW, [["trim", 4 * PAGE, PAGE, 0]]),
    "trim_fua": (FEW, [["trim", 4 * PAGE, PAGE, FLAG_FUA]]),
    "zero_ragged": (FEW, [["zero", 3 * PAGE, PAGE + 100, 0]]),
    "part_in_tmem": (FEW, [["part", PAGE + 100, "part"]]),
    "part_on_disk": (FEW, [["part", 2 * PAGE + 100, "part"]]),
    "part_of_a_hole": (FEW, [["part", 6 * PAGE + 100, "part"]]),
    "part_rejected": (FULL, [["part", PAGE + 100, "part"], ["part", 6 * PAGE, "part"]]),
    "shrink": (FEW, [["shrink", 1], ["shrink", 0]]),
    "staged": ([*FEW, ["compress_later"]], [["write", 5, 9, 0], ["write", 1, 9, 0], ["settle"]]),
    "settle": ([*FEW, ["compress_later"], ["write", 5, 9, 0]], [["settle_device"]]),
    "recompress": (FEW, [["recompress"], ["write", 1, 9, 0]]),
    "recompress_staged": (
        [*FEW, ["compress_later"], ["write", 5, 9, 0]],
        [["recompress"], ["settle"], ["shrink", 0]],
    ),
    # Neither P nor the disk file changes: it stays clean.
    "recompress_clean": (CLEAN, [["recompress"]]),
    "punch": (FEW, [["maintain"]]),
    "swapoff": (FEW, [["swapoff", "g1"]]),
    "write_again_after_shrink": ([*FEW, ["shrink", 0]], [["write", 1, 9, 0], ["shrink", 0]]),
    "stop_clean": ([*FEW, ["shrink", 0]], [["close"]]),
    "stop_with_pages": (FEW, [["close"]]),
    "room": (FEW, [["room"]]),
    "idle": (FEW, [["idle"]]),
    "read_back": (BACK, [["read", 2, 1]]),
    "read_all_back": (BACK, [["read", 0, 16]]),
    "read_back_and_write": (BACK, [["read", 2, 1], ["write", 2, 9, 0], ["room"]]),
    "read_back_and_trim": (BACK, [["read", 1, 2], ["trim", PAGE, 2 * PAGE, 0], ["maintain"]]),
    "read_back_and_rejected": (
        BACK,
        [["read", 1, 2], ["limit", 0], ["write", 1, 9, 0], ["part", 2 * PAGE + 100, "part"]],
    ),
    "room_and_back": (BACK, [["room"], ["read", 0, 16], ["idle"], ["read", 0, 16], ["room"]]),
    "mark_by_put": (CLEAN, [["write", 1, 9, 0]]),
    "mark_by_disk_write": ([*CLEAN, ["limit", 0]], [["write", 5, 9, 0]]),
    "mark_by_trim": (CLEAN, [["trim", PAGE, 2 * PAGE, 0]]),
    "mark_by_shrink": (CLEAN, [["shrink", 0]]),
    "mark_by_room": (CLEAN, [["room"]]),
    "mark_by_idle": (CLEAN, [["idle"]]),
    "mark_by_swapoff": (CLEAN, [["swapoff", "g1"]]),
    "mark_by_zone": (CLEAN, [["write", 0, 9, 0]]),
    "mark_by_sync": ([*CLEAN, ["write", 5, 9, 0]], [["sync"]]),
}


class Expected:
    """What each page may be."""

    def __init__(self) -> None:
        self.before: Pages = []
        self.after: Pages = []

    def check(self, base: Path) -> None:
        running = Running.small_at(base)
        running.open()
        self.check_pages(pages_read(running.connect()))
        check_coherence(running.instance)
        running.device.promoted_below = None
        for _ in range(2):  # from where they are, and from where they came back to
            self.check_pages(pages_read(running.connect()))
        check_coherence(running.instance)
        running.connect().trim(SIZE, 0)
        running.kill()
        running.open()
        assert read(running.connect()) == bytes(SIZE)
        check_coherence(running.instance)
        running.kill()

    def check_pages(self, found: Pages) -> None:
        for page, allowed in enumerate(zip(self.before, self.after, strict=True)):
            assert found[page] in allowed, f"page {page}"


@pytest.mark.parametrize(("setup", "steps"), SCENARIOS.values(), ids=SCENARIOS.keys())
def test_crash_request(
    steppers: tuple[Stepper, Stepper],
    base: Path,
    setup: Sequence[Operation],
    steps: Sequence[Operation],
) -> None:
    worker, recoverer = steppers
    disk = Expected()
    killer = Killer(recoverer, base, disk.check)
    todo = iter(steps)
    for word in worker.run(base / "live", setup, steps):
        if word != "change":
            disk.before = disk.after or now(base / "live", base / "look")
            step = next(todo, None)
            disk.after = disk.before if step is None else expected(disk.before, step)
        killer.kill_now((tuple(disk.before), tuple(disk.after)))
    assert killer.states > len(steps)


def now(live: Path, look: Path) -> Pages:
    """What the device reads as, in a copy."""
    write_copy(look, content_of(live))
    running = Running.small_at(look)
    running.open()
    pages = pages_read(running.connect())
    running.kill()
    return pages


def expected(pages: Pages, operation: Operation) -> Pages:
    """The disk after the operation, by what disks do."""
    name, *rest = operation
    if name == "swapoff":
        return [pages[0]] + [None] * (len(pages) - 1)
    changed = bytearray().join(page or b"" for page in pages)
    assert len(changed) == SIZE
    if name == "write":
        changed[rest[0] * PAGE : (rest[0] + 1) * PAGE] = text_page(rest[1])
    elif name == "part":
        changed[rest[0] : rest[0] + len(rest[1])] = rest[1].encode()
    elif name in ("trim", "zero"):
        changed[rest[1] : rest[1] + rest[0]] = bytes(rest[0])
    return [bytes(changed[at : at + PAGE]) for at in range(0, SIZE, PAGE)]
