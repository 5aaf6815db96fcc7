# SPDX-License-Identifier: BSD-3-Clause
"""Random requests of several NBD clients at once, each answer checked.

Each export has one client that writes and reads, and one that only reads.  Now and then the first
one loses its connection: it opens another and sends again what was not answered.  The old one stays
open, with whatever the server has not begun of it, or is closed.
"""

import errno
import os
import random
import select
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import nbd

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import Splitting
from tests.crash.contents import Kind, page_content
from tests.crash.expected import ExpectedDevice

IN_FLIGHT, READS_IN_FLIGHT = 16, 2
# Pages that half of the requests go to, so that they meet.
HOT_PAGES = 192
LENGTHS = (1, 1, 1, 1, 2, 2, 3, 8, 16, 31, 64)
# Of trims and zeroes.
WHOLE_DEVICE_SHARE = 0.004
POLL_MILLISECONDS = 50
MOST_TRIES = 5
# A server that says nothing for so long hangs.
PATIENCE = 30.0

# What libnbd reports for requests whose connection broke before their answer came.
NO_ANSWER = errno.ENOTCONN
REQUESTS = {"write": 40, "part": 15, "read": 20, "trim": 10, "zero": 10, "flush": 2}
READS = {"read": 20, "flush": 1}
# How likely one is lost, each time that all were served.
LOST_SHARE = 0.01

Ended = Callable[[int], object]
Completed = Callable[[Any], int]
Send = Callable[[Any, Completed], object]


class WrongAnswerError(AssertionError):
    """The server answered with an error."""


@dataclass
class Request:
    """One that was sent and not answered yet."""

    send: Send
    ended: Ended


@dataclass
class Connection:
    handle: Any
    device: ExpectedDevice
    writes: bool
    waiting: dict[int, Request] = field(default_factory=dict)  # by number, in the order sent

    @property
    def gone(self) -> bool:
        return bool(self.handle.aio_is_dead() or self.handle.aio_is_closed())


