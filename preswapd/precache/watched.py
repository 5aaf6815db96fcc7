# SPDX-License-Identifier: BSD-3-Clause
"""An image that is served: it is cached while its file stays what it is."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from preswapd.log import ERROR, NOTICE, WARNING, Log, Throttle
from preswapd.precache.image._image import Connection, Image
from preswapd.precache.image.identity import SETTLED_SECONDS, Identity
from preswapd.precache.opening import Opened, which
from preswapd.precache.settings import SECOND_READ, ImageSpec
from preswapd.tmem import SHARED, Host
from preswapd.units import PAGE_SIZE

if TYPE_CHECKING:
    from preswapd.precache.sharing import Sharing

# A look that finds requests in flight for so long tries again at the next one.
PARK_MILLISECONDS = 100


class Watched:
    """`look()` is for one thread, about once a second; requests look too (image.c)."""

    def __init__(
        self,
        host: Host,
        spec: ImageSpec,
        compress: str,
        opened: Opened,
        log: Log,
        sharing: "Sharing | None" = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = host
        self.spec = spec
        self.log = log
        self.sharing = sharing
        self.now = now
        self.clock = clock
        self.image = Image(
            host,
            name=spec.name,
            fd=opened.descriptor,
            size=opened.size,
            is_direct=opened.is_direct,
            is_writable=opened.is_writable,
            compress=spec.compress or compress,
            admission_window=self.admission_window() if spec.admit == SECOND_READ else 0,
        )
        self.which = which(opened.descriptor)
        self.seen: Identity | None = None
        self.seen_at = 0.0
        self.believed: Identity | None = None  # what is cached is of this
        self.digest: bytes | None = None  # of that, while its pages are shared
        self.is_told = False  # of a change, until it has settled
        self.is_replaced = False
        self.has_no_pool = False  # the arena's are all taken
        self.is_frozen = False
        self.evicted = self.evicted_by_itself = 0  # out of pools that it had before
        self.told_errors = 0
        self.errors, self.pools = Throttle(), Throttle()
        self.look()

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def path(self) -> Path:
        return self.spec.path

    def admission_window(self) -> int:
        """A page whose next read is further away would not stay cached until then."""
        return max(1, (self.spec.cache or self.host.limit) // PAGE_SIZE)

    def connect(self) -> Connection:
        return self.image.connect()

    @property
    def state(self) -> str:
        """Whether its pages are cached, and else why not."""
        if self.image.pool is not None:
            is_grown = self.seen is not None and self.seen.size > self.image.size
            known = "grown" if is_grown else "cached"
            return known if self.image.is_cached else "changed"
        if self.seen is not None and self.seen.size < self.image.size:
            return "shrunk"
        if self.has_no_pool:
            return "no pool"
        return "changed" if self.is_told else "not settled"

    # --- looking ---

    def look(self, frozen: bool = False) -> None:
        """Drops what is cached of a file that was changed, and caches what has settled."""
        if self.image.pool is not None and not self.image.is_cached:
            self.tell_change()
            self.drop()
        if self.image.pool is None and (settled := self.settled()) is not None:
            self.cache(settled)
        self.share()
        self.freeze(frozen)
        self.tell_replaced()
        self.tell_errors()

    def settled(self) -> Identity | None:
        """What the file is, if a change of it from now on will look different."""
        try:
            found = self.image.look()
        except OSError:
            return None
        if found != self.seen:
            self.seen, self.seen_at = found, self.clock()
        has_times = self.image.is_file and not self.image.is_writable
        is_old = not has_times or found.is_older(self.now())
        return found if is_old or self.clock() - self.seen_at >= SETTLED_SECONDS else None

    def cache(self, identity: Identity) -> None:
        if identity.size < self.image.size:
            return  # what it lacks is an I/O error, as long as that is so
        try:
            pool = self.host.new_pool(self.uuid(identity), SHARED)
        except OSError as error:
            self.has_no_pool = True
            if self.pools.passes():
                self.log(WARNING, f"{self.name} is not cached: {error.strerror}")
            return
        self.has_no_pool = False
        if self.spec.cache is not None:
            self.host.set_max_bytes(pool, self.spec.cache)
        if not self.exchange(pool, identity):
            self.host.destroy_pool(pool)
        elif self.is_told:
            self.is_told = False
            self.log(NOTICE, f"{self.name}: {self.path} is cached again")

    def uuid(self, identity: Identity) -> bytes:
        """Of what is written to nobody else ever has the pool: it is what its times do not say."""
        return os.urandom(16) if self.image.is_writable else identity.uuid(self.spec.cache)

    def drop(self) -> None:
        pool = self.image.pool
        if pool is None or self.seen is None or not self.exchange(None, self.seen):
            return
        self.is_frozen = False
        gone = self.host.pool_stats(pool)
        self.evicted += gone["evicted"]
        self.evicted_by_itself += gone["evicted_by_itself"]
        self.host.destroy_pool(pool)

    def exchange(self, pool: int | None, identity: Identity) -> bool:
        """No request may know a pool's number that is given away again."""
        try:
            parked = self.image.park(PARK_MILLISECONDS)
            if parked:
                self.image.believe(pool, identity)
                self.believed = None if pool is None else identity
                self.digest = None
            return parked
        finally:
            self.image.resume()

    def share(self) -> None:
        """With other hosts, once the digest is known of what is cached."""
        if self.sharing is None or self.believed is None or self.digest is not None:
            return
        share = self.sharing.of(self.path, self.image, self.believed)
        if share is not None:
            self.image.share(share)
            self.digest = share.digest
            self.log(NOTICE, f"{self.name}: its pages are shared as SHA-256 {self.digest.hex()}")

    def freeze(self, frozen: bool) -> None:
        if self.image.pool is not None and frozen != self.is_frozen:
            self.is_frozen = frozen
            self.host.freeze(self.image.pool, frozen)

    # --- telling ---

    def tell_change(self) -> None:
        if not self.is_told:
            self.is_told = True
            self.log(
                WARNING,
                f"{self.name}: {self.path} was changed: what was cached of it is dropped, and reads"
                " go to the file until it stays as it is",
            )

    def tell_replaced(self) -> None:
        replaced = self.image.is_file and which(self.path) != self.which
        if replaced and not self.is_replaced:
            also = f", and written to: {self.way_to_keep()}" if self.image.is_writable else ""
            self.log(
                WARNING,
                f"{self.name}: {self.path} is not the file any more that was opened, which is"
                f" served until the next start{also}",
            )
        self.is_replaced = replaced

    def way_to_keep(self) -> str:
        """The file may have no name any more, and what its guest writes goes with it."""
        opened = f"/proc/{os.getpid()}/fd/{self.image.descriptor}"
        copy = quote(f"{self.path}.kept")
        return f"to keep that, stop its guest, and then cp --sparse=always {opened} {copy}"

    def tell_errors(self) -> None:
        errors = self.image.disk_errors
        if errors > self.told_errors and self.errors.passes():
            why = f"{os.strerror(self.image.last_disk_error)} ({errors - self.told_errors} errors)"
            self.told_errors = errors
            self.log(ERROR, f"image {self.name}: {self.path}: {why}")

    def stats(self) -> dict[str, Any]:
        found = self.image.stats()
        pages = {"pages": 0, "bytes": 0, "evicted": 0, "evicted_by_itself": 0}
        if (pool := self.image.pool) is not None:
            with suppress(KeyError):  # it was exchanged just now
                pages = self.host.pool_stats(pool)
        return {
            "path": str(self.path),
            "size": self.image.size,
            "writable": self.image.is_writable,
            "compress": self.image.compress,
            "cache": self.spec.cache,
            "admit": self.spec.admit,
            "cached": pool is not None,
            "state": self.state,
            "direct": self.image.is_direct,
            "replaced": self.is_replaced,
            "shared": self.digest is not None,
            "digest": None if self.digest is None else self.digest.hex(),
            "connections": self.image.connections,
            **found,
            "evicted": self.evicted + pages["evicted"],
            "evicted_by_itself": self.evicted_by_itself + pages["evicted_by_itself"],
            "cached_pages": pages["pages"],
            "cached_bytes": pages["bytes"],
        }

    def close(self) -> None:
        self.image.close()
        if (pool := self.image.pool) is not None:
            self.host.destroy_pool(pool)
