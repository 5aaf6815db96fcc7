# SPDX-License-Identifier: BSD-3-Clause
from typing_extensions import Buffer

HEAD_BYTES: int

def bound(raw: int) -> int:
    """The longest payload that so many bytes are packed to."""

class Packer:
    """Makes the blocks of one save, in order; each has a checksum over itself and all before it.

    `prefix`: what stands before the first one.  MemoryError.
    """

    def __init__(self, prefix: Buffer) -> None: ...
    def plain(self, kind: int, payload: Buffer) -> bytes:
        """A block whose payload, of one byte at least, is not packed."""

    def packed(self, kind: int, first: int, raw: Buffer, room: Buffer) -> int:
        """Makes one in `room`, of HEAD_BYTES and bound() bytes: its length."""

    def stored(self, kind: int, first: int, raw: int, room: Buffer, length: int) -> int:
        """Makes one whose payload stands in `room` already, HEAD_BYTES behind its start."""

class Unpacker:
    """Checks the blocks of one save, in order, and unpacks them.  MemoryError."""

    def __init__(self, prefix: Buffer) -> None: ...
    def follows(self, head: Buffer, payload: Buffer) -> bool:
        """Whether it is whole, and the one that comes next."""

    def unpack(self, payload: Buffer, to: Buffer) -> None:
        """All of `to`; ValueError where that is not what was packed."""
