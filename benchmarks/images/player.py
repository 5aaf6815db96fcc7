# SPDX-License-Identifier: BSD-3-Clause
"""A client that boots: it plays the recorded reads, with the thinking in between, and checks them.

    python -m benchmarks.images.player SPEED DISK

DISK is `nbd:URI`, `cached:FILE` or `direct:FILE`, the last two without a server as QEMU opens a
file. For each line on standard input the recording is played once, and a line of JSON says how that
went. Exit status 1: a page was wrong, or the disk failed.
"""

import json
import mmap
import os
import queue
import select
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

import nbd

from benchmarks.images.recording import WORD, Read, Recording, recorded
from preswapd.units import PAGE_SIZE

# More than a recording has under way at once.
MOST = 64
LONGEST = 8 << 20


class Disk(Protocol):
    def send(self, read: Read) -> None: ...

    def answered(self, seconds: float | None) -> list[tuple[Read, memoryview]]:
        """What was answered; waits so long for the first, None: as long as it takes."""
        ...


class NbdDisk:
    def __init__(self, uri: str) -> None:
        self._handle = nbd.NBD()
        self._handle.connect_uri(uri)
        self._sent: dict[int, tuple[Read, Any]] = {}
        self._socket = select.poll()

    def send(self, read: Read) -> None:
        buffer = nbd.Buffer(read.length)
        self._sent[self._handle.aio_pread(buffer, read.offset)] = (read, buffer)

    def answered(self, seconds: float | None) -> list[tuple[Read, memoryview]]:
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            done = [cookie for cookie in self._sent if self._handle.aio_command_completed(cookie)]
            left = None if deadline is None else deadline - time.monotonic()
            if done or (left is not None and left <= 0):
                break
            self._look(left)
        found = [self._sent.pop(cookie) for cookie in done]
        return [(read, memoryview(buffer.to_bytearray())) for read, buffer in found]

    def _look(self, seconds: float | None) -> None:
        way = self._handle.aio_get_direction()
        reading = [self._handle.aio_get_fd()] if way & nbd.AIO_DIRECTION_READ else []
        writing = [self._handle.aio_get_fd()] if way & nbd.AIO_DIRECTION_WRITE else []
        readable, writable, _ = select.select(reading, writing, [], seconds)
        if readable:
            self._handle.aio_notify_read()
        elif writable:
            self._handle.aio_notify_write()


class FileDisk:
    """A thread for each read that is under way."""

    def __init__(self, path: str, flags: int) -> None:
        self._file = os.open(path, os.O_RDONLY | flags)
        self._wanted: queue.SimpleQueue[Read] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Read, memoryview | OSError]] = queue.SimpleQueue()
        for _ in range(MOST):
            threading.Thread(target=self._read, daemon=True).start()

    def send(self, read: Read) -> None:
        self._wanted.put(read)

    def answered(self, seconds: float | None) -> list[tuple[Read, memoryview]]:
        try:
            read, seen = self._done.get(timeout=seconds)
        except queue.Empty:
            return []
        if isinstance(seen, OSError):
            raise seen
        return [(read, seen)]

    def _read(self) -> None:
        # Aligned, as O_DIRECT needs it.
        buffer: mmap.mmap | None = None
        while True:
            read = self._wanted.get()
            if buffer is None or len(buffer) < read.length:
                buffer = mmap.mmap(-1, max(read.length, PAGE_SIZE))
            view = memoryview(buffer)[: read.length]
            try:
                if os.preadv(self._file, [view], read.offset) < read.length:
                    raise OSError(f"{read.length} bytes at {read.offset} end too soon")
                self._done.put((read, memoryview(bytes(view))))
            except OSError as error:
                self._done.put((read, error))


def opened(disk: str) -> Disk:
    kind, _, where = disk.partition(":")
    if kind == "nbd":
        return NbdDisk(where)
    return FileDisk(where, os.O_DIRECT if kind == "direct" else 0)


def play(disk: Disk, recording: Recording, speed: float) -> dict[str, float]:
    """Seconds of all of it, and a read's microseconds.

    A read is sent when no more are under way than there were, and after as long a time, divided by
    `speed`: who has to wait for the disk is late from then on, as a guest is.
    """
    sent: dict[Read, float] = {}
    taken: list[float] = []
    begun = last = time.monotonic()

    def look(seconds: float | None) -> None:
        nonlocal last
        for read, seen in disk.answered(seconds):
            last = time.monotonic()
            taken.append(last - sent.pop(read))
            check(recording, read, seen)

    for read in recording.reads:
        while len(sent) > read.others or read in sent:
            look(None)
        due = last + read.waited / 1e6 / speed
        while (left := due - time.monotonic()) > 0:
            if sent:
                look(left)
            else:
                time.sleep(left)
        last = sent[read] = time.monotonic()
        disk.send(read)
    while sent:
        look(None)
    return {
        "seconds": time.monotonic() - begun,
        "median": 1e6 * statistics.median(taken),
        "p99": 1e6 * sorted(taken)[len(taken) * 99 // 100],
        "waited": sum(taken),
    }


def check(recording: Recording, read: Read, seen: memoryview) -> None:
    """Each page that it begins with says which one it is; holes are zeros."""
    if len(seen) != read.length:
        raise ValueError(f"{len(seen)} bytes for {read.length} at {read.offset}")
    first = -(-read.offset // PAGE_SIZE)
    for page in range(first, (read.offset + read.length) // PAGE_SIZE):
        at = page * PAGE_SIZE - read.offset
        name = int.from_bytes(seen[at : at + WORD], "little")
        if name != (page if page in recording.sizes else 0):
            raise ValueError(f"page {page} is page {name}")


def main(arguments: Sequence[str]) -> None:
    speed, disk = float(arguments[0]), opened(arguments[1])
    recording = recorded()
    print("ready", flush=True)
    while sys.stdin.readline():
        print(json.dumps(play(disk, recording, speed)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
