# SPDX-License-Identifier: BSD-3-Clause
"""Pages of read-only images that hosts share through a store: what an image needs for that."""

from pathlib import Path

from preswapd.precache.digests import Digests
from preswapd.precache.image._image import Image
from preswapd.precache.image.identity import Identity
from preswapd.remote._remote import Remote, Share


class Sharing:
    """The store, the key that the hosts have in common, and what is in the files."""

    def __init__(self, remote: Remote, key: bytes, digests: Digests) -> None:
        self.remote = remote
        self.key = key
        self.digests = digests

    def of(self, path: Path, image: Image, identity: Identity) -> Share | None:
        """None: not now, as its digest is not known yet, or never.

        What a file is says nothing where it is written to, nor does that of a block device: with a
        digest that is out of date other hosts would get wrong pages.  And of a file that has grown
        since it was opened a part is served, whose digest is not the file's."""
        if image.is_writable or not image.is_file or identity.size != image.size:
            return None
        found = self.digests.find(path, image, identity)
        if found is None:
            return None
        return Share(self.remote, self.key, found.digest, found.sums, found.sums_at)