class Load:
    """Keeps the connections busy until the server has gone."""

    def __init__(
        self,
        devices: Sequence[ExpectedDevice],
        uri: Callable[[str], str],
        random: random.Random,
        first_seq: int,
    ) -> None:
        self.random = random
        self.uri = uri
        self.seq = first_seq
        self.count: Counter[str] = Counter()
        self.sent = 0
        self.answers: deque[tuple[Connection, int, int]] = deque()
        self.lost: list[Any] = []
        self.connections = [
            Connection(connected(uri(device.name)), device, writes)
            for device in devices
            for writes in (False, True)
        ]
        self.kinds = random.choices(
            [
                [Kind.NOISE, Kind.NOISE, Kind.NOISE, Kind.TEXT],
                [Kind.TEXT, Kind.NOISE, Kind.SAME_FILLED],
            ],
            k=1,
        )[0]

    # --- the loop ---

    def run(self, seconds: float, end: Callable[[], None]) -> None:
        """After so many seconds calls end(), which makes the server go away."""
        begun = time.monotonic()
        ended = False
        while alive := [client for client in self.connections if not client.gone]:
            for client in alive:
                self.fill(client)
            self.exchange([client for client in alive if not client.gone])
            if not ended:
                self.reconnect()
            now = time.monotonic()
            if not ended and now >= begun + seconds:
                ended = True
                end()
            if now > begun + seconds + PATIENCE:
                raise WrongAnswerError("the server neither answers nor goes away")
        self.take_answers()
        for client in self.connections:
            for request in client.waiting.values():
                request.ended(NO_ANSWER)

    def fill(self, client: Connection) -> None:
        kinds, most = (REQUESTS, IN_FLIGHT) if client.writes else (READS, READS_IN_FLIGHT)
        for _ in range(most - len(client.waiting)):
            if client.gone:
                return
            (kind,) = self.random.choices(list(kinds), list(kinds.values()))
            getattr(self, f"send_{kind}")(client)

    def exchange(self, clients: Sequence[Connection]) -> None:
        poll = select.poll()
        for client in clients:
            poll.register(client.handle.aio_get_fd(), events_of(client.handle))
        ready = dict(poll.poll(POLL_MILLISECONDS))
        for client in clients:
            if not client.gone:
                notify(client.handle, ready.get(client.handle.aio_get_fd(), 0))
        self.take_answers()

    def take_answers(self) -> None:
        while self.answers:
            client, number, error = self.answers.popleft()
            if error != NO_ANSWER and number in client.waiting:
                client.waiting.pop(number).ended(error)

    def reconnect(self) -> None:
        """Of those that were dropped, and now and then of one that was not."""
        for client in self.connections:
            was_dropped = client.gone
            if was_dropped or (client.writes and self.random.random() < LOST_SHARE):
                self.count["dropped" if was_dropped else "lost"] += 1
                self.replace(client)

    def replace(self, old: Connection) -> None:
        """By one that sends again what was not answered, in that order."""
        new = Connection(connected(self.uri(old.device.name)), old.device, old.writes)
        self.connections[self.connections.index(old)] = new
        if self.random.random() < 0.8:
            self.lost.append(old.handle)
        waiting = list(old.waiting.values())
        old.waiting.clear()
        for request in waiting:
            self.send(new, request)

    # --- requests ---

    def begin(self, client: Connection, what: str, ended: Ended, send: Send) -> None:
        self.count[what] += 1
        self.send(client, Request(send, ended))

    def send(self, client: Connection, request: Request) -> None:
        self.sent += 1
        number = self.sent
        client.waiting[number] = request

        def completed(error: Any) -> int:
            """It only notes, for what it raises is lost."""
            self.answers.append((client, number, error.value))
            return 1

        try:
            request.send(client.handle, completed)
        except nbd.Error:
            if not client.gone:
                raise

    def change(
        self, client: Connection, what: str, offset: int, content: bytes, send: Send
    ) -> None:
        """Unless too much is in flight there."""
        device = client.device
        end = -(-(offset + len(content)) // PAGE)
        if not device.may_change(offset // PAGE, end):
            return
        changes = device.begin_change(offset, content)

        def ended(number: int) -> None:
            if succeeded(what, offset, len(content), number):
                device.end_change(changes)
                self.count["pages acknowledged"] += len(changes)

        self.begin(client, what, ended, send)

    def send_write(self, client: Connection) -> None:
        self.write(client, *self.whole_pages(client.device))

    def send_part(self, client: Connection) -> None:
        self.write(client, *self.any_bytes(client.device))

    def write(self, client: Connection, offset: int, length: int) -> None:
        content, flags = self.content(client.device.name, offset, length), self.fua()

        def send(handle: Any, completed: Completed) -> None:
            handle.aio_pwrite(content, offset, completion=completed, flags=flags)

        self.change(client, "write", offset, content, send)

    def send_trim(self, client: Connection) -> None:
        """A trim takes the whole pages inside its range."""
        offset, length = self.range_to_clear(client.device)
        first, end = -(-offset // PAGE) * PAGE, (offset + length) // PAGE * PAGE
        flags = self.fua()

        def send(handle: Any, completed: Completed) -> None:
            handle.aio_trim(length, offset, completion=completed, flags=flags)

        self.change(client, "trim", first, bytes(max(0, end - first)), send)

    def send_zero(self, client: Connection) -> None:
        offset, length = self.range_to_clear(client.device)
        flags = self.fua() | self.random.choice([0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO])

        def send(handle: Any, completed: Completed) -> None:
            handle.aio_zero(length, offset, completion=completed, flags=flags)

        if flags & nbd.CMD_FLAG_FAST_ZERO and (offset % PAGE or (offset + length) % PAGE):
            self.send_refused_zero(client, offset, length, send)
        else:
            self.change(client, "zero", offset, bytes(length), send)

    def send_refused_zero(self, client: Connection, offset: int, length: int, send: Send) -> None:
        """What cannot be done fast is refused and changes nothing."""

        def ended(number: int) -> None:
            if number not in {errno.EOPNOTSUPP, NO_ANSWER}:
                raise WrongAnswerError(f"a fast zero of {length} bytes at {offset} gave {number}")

        self.begin(client, "refused zero", ended, send)

    def send_read(self, client: Connection) -> None:
        device = client.device
        choose = self.any_bytes if self.random.random() < 0.3 else self.whole_pages
        offset, length = choose(device)
        buffer: Any = None
        device.begin_read(offset, length)

        def ended(number: int) -> None:
            answered = succeeded("read", offset, length, number)
            content = bytes(buffer.to_bytearray()) if answered else None
            device.end_read(offset, length, content)

        def send(handle: Any, completed: Completed) -> None:
            nonlocal buffer
            # Of its own: an answer to a connection that was lost may come into the one before.
            buffer = nbd.Buffer(length)
            handle.aio_pread(buffer, offset, completion=completed)

        self.begin(client, "read", ended, send)

    def send_flush(self, client: Connection) -> None:
        def send(handle: Any, completed: Completed) -> None:
            handle.aio_flush(completion=completed)

        self.begin(client, "flush", lambda number: succeeded("flush", 0, 0, number), send)

    # --- what is chosen ---

    def fua(self) -> int:
        return int(nbd.CMD_FLAG_FUA) if self.random.random() < 0.05 else 0

    def first_page(self, device: ExpectedDevice) -> int:
        return self.random.randrange(
            min(HOT_PAGES, device.pages) if self.random.random() < 0.5 else device.pages
        )

    def whole_pages(self, device: ExpectedDevice) -> tuple[int, int]:
        first = self.first_page(device)
        pages = min(self.random.choice(LENGTHS), device.pages - first)
        return first * PAGE, pages * PAGE

    def any_bytes(self, device: ExpectedDevice) -> tuple[int, int]:
        unit = self.random.choice([1, 512])
        size = device.pages * PAGE
        offset = self.first_page(device) * PAGE + self.random.randrange(PAGE) // unit * unit
        length = self.random.randrange(1, 2 * PAGE // unit) * unit
        return offset, min(length, size - offset)

    def range_to_clear(self, device: ExpectedDevice) -> tuple[int, int]:
        chance = self.random.random()
        if chance < WHOLE_DEVICE_SHARE:
            return 0, device.pages * PAGE
        return self.any_bytes(device) if chance < 0.2 else self.whole_pages(device)

    def content(self, device: str, offset: int, length: int) -> bytes:
        pages = []
        for page in range(offset // PAGE, -(-(offset + length) // PAGE)):
            self.seq += 1
            kind = self.random.choice(self.kinds)
            pages.append(page_content(kind, device, page, self.seq, self.random))
        start = offset % PAGE
        return b"".join(pages)[start : start + length]


def connected(uri: str) -> Any:
    """Once more where it is dropped on its way in: before nbdkit 1.34 all connections of this
    process are, with the one that was left behind."""
    for _ in range(MOST_TRIES):
        handle = Splitting()
        try:
            handle.connect_uri(uri)
        except nbd.Error:
            time.sleep(0.02)
        else:
            return handle
    handle = Splitting()
    handle.connect_uri(uri)
    return handle


def events_of(handle: Any) -> int:
    direction = handle.aio_get_direction()
    return (select.POLLIN if direction & nbd.AIO_DIRECTION_READ else 0) | (
        select.POLLOUT if direction & nbd.AIO_DIRECTION_WRITE else 0
    )


def notify(handle: Any, ready: int) -> None:
    """Lets libnbd read or write; what a broken connection makes it raise shows in its state."""
    try:
        direction = handle.aio_get_direction()
        if ready & (select.POLLIN | select.POLLHUP | select.POLLERR) and (
            direction & nbd.AIO_DIRECTION_READ
        ):
            handle.aio_notify_read()
        elif ready & select.POLLOUT and direction & nbd.AIO_DIRECTION_WRITE:
            handle.aio_notify_write()
    except nbd.Error:
        if not (handle.aio_is_dead() or handle.aio_is_closed()):
            raise


def succeeded(what: str, offset: int, length: int, number: int) -> bool:
    """Whether the request was answered; an error as its answer is wrong."""
    if number not in {0, NO_ANSWER}:
        raise WrongAnswerError(f"{what} of {length} bytes at {offset}: {os.strerror(number)}")
    return number == 0
