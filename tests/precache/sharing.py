# SPDX-License-Identifier: BSD-3-Clause
"""Hosts that share an image: each with a file, a pool and a courier of its own, in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preswapd.precache.digests import Digests
from preswapd.precache.sharing import Sharing
from preswapd.remote._remote import KEY_BYTES, Remote
from tests.precache.running import Shown, shown
from tests.remote.played import Played, Store
from tests.running import wait_for

KEY = bytes(range(KEY_BYTES))
# Nothing is late on a busy machine, unless a test wants it.
TIMEOUT_MS = 10_000.0


@dataclass
class SharingHost:
    image: Shown
    courier: Played
    digests: Digests

    @property
    def stats(self) -> dict[str, Any]:
        return self.image.stats

    def share(self) -> None:
        """Its digest was kept, or is computed now."""
        if not self.stats["shared"]:
            self.digests.work()
            self.image.watched.look()
        assert self.stats["shared"]

    def settle_sets(self) -> None:
        """All that it has set is in the store."""
        remote = self.courier.remote
        wait_for(lambda: remote.figures()["remote_sets"], lambda n: n == self.stats["remote_sets"])


def digests_in(folder: Path, log: list[str], **said: Any) -> Digests:
    """At any rate, if nothing else is said."""
    said = {"pause": lambda seconds: None, **said}
    return Digests(
        lambda name: folder / f"{name}.sums", lambda priority, text: log.append(text), **said
    )


@contextmanager
def sharing_host(
    path: Path,
    store: Store,
    key: bytes = KEY,
    timeout_ms: float = TIMEOUT_MS,
    is_shared: bool = True,
    **said: Any,
) -> Iterator[SharingHost]:
    """It keeps its digests beside the file."""
    remote = Remote(bytes(KEY_BYTES), timeout_ms, 0, 3600)
    digests = digests_in(path.parent, [])
    sharing = Sharing(remote, key, digests)
    with Played(remote, store) as courier, shown(path, sharing=sharing, **said) as image:
        host = SharingHost(image, courier, digests)
        if is_shared:
            host.share()
        yield host
