# SPDX-License-Identifier: BSD-3-Clause
from mmap import mmap

from preswapd.api.figures import Latency

KEY_BYTES: int
DIGEST_BYTES: int
SUM_BYTES: int
Buffer = bytes | bytearray | memoryview | mmap

class Remote:
    """The copies of pages that a store beside this host has, of all devices of an instance.

    Its session is drawn at random: what an earlier one has sealed does not open in this one.
    It speaks to the store through a courier, a process at the other end of a socket.  Without one,
    and with one that is hung, reads find nothing here and nothing is set.  From any thread.
    """

    enabled: bool
    def __init__(self, key: bytes, timeout_ms: float, max_bytes: int, ttl_s: int) -> None:
        """key: KEY_BYTES bytes, the instance's.  max_bytes: of values that the store may have, 0:
        any.  ttl_s: how long it keeps them.  ValueError."""

    def handle(self) -> object:
        """For the layer above, which keeps this object alive meanwhile."""

    def connect(self, fd: int) -> None:
        """A new courier, at the other end of this socket, which is closed by disconnect().
        ValueError: there is one already."""

    def disconnect(self) -> None:
        """The courier is given up, and serve() returns; nothing where there is none."""

    @property
    def connected(self) -> bool:
        """A courier is there, and it has done nothing wrong."""

    def serve(self) -> str:
        """Takes what the courier answers, until it is gone: why.  In a thread of its own."""

    def set_timeout(self, timeout_ms: float) -> None: ...
    def set_max(self, max_bytes: int) -> None: ...
    def figures(self) -> dict[str, int]:
        """Counters since the start, the gauges remote_pages and remote_bytes, and remote_open: 1
        while nothing is asked, as reads in a row got no answer in time, or all nodes are away."""

    def latency(self) -> Latency:
        """How long what was asked for took, as of other requests."""

    def status(self) -> bytes:
        """What the courier last said of the store, JSON; empty: nothing yet."""

    @property
    def heard(self) -> int:
        """How often it has said that."""

    def tick(self) -> None:
        """Once a second: what is too old, or too much, is forgotten and deleted in the store."""

class Share:
    """The pages of one image, which every host has that has the image and the key.

    What has the digest never changes, so they have no versions: a page is named by its number, and
    named, sealed and opened with keys that are drawn from the key and the digest.
    """

    digest: bytes
    def __init__(self, remote: Remote, key: bytes, digest: bytes, sums: int, sums_at: int) -> None:
        """key: KEY_BYTES bytes, the same on all hosts.  digest: DIGEST_BYTES bytes, the file's
        SHA-256.  sums: a descriptor, its own from then on, of a file that has the sums of all
        pages from sums_at on.  ValueError, and the descriptor is the caller's."""

    def handle(self) -> object:
        """For the layer above, which keeps this object alive meanwhile."""

def page_sums(pages: Buffer) -> bytes:
    """The sum of each page, SUM_BYTES bytes.  Without the interpreter lock."""

class Digest:
    """SHA-256 of what comes in pieces."""

    def update(self, data: Buffer) -> None:
        """Without the interpreter lock."""

    def finish(self) -> bytes:
        """Once."""
