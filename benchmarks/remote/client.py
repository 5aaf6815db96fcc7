# SPDX-License-Identifier: BSD-3-Clause
"""Reads of an NBD client, fio, that has 16 of them under way."""

import tempfile
import threading
import time
from pathlib import Path

from benchmarks import load
from benchmarks.load import Load
from benchmarks.remote.faults import Seen
from benchmarks.remote.swapped import Swapped

DEPTH = 16
JOB = Load("reads", "randread", "--bs=4k --norandommap", DEPTH)
POLL_SECONDS = 0.01


class Client:
    """Reads for so many seconds."""

    def __init__(self, swapped: Swapped, seconds: float) -> None:
        self.swapped = swapped
        self.seconds = seconds

    def fill(self) -> None:
        self.swapped.fill()

    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="preswapd-bench-")
        log = (f"--write_lat_log={self.folder.name}/reads", "--log_unix_epoch=1")
        disk = ["--ioengine=nbd", f"--uri={self.swapped.serving.uri}", *log]
        self.reading = threading.Thread(
            target=load.fio_on, args=(disk, JOB, self.seconds, str(self.swapped.size)), daemon=True
        )
        reads = self.swapped.reads
        self.reading.start()
        while self.swapped.reads == reads:
            time.sleep(POLL_SECONDS)

    def end(self) -> list[Seen]:
        self.reading.join()
        with self.folder as folder:
            lines = (Path(folder) / "reads_lat.1.log").read_text().splitlines()
        return list(map(parsed, lines))


def parsed(line: str) -> Seen:
    """A line of fio's log: when it ended, in ms, how long it took, in ns."""
    ended, took = line.split(",")[:2]
    return Seen(int(ended) / 1000 - int(took) / 1e9, int(took) / 1000)
