# SPDX-License-Identifier: BSD-3-Clause
"""Pages of real programs, as a guest would swap them: one file of them, and what is in it.

python -m benchmarks.capture [--out FILE] [--size SIZE]

The anonymous memory of each program in `programs` is read while it lives: pages that are present
and belong to no file, evenly picked where there are more than wanted.  Beside FILE a JSON file
with the same name says how many pages of which program it holds, one program after the other.
"""

import argparse
import json
import os
import re
import signal
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.programs import PROGRAMS, Program
from benchmarks.sections import Progress
from benchmarks.servers import DISKS
from preswapd.guest.faults import GuestError
from preswapd.units import PAGE_SIZE, parse_size

FILE = DISKS / "pages.bin"
SIZE = 144 << 20
# A program is given some more memory than is taken from it, and not all of that is anonymous.
GENEROUS = 1.4
# A line of /proc/PID/maps: "7f00-7f40 rw-p 00000000 00:00 0    [heap]".
LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ *(.*)")
# The kernel's own, which are mapped into every process.
SPECIAL = {"[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]"}
# Of a page's eight bytes in /proc/PID/pagemap.
PRESENT, OF_A_FILE = 1 << 63, 1 << 61


@dataclass(frozen=True)
class Range:
    """Addresses of a private mapping."""

    start: int
    end: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--size", type=parse_size, default=SIZE, help="of FILE, at most")
    arguments = parser.parse_args()
    contents = capture(arguments.out, arguments.size, lambda text: print(text, file=sys.stderr))
    print(json.dumps(contents, indent=1))


def captured(quick: bool, progress: Progress) -> tuple[Path, dict[str, Any]]:
    """The file from an earlier run or a new one, and its contents."""
    path = FILE.with_stem("pages-quick") if quick else FILE
    beside = path.with_suffix(".json")
    if path.exists() and beside.exists():
        return path, json.loads(beside.read_text())
    return path, capture(path, SIZE // 16 if quick else SIZE, progress)


def capture(path: Path, size: int, progress: Progress) -> dict[str, Any]:
    """Writes both files; what the JSON file holds: pages by program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    share = size // PAGE_SIZE // len(PROGRAMS)
    pages: dict[str, int] = {}
    missing: dict[str, str] = {}
    with path.open("wb") as file:
        for name, program in PROGRAMS.items():
            progress(f"reading the memory of {name}")
            try:
                found = memory_of(program, share)
            except (GuestError, OSError) as error:
                missing[name] = str(error)
                continue
            file.write(found)
            pages[name] = len(found) // PAGE_SIZE
    if not pages:
        raise GuestError(f"no program's memory could be read: {missing}")
    contents = {"pages": sum(pages.values()), "programs": pages, "missing": missing}
    path.with_suffix(".json").write_text(json.dumps(contents, indent=1) + "\n")
    return contents


def memory_of(program: Program, share: int) -> bytes:
    """So many pages of a program that has just been started for this."""
    with program(int(GENEROUS * share * PAGE_SIZE)) as pid:
        os.kill(pid, signal.SIGSTOP)
        # It is ended by signal 9, which stopped processes obey too.
        return read(pid, picked(list(anonymous_pages(pid)), share))


def private_ranges(maps: str) -> Iterator[Range]:
    """What of a process's address space can hold anonymous pages of its own."""
    for line in maps.splitlines():
        match = LINE.fullmatch(line)
        if match and match[3].endswith("p") and match[4] not in SPECIAL:
            yield Range(int(match[1], 16), int(match[2], 16))


def anonymous_pages(pid: int) -> Iterator[int]:
    """Addresses of the pages that are in memory and that no file has."""
    ranges = list(private_ranges(Path(f"/proc/{pid}/maps").read_text()))
    with open(f"/proc/{pid}/pagemap", "rb") as pagemap:
        for one in ranges:
            pagemap.seek(one.start // PAGE_SIZE * 8)
            entries = pagemap.read((one.end - one.start) // PAGE_SIZE * 8)
            for number in present(entries):
                yield one.start + number * PAGE_SIZE


def present(entries: bytes) -> Iterator[int]:
    """Which of the pages that these bytes of a pagemap describe are there and anonymous."""
    for number, (entry,) in enumerate(struct.iter_unpack("=Q", entries)):
        if entry & PRESENT and not entry & OF_A_FILE:
            yield number


def picked(addresses: list[int], share: int) -> list[int]:
    """So many of them, evenly spaced."""
    if len(addresses) <= share:
        return addresses
    return [addresses[number * len(addresses) // share] for number in range(share)]


def read(pid: int, addresses: list[int]) -> bytes:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        return b"".join(os.pread(memory.fileno(), PAGE_SIZE, address) for address in addresses)


if __name__ == "__main__":
    main()
