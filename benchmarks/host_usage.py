# SPDX-License-Identifier: BSD-3-Clause
"""What processes and the disk of this host have used, read from /proc and /sys."""

import ctypes
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from preswapd.host.meminfo import amounts

SECTOR = 512
SAMPLE_SECONDS = 0.2
# Names of threads; the kernel keeps 15 bytes.
UPKEEP = ("writeback", "recompression")


def cpu_seconds(pid: int, *, with_children: bool = False) -> float:
    """User and system time of all threads of a process, and of children that it has waited for."""
    # The name in brackets may hold blanks; the 14th and 15th word of the line are the process's
    # own time, the two behind them its children's.
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    times = words[11:15] if with_children else words[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def memory_of(pid: int) -> dict[str, int]:
    """Bytes, by the names of /proc/PID/status."""
    return amounts(Path(f"/proc/{pid}/status").read_text())


def resident(pid: int) -> int:
    """Bytes of memory that a process has mapped, without shared memory."""
    found = memory_of(pid)
    return found["RssAnon"] + found["RssFile"]


def private_bytes(pid: int) -> int:
    """Memory that would be free without this process."""
    found = amounts(Path(f"/proc/{pid}/smaps_rollup").read_text().partition("\n")[2])
    return found["Private_Clean"] + found["Private_Dirty"]


def of_threads(pid: int, name: str) -> Iterator[tuple[Path, str]]:
    """Each thread's folder, and this file in it; one that ends meanwhile is left out."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            yield thread, (thread / name).read_text()


def run_seconds(pid: int) -> float:
    """As cpu_seconds(), to the nanosecond, of the threads that there are."""
    return sum(int(text.split()[0]) for _, text in of_threads(pid, "schedstat")) / 1e9


def upkeep_seconds(pid: int) -> float:
    """The same, of what a server of ours does by itself: it writes back, and compresses again."""
    keepers = {thread for thread, name in of_threads(pid, "comm") if name.strip() in UPKEEP}
    schedules = of_threads(pid, "schedstat")
    return sum(int(text.split()[0]) for thread, text in schedules if thread in keepers) / 1e9


def wakeups(pid: int) -> int:
    """How often its threads have waited for something."""
    return sum(number_in(text, "voluntary_ctxt_switches") for _, text in of_threads(pid, "status"))


def number_in(text: str, name: str) -> int:
    lines = text.splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def disk_bytes(folder: Path) -> tuple[int, int] | None:
    """Bytes read from and written to the disk below a folder since the host's start.

    By whomever: a page cache writes when its process has long gone on.  None where the file system
    lies on no single block device.
    """
    device = os.stat(folder).st_dev
    counters = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    if not counters.exists():
        return None
    words = counters.read_text().split()
    return int(words[2]) * SECTOR, int(words[6]) * SECTOR


def written_by(pid: int) -> int | None:
    """Bytes that a process has sent to disks, or has left to the page cache to send.

    None where the kernel does not tell, or not us.
    """
    try:
        return amounts_in(Path(f"/proc/{pid}/io").read_text())["write_bytes"]
    except (OSError, KeyError):
        return None


def amounts_in(text: str) -> dict[str, int]:
    """Lines of a name, a colon and a number."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: int(value) for name, _, value in pairs}


class Peak:
    """The largest amounts of memory while the `with` block lasts, looked at five times a second.

    `parts` are the peaks of each amount, `total` is the peak of their sum.
    """

    def __init__(self, reading: Callable[[], Sequence[int]]) -> None:
        self.parts: list[int] = []
        self.total = 0
        self._reading = reading
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self._look()

    def _look(self) -> None:
        # A process that has ended is noticed by whoever talks to it.
        with suppress(OSError, KeyError):
            now = self._reading()
            self.parts = [max(pair) for pair in zip(self.parts or now, now, strict=True)]
            self.total = max(self.total, sum(now))


def read_by(pid: int) -> int:
    """Bytes that a process has had disks read, itself or through the page cache."""
    return amounts_in(Path(f"/proc/{pid}/io").read_text())["read_bytes"]


def in_page_cache(path: Path) -> int:
    """Bytes of a file that the host keeps in memory."""
    size = path.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    found = (ctypes.c_ubyte * pages)()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    with path.open("rb") as file:
        where = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    if where in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    try:
        if libc.mincore(where, size, found):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    finally:
        libc.munmap(where, size)
    return sum(one & 1 for one in found) * mmap.PAGESIZE


def drop_from_page_cache(path: Path) -> None:
    """A file that nobody has mapped or is writing to."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
