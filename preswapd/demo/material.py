# SPDX-License-Identifier: BSD-3-Clause
"""Real data of this host for the guest to work on, as a disk that the guest reads."""

import hashlib
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from preswapd.demo.checks import DemoError

MIB = 1 << 20
STDLIB = sysconfig.get_path("stdlib")
# Python's modules, then programs and libraries of machine code, which compress less.
PROGRAMS = (STDLIB, "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/bin")
# Prose and sources.
TEXTS = (STDLIB, "/usr/include", "/usr/share/perl")
TEXT_SUFFIXES = {".py", ".h", ".hpp", ".pm", ".pl", ".pod", ".txt"}


@dataclass(frozen=True)
class Material:
    """First the files' data, then the text; both in whole MiB."""

    files: bytes
    text: bytes

    @property
    def file_sums(self) -> list[str]:
        """SHA-256 of each MiB of the files' data."""
        return [
            hashlib.sha256(self.files[at : at + MIB]).hexdigest()
            for at in range(0, len(self.files), MIB)
        ]

    def write(self, path: Path) -> None:
        with path.open("wb") as disk:
            disk.write(self.files)
            disk.write(self.text)


def gather(files_mib: int, text_mib: int) -> Material:
    return Material(
        taken(below(PROGRAMS), files_mib * MIB), taken(texts(below(TEXTS)), text_mib * MIB)
    )


def below(folders: Iterable[str]) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in sorted(Path(folder).rglob("*")) if not path.is_symlink())


def texts(paths: Iterable[Path]) -> Iterator[Path]:
    return (path for path in paths if path.suffix in TEXT_SUFFIXES)


def taken(paths: Iterable[Path], size: int) -> bytes:
    """The first `size` bytes of the files; where there is less, the same again."""
    data = bytearray()
    for path in paths:
        if len(data) >= size:
            break
        with suppress(OSError):
            if path.is_file():
                data += path.read_bytes()
    if not data:
        raise DemoError("found no files on this host to work on")
    return bytes(data * (size // len(data) + 1))[:size]
