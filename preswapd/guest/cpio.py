# SPDX-License-Identifier: BSD-3-Clause
"""An archive in the newc format, as the kernel unpacks it: no root, no device nodes on the host."""

import stat
from pathlib import PurePosixPath

HEADER = "070701" + "{:08X}" * 13
TRAILER = "TRAILER!!!"


class Archive:
    """Files by their path in the guest; directories on the way come into being by themselves."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._known: set[PurePosixPath] = {PurePosixPath(".")}

    def directory(self, path: str) -> None:
        self._directory(relative(path))

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self._entry(relative(path), stat.S_IFREG | mode, content)

    def link(self, path: str, target: str) -> None:
        self._entry(relative(path), stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int) -> None:
        self._entry(relative(path), stat.S_IFCHR | 0o600, b"", (major, minor))

    def __contains__(self, path: str) -> bool:
        return relative(path) in self._known

    def to_bytes(self) -> bytes:
        return b"".join([*self._parts, record(TRAILER, 0, 0, b"", (0, 0))])

    def _directory(self, path: PurePosixPath) -> None:
        if path not in self._known:
            self._entry(path, stat.S_IFDIR | 0o755, b"")

    def _entry(
        self, path: PurePosixPath, mode: int, content: bytes, device: tuple[int, int] = (0, 0)
    ) -> None:
        self._directory(path.parent)
        self._known.add(path)
        self._parts.append(record(str(path), len(self._known), mode, content, device))


def relative(path: str) -> PurePosixPath:
    return PurePosixPath(path.lstrip("/"))


def record(name: str, inode: int, mode: int, content: bytes, device: tuple[int, int]) -> bytes:
    encoded = name.encode() + b"\0"
    header = HEADER.format(
        inode,
        mode,
        0,  # owner: root
        0,  # group
        2 if stat.S_ISDIR(mode) else 1,  # links
        0,  # time
        len(content),
        0,  # of the file system that it came from
        0,
        *device,
        len(encoded),
        0,  # checksum, which this variant does not have
    )
    return padded(header.encode() + encoded) + padded(content)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
