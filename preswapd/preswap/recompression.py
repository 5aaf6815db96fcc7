# SPDX-License-Identifier: BSD-3-Clause
"""Pages that nobody has touched for long are compressed once more, by a denser codec.

It has a thread of its own, so that nothing waits for it, and takes little of a processor.  Of a
device whose pages are to be kept as they are (`none`) or are dense already it does nothing.  It
stands still while a shrink runs: what becomes smaller now may leave a moment later.  Neither a
frozen pool nor a disk that fails stops it: it takes no page in, drops none and needs no disk, and
who has frozen a pool wants memory back.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf

from preswapd.preswap.device._device import Device
from preswapd.preswap.policy import Policy
from preswapd.tmem import Host

# Of one processor, when nobody else wants it: then a piece of work is followed by a rest of
# nineteen times as long.
SHARE = 0.05
REST = 1 / SHARE - 1
# Where the thread had to wait for a processor it takes it from others: up to 0.3 %.
LONGEST_REST = 16 * REST
# A piece of work: ten a second.
PIECE_NS = 5_000_000
# With nothing to do.
IDLE_SECONDS = 1.0
# A pass looks at every page of a device, 3 ms for each 4 GiB that are in memory, and so none begins
# before a 60th of the age has gone by.
PASSES = 60
# A device's clock of its last request is some milliseconds behind, and an epoch lasts a second.
SLACK_SECONDS = 2.0
# From the fastest to the densest.
CODECS = ("lz4", "zstd")


def is_denser(codec: str, than: str) -> bool:
    known = codec in CODECS and than in CODECS
    return known and CODECS.index(codec) > CODECS.index(than)


class Pace:
    """How long to rest after a piece of work."""

    def __init__(self) -> None:
        self.rest = REST

    def after(self, worked: int, took: int) -> float:
        """Seconds, of nanoseconds that the work had a processor and that it took in all."""
        waited = took > worked + worked // 4
        self.rest = min(self.rest * 2, LONGEST_REST) if waited else max(self.rest / 2, REST)
        return self.rest * worked / 1e9


@dataclass
class Passes:
    """Through one device: each tries the pages that were touched last since the time up to which
    the one before has tried them.  Times are those of time.monotonic()."""

    codec: str
    tried: float = -inf  # pages that were touched last before it
    before: float = -inf  # of the pass under way, or of the last one
    next_page: int | None = None  # of the pass under way; None: none is
    last_pass: float = -inf  # when it began, or the one under way did
    rest: float = 1 / PASSES  # from then on, in ages
    recompressed: int = 0
    no_room: int = 0
    # What was put before this process began counts as touched then, or a little earlier.
    begun: float = field(default_factory=time.monotonic)

    def next_pass(self, after: float) -> float:
        """For this age: another one may have been set since the last pass."""
        return self.last_pass + max(after * self.rest, IDLE_SECONDS)

    def is_due(self, device: Device, now: float, after: float) -> bool:
        """Whether a pass is under way or begins now."""
        if self.next_page is not None:
            return True
        # What is touched in an epoch that has not ended counts as touched at its beginning.
        before = now - max(after, SLACK_SECONDS)
        if now < self.next_pass(after) or before <= self.tried or not device.preswap_pages:
            return False
        # Nobody has touched a page since those that were tried already.
        idle = device.seconds_since_io
        last_touch = self.begun if idle is None else max(self.begun, now - idle)
        if last_touch < self.tried - SLACK_SECONDS:
            return False
        self.next_page, self.before = 0, before
        self.last_pass, self.rest = now, 1 / PASSES
        self.recompressed = self.no_room = 0
        return True

    def go_on(self, device: Device) -> tuple[int, int]:
        """Nanoseconds with a processor, and in all.  OSError: the device is being removed."""
        assert self.next_page is not None
        self.next_page, recompressed, no_room, worked, took = device.recompress(
            self.codec,
            self.next_page,
            since=self.tried,
            before=self.before,
            nanoseconds=PIECE_NS,
        )
        self.recompressed += recompressed
        self.no_room += no_room
        return worked, took

    def end(self, now: float) -> None:
        """What found no room is tried again, with the others of this pass: soon where that has
        brought memory, or else much later."""
        self.next_page = None
        if not self.no_room:
            self.tried = self.before
        elif not self.recompressed:
            self.last_pass, self.rest = now, 1.0


class Recompression:
    """Of an instance's devices, which may come and go between two turns."""

    def __init__(
        self,
        host: Host,
        policy: Policy,
        devices: Callable[[], Sequence[Device]],
        is_shrinking: Callable[[], bool],
        idle: Callable[[float], None] = time.sleep,
    ) -> None:
        self.host = host
        self.policy = policy
        self.devices = devices
        self.is_shrinking = is_shrinking
        self.idle = idle
        self.passes: dict[Device, Passes] = {}
        self.is_to_pack = False
        self.pace = Pace()
        self.rest = IDLE_SECONDS

    def work(self) -> None:
        """Rests, and then does a piece of work, if there is any: to be called for ever."""
        if self.rest == IDLE_SECONDS:
            self.idle(self.rest)
        else:
            time.sleep(self.rest)
        self.rest = IDLE_SECONDS
        self.rest = self.turn()

    def turn(self) -> float:
        """A piece of work, if there is any; seconds until the next turn."""
        after, codec = self.policy.recompress_after, self.policy.recompress_codec
        self.passes = {device: self.passes_of(device, codec) for device in self.devices()}
        if after is None or self.is_shrinking():
            return IDLE_SECONDS
        if self.is_to_pack:
            return self.pack()
        # The pass that is under way, or the one that is due for the longest time.
        for device, passes in self.by_turn(after):
            is_wanted = is_denser(codec, device.compress)
            if is_wanted and passes.is_due(device, time.monotonic(), after):
                return self.piece(device, passes)
        return IDLE_SECONDS

    def by_turn(self, after: float) -> list[tuple[Device, Passes]]:
        def turn(one: tuple[Device, Passes]) -> tuple[bool, float]:
            passes = one[1]
            return passes.next_page is None, passes.next_pass(after)

        return sorted(self.passes.items(), key=turn)

    def passes_of(self, device: Device, codec: str) -> Passes:
        """Begun anew when the codec has changed."""
        found = self.passes.get(device)
        return found if found is not None and found.codec == codec else Passes(codec)

    def piece(self, device: Device, passes: Passes) -> float:
        try:
            worked, took = passes.go_on(device)
        except OSError:
            return IDLE_SECONDS  # it is being removed
        if passes.next_page == device.pages:
            passes.end(time.monotonic())
            self.is_to_pack = passes.recompressed > 0
        return self.pace.after(worked, took)

    def pack(self) -> float:
        """The slots that the pages have left are between those of others."""
        worked, took = time.thread_time_ns(), time.monotonic_ns()
        self.is_to_pack = self.host.pack()
        return self.pace.after(time.thread_time_ns() - worked, time.monotonic_ns() - took)
