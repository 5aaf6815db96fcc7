# SPDX-License-Identifier: BSD-3-Clause
"""What the governor sees: the host's memory, and what each instance says of its pool.

Instances come and go, hang and refuse.  Each is asked in a thread of its own, and who has not
answered in time is not there this time; the others are governed.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from preswapd.api.client import Client
from preswapd.api.settings import GOVERNED_LIMIT, POOL_LIMIT
from preswapd.api.wire import NotKeptError
from preswapd.errors import PreswapError, RefusedError
from preswapd.govern.shares import IDLE_SECONDS, WANTS, Pool
from preswapd.host.meminfo import MEMINFO, ZONEINFO, available_memory, listed_memory
from preswapd.host.pressure import PRESSURE, stalled_seconds
from preswapd.paths import RuntimePaths

# So long a look waits for an answer: 32 servers on a loaded machine take a tenth of that.
ANSWER_SECONDS = 0.5
# An only look has longer, as no other one follows it: at a load of 10 a server was late for that.
LONE_ANSWER_SECONDS = 4.0
# After that an instance that hangs is asked anew.
PATIENCE_SECONDS = 5.0
# How much nobody has used for long is asked rarely.
AGES_SECONDS = 30.0
MOST_AT_ONCE = 64


class Host:
    """What it could give to programs, and the share of the time since the last look in which one
    of them waited for memory."""

    def __init__(
        self, meminfo: Path = MEMINFO, pressure: Path = PRESSURE, zoneinfo: Path = ZONEINFO
    ) -> None:
        self.meminfo = meminfo
        self.zoneinfo = zoneinfo
        self.pressure_file = pressure
        self.before: tuple[float, float] | None = None

    def available(self) -> int:
        """MemAvailable, and what was freed so late that it is not counted there yet: without that
        the pools would be taken for less than they have given."""
        found = available_memory(self.meminfo)
        if found is None:
            raise RefusedError(f"{self.meminfo} does not say how much memory is available")
        return found + listed_memory(self.zoneinfo)

    def pressure(self, now: float) -> float | None:
        """Percent; None where the kernel does not say, and at the first look."""
        stalled = stalled_seconds(self.pressure_file)
        before, self.before = self.before, None if stalled is None else (now, stalled)
        if before is None or stalled is None or now <= before[0]:
            return None
        return 100 * max(0.0, stalled - before[1]) / (now - before[0])


class Answer(NamedTuple):
    """What one instance has said."""

    name: str
    pool: Pool
    puts: int
    available: int  # memory of the host, at the same moment


class Instance:
    """One of those that were found, and what is remembered of it from look to look."""

    def __init__(self, runtime_dir: Path) -> None:
        self.runtime_dir = runtime_dir
        self.client = Client(RuntimePaths(runtime_dir).control_socket, PATIENCE_SECONDS)
        self.name = runtime_dir.name
        self.answer: Answer | None = None  # None: it is not governed now
        self.away = "it was not asked yet"  # why not
        self.task: Future[Answer | None] | None = None
        self.idle = 0
        self.next_ages = 0.0

    @property
    def pool(self) -> Pool | None:
        return None if self.answer is None else self.answer.pool

    # --- in a thread of its own ---

    def ask(self, memory: Callable[[], int]) -> Answer:
        stats, available = self.client.stats(), memory()
        name, tmem, settings = stats["instance"], stats["tmem"], stats.get("sysctl", {})
        pool_limit = settings.get(POOL_LIMIT.sysctl_key(name))
        governed = settings.get(GOVERNED_LIMIT.sysctl_key(name))
        if not isinstance(pool_limit, int) or governed is None:
            raise RefusedError(
                f"{name} runs an older preswapd and cannot be governed: restart it, which loses no"
                " page"
            )
        used, limit, before = tmem["mem_used_total"], tmem["mem_limit"], self.answer
        wants = before is not None and tmem["puts"] > before.puts and used >= WANTS * limit
        pool = Pool(
            used,
            self.idle_bytes(),
            pool_limit,
            governed if isinstance(governed, int) else None,
            wants,
            not stats["devices"] and bool(stats.get("images") or stats.get("refused_images")),
            tmem.get("ephemeral_bytes", 0),
        )
        return Answer(name, pool, tmem["puts"], available)

    def idle_bytes(self) -> int:
        """Servers of earlier releases do not know: nothing counts as idle then."""
        now = time.monotonic()
        if now >= self.next_ages:
            self.next_ages = now + AGES_SECONDS
            try:
                self.idle = sum(age.bytes for age in self.client.ages(None, [IDLE_SECONDS]))
            except PreswapError:
                self.idle = 0
        return self.idle

    def govern(self, limit: int | str) -> None:
        # In force also where it is not kept for a restart: it is set again then.
        with suppress(NotKeptError):
            self.client.set(GOVERNED_LIMIT.sysctl_key(self.name), str(limit))


class Instances:
    """Those with a control socket below the directory."""

    def __init__(
        self, root: Path, memory: Callable[[], int], *, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self.root = root
        self.memory = memory
        self.answer_seconds = answer_seconds
        self.known: dict[Path, Instance] = {}
        self.threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="ask")

    def look(self) -> dict[str, Instance]:
        """Those that have answered, by name."""
        self.find()
        # One that hangs is still being asked, and is not waited for again.
        hanging = [one for one in self.known.values() if one.task is not None]
        asked = [one for one in self.known.values() if one.task is None]
        for instance in asked:
            instance.task = self.threads.submit(instance.ask, self.memory)
        self.collect(asked, self.answer_seconds)
        self.collect(hanging, 0)
        found: dict[str, Instance] = {}
        for instance in self.known.values():
            if (
                instance.answer is not None
                and found.setdefault(instance.name, instance) is not instance
            ):
                instance.answer, instance.away = None, "another instance has the same name"
        return found

    def find(self) -> None:
        """What is no longer there is forgotten."""
        try:
            found = sorted(path for path in self.root.iterdir() if is_there(path))
        except OSError:
            found = []
        self.known = {path: self.known.get(path) or Instance(path) for path in found}

    def collect(self, those: Iterable[Instance], seconds: float) -> None:
        asked = {instance.task: instance for instance in those if instance.task is not None}
        wait(asked, seconds)
        for task, instance in asked.items():
            if not task.done():
                instance.answer, instance.away = None, "it does not answer in time"
                continue
            instance.task = None
            try:
                answer = task.result()
            except PreswapError as error:
                instance.answer, instance.away = None, str(error)
            except Exception as error:
                instance.answer, instance.away = None, f"its answer is not understood: {error!r}"
            else:
                if answer is not None:
                    instance.answer, instance.name, instance.away = answer, answer.name, ""

    def govern(self, limits: Mapping[str, int | str], found: Mapping[str, Instance]) -> list[str]:
        """Sets them, all at once; a complaint for each that has not taken its limit."""
        those = [found[name] for name in limits]
        for instance in those:
            instance.task = self.threads.submit(instance.govern, limits[instance.name])
        self.collect(those, self.answer_seconds)
        return [f"{one.name}: {one.away}" for one in those if one.away]

    def absent(self) -> dict[str, str]:
        """Those that are there and not governed, and why."""
        return {one.name: one.away for one in self.known.values() if one.answer is None}


def is_there(runtime_dir: Path) -> bool:
    return RuntimePaths(runtime_dir).control_socket.is_socket()
