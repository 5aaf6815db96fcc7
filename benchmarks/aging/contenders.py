# SPDX-License-Identifier: BSD-3-Clause
"""Who has too little memory: preswapd, preswapd as it was at first, and a plain file on a disk."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.servers import Server, preswapd, qemu_nbd

OURS = "preswapd"
FIRST = "first version"
FILE = "plain file"
# The first version rejected what came when its pool was full; nothing left it by itself.
NO_ROOM = "--writeback-room=off"


@dataclass(frozen=True)
class Contender:
    """`options` of `preswapd serve`; None: no preswapd at all."""

    name: str
    options: Sequence[str] | None

    def server(self, pool: int, size: int) -> Server:
        """With a pool and a disk of so many bytes."""
        if self.options is None:
            # Past the page cache: the others have no more memory than their pool either.
            options = ("--cache=none", "--aio=native")
            return replace(qemu_nbd(self.name, "{disk}/disk", *options), size=str(size))
        return preswapd("lz4", str(pool), str(size), options=self.options)


def contenders_with(options: Sequence[str]) -> list[Contender]:
    """`options`: further ones, for preswapd in both forms."""
    return [
        Contender(OURS, options),
        Contender(FIRST, (*options, NO_ROOM)),
        Contender(FILE, None),
    ]
