# SPDX-License-Identifier: BSD-3-Clause
"""Programs of this host with the shared libraries that they need, to be copied into a guest."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from preswapd.guest.faults import SetupError

LDD_SECONDS = 20
# "libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x…)" and "/lib64/ld-linux-x86-64.so.2 (0x…)".
LIBRARY = re.compile(r"(/\S+) \(0x[0-9a-f]+\)$", re.M)


def find(name: str, package: str) -> Path:
    """The program on this host; SetupError names the package that has it."""
    # An ordinary user's PATH has no sbin.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        raise SetupError(f"{name} is not installed: install Debian's package {package}")
    return Path(path)


def static_busybox() -> Path:
    """The guest's user space; Debian's busybox-static and busybox have the same file name."""
    path = find("busybox", "busybox-static")
    if libraries(path):
        raise SetupError(f"{path} is not static: install Debian's package busybox-static")
    return path


def libraries(program: Path) -> list[Path]:
    """The shared libraries of a program and its loader; none for a static one."""
    done = subprocess.run(
        ["ldd", str(program)],
        capture_output=True,
        text=True,
        timeout=LDD_SECONDS,
        check=False,
    )
    if "not found" in done.stdout:
        raise SetupError(f"{program} lacks a library: {done.stdout.strip()}")
    return [Path(path) for path in LIBRARY.findall(done.stdout)]


def with_libraries(programs: Iterable[Path]) -> Iterator[Path]:
    """Each file to copy once, under the path by which it is looked for."""
    wanted = dict.fromkeys(programs)
    for program in tuple(wanted):
        wanted.update(dict.fromkeys(libraries(program)))
    yield from wanted
