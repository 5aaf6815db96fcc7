# SPDX-License-Identifier: BSD-3-Clause
"""What each page of a device may hold, by what was sent and what was acknowledged.

Requests change each page in one step, at some moment between being sent and being answered.  So a
page may hold whatever those changes leave in any order that these moments allow; one that was not
answered may have happened or not.  Once nothing is in flight and the page was read, it is what it
was read as, and must stay it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from preswapd.units import PAGE_SIZE as PAGE
from tests.crash.contents import difference

# With more changes of one page in flight the orders become too many, and no more is learnt.
MOST_AT_ONCE = 2
MOST_IN_A_ROW = 4


class WrongPageError(AssertionError):
    """A page holds what it must not hold."""


@dataclass(eq=False)
class Change:
    """What one request does to one page."""

    start: int
    content: bytes
    begun: int
    ended: int | None = None

    def applied(self, page: bytes) -> bytes:
        end = self.start + len(self.content)
        return page[: self.start] + self.content + page[end:]

    def precedes(self, other: "Change") -> bool:
        return self.ended is not None and self.ended < other.begun


@dataclass
class Busy:
    """A page with requests in flight."""

    changes: list[Change] = field(default_factory=list)
    readers: int = 0

    @property
    def idle(self) -> bool:
        return not self.readers and all(change.ended is not None for change in self.changes)


def finals(page: bytes, changes: Sequence[Change]) -> Iterator[bytes]:
    """What all answered changes, and any of the others, can leave."""
    if all(change.ended is None for change in changes):
        yield page
    for change, rest in firsts(changes):
        yield from finals(change.applied(page), rest)


def passing(page: bytes, changes: Sequence[Change]) -> Iterator[bytes]:
    """What a reader can meet while they happen."""
    yield page
    for change, rest in firsts(changes):
        yield from passing(change.applied(page), rest)


def firsts(changes: Sequence[Change]) -> Iterator[tuple[Change, list[Change]]]:
    """Each change that can be the first of these, with the others."""
    for change in changes:
        rest = [other for other in changes if other is not change]
        if not any(other.precedes(change) for other in rest):
            yield change, rest


class ExpectedDevice:
    """The pages of one device."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name = name
        self.pages = len(content) // PAGE
        self.settled: list[tuple[bytes, ...]] = [
            (content[at : at + PAGE],) for at in range(0, len(content), PAGE)
        ]
        self.busy: dict[int, Busy] = {}
        self.clock = 0

    def now(self) -> int:
        self.clock += 1
        return self.clock

    # --- requests ---

    def may_change(self, first: int, end: int) -> bool:
        for page in self.busy.keys() & range(first, end):
            changes = self.busy[page].changes
            if len(changes) >= MOST_IN_A_ROW:
                return False
            if sum(change.ended is None for change in changes) >= MOST_AT_ONCE:
                return False
        return True

    def begin_change(self, offset: int, content: bytes) -> list[tuple[int, Change]]:
        """The changes of a request that is about to be sent, by page."""
        begun = self.now()
        changes = []
        at = 0
        while at < len(content):
            page, start = divmod(offset + at, PAGE)
            piece = content[at : at + PAGE - start]
            changes.append((page, Change(start, piece, begun)))
            at += len(piece)
        for page, change in changes:
            self.busy.setdefault(page, Busy()).changes.append(change)
        return changes

    def end_change(self, changes: list[tuple[int, Change]]) -> None:
        """The request was answered."""
        ended = self.now()
        for page, change in changes:
            change.ended = ended
            self.settle_idle(page)

    def begin_read(self, offset: int, length: int) -> None:
        for page in pages_of(offset, length):
            self.busy.setdefault(page, Busy()).readers += 1

    def end_read(self, offset: int, length: int, content: bytes | None) -> None:
        """The answer, None where none came."""
        for page in pages_of(offset, length):
            busy = self.busy[page]
            busy.readers -= 1
            if content is not None:
                start = max(0, offset - page * PAGE)
                at = page * PAGE + start - offset
                self.check_read(page, busy, start, content[at : at + PAGE - start])
            self.settle_idle(page)

    def check_read(self, page: int, busy: Busy, start: int, found: bytes) -> None:
        if not busy.changes:
            self.check(page, found, start)
            return
        allowed = {
            content for before in self.settled[page] for content in passing(before, busy.changes)
        }
        self.fitting(page, found, start, tuple(allowed))

    # --- what pages become ---

    def settle_idle(self, page: int) -> None:
        if self.busy[page].idle:
            self.settle(page)

    def settle(self, page: int) -> None:
        busy = self.busy.pop(page)
        if busy.changes:
            contents = {
                content for before in self.settled[page] for content in finals(before, busy.changes)
            }
            self.settled[page] = tuple(contents)

    def server_gone(self) -> None:
        """No request is in flight any more; those without an answer happened or did not."""
        for page in list(self.busy):
            self.settle(page)

    def clear(self, page: int) -> None:
        """It could not be read, and was trimmed."""
        self.settled[page] = (bytes(PAGE),)

    # --- checks ---

    def check(self, page: int, found: bytes, start: int = 0) -> None:
        """The page, or a part, as it was read while nothing was in flight: now it is this."""
        self.settled[page] = self.fitting(page, found, start, self.settled[page])

    def check_all(self, content: bytes) -> None:
        for page in range(self.pages):
            self.check(page, content[page * PAGE : (page + 1) * PAGE])

    def fitting(
        self, page: int, found: bytes, start: int, allowed: tuple[bytes, ...]
    ) -> tuple[bytes, ...]:
        """Those of the allowed contents that the page can have."""
        end = start + len(found)
        left = tuple(content for content in allowed if content[start:end] == found)
        if not left:
            texts = "; or ".join(difference(found, content, start) for content in allowed)
            raise WrongPageError(f"{self.name}, page {page}: {texts}")
        return left


def pages_of(offset: int, length: int) -> range:
    return range(offset // PAGE, -(-(offset + length) // PAGE))
