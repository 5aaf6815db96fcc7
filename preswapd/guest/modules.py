# SPDX-License-Identifier: BSD-3-Clause
"""Kernel modules in the order in which they load, read from the modules themselves.

depmod writes modules.dep when a kernel is installed; ours is only unpacked.
"""

import lzma
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from preswapd.guest.faults import SetupError
from preswapd.guest.programs import find

DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
# As Debian's kernels have them, and Ubuntu's.
SUFFIXES = (".ko", ".ko.xz", ".ko.zst")
ZSTD_SECONDS = 20


class ModuleTree:
    """A folder like /lib/modules/VERSION."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths = {
            module_name(path): path
            for path in folder.rglob("*.ko*")
            if path.name.endswith(SUFFIXES)
        }
        listed = folder / "modules.builtin"
        lines = listed.read_text().splitlines() if listed.exists() else []
        self._builtin = {module_name(Path(line)) for line in lines}

    def load_order(self, names: Iterable[str]) -> list[tuple[str, bytes]]:
        """Name and content of each module that must be loaded, what it needs before it."""
        found: dict[str, bytes] = {}
        for name in names:
            found.update(self._with_needs(name, frozenset(found)))
        return list(found.items())

    def _with_needs(self, name: str, known: frozenset[str]) -> Iterator[tuple[str, bytes]]:
        if name in known or name in self._builtin:
            return
        content = self._read(name)
        for needed in needs(content):
            yield from self._with_needs(needed, known)
        yield name, content

    def _read(self, name: str) -> bytes:
        path = self._paths.get(name)
        if path is None:
            raise SetupError(f"the kernel modules in {self.folder} lack {name}")
        return content_of(path)


def content_of(path: Path) -> bytes:
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    # Python has zstd from 3.14 on.
    if path.suffix == ".zst":
        unpacking = [str(find("zstd", "zstd")), "-qdc", str(path)]
        done = subprocess.run(unpacking, capture_output=True, timeout=ZSTD_SECONDS, check=False)
        if done.returncode:
            raise SetupError(
                f"cannot unpack {path}: {done.stderr.decode(errors='replace').strip()}"
            )
        return done.stdout
    return path.read_bytes()


def module_name(path: Path) -> str:
    """Files are called with '-' or '_', dependencies with '_' only."""
    return path.name.split(".", 1)[0].replace("-", "_")


def needs(content: bytes) -> list[str]:
    """What a module says of itself in its .modinfo section."""
    match = DEPENDS.search(content)
    return (
        [name.replace("-", "_") for name in match[1].decode().split(",") if name] if match else []
    )
