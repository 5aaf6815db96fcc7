# SPDX-License-Identifier: BSD-3-Clause
"""The images of an instance: those that are served, and those that cannot be as yet."""

import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, cast

from preswapd.api.figures import ImageFigures
from preswapd.errors import RefusedError
from preswapd.log import ERROR, NOTICE, Log
from preswapd.precache.image._image import Connection
from preswapd.precache.opening import beneath, open_image
from preswapd.precache.settings import ImageSpec
from preswapd.precache.watched import Watched
from preswapd.tmem import Host

if TYPE_CHECKING:
    from preswapd.precache.sharing import Sharing

# One that cannot be served is tried again so often.
RETRY_SECONDS = 5.0


class Images:
    """`look()` is for a thread for that alone: a file may lie on a server that does not answer."""

    def __init__(
        self,
        host: Host,
        specs: Sequence[ImageSpec],
        compress: str,
        log: Log,
        taken: Callable[[], Collection[str]] = tuple,
        clock: Callable[[], float] = time.monotonic,
        sharing: "Sharing | None" = None,
    ) -> None:
        """taken: names of swap devices, whose clients must not get an image."""
        self.host = host
        self.compress = compress
        self.log = log
        self.taken = taken
        self.clock = clock
        self.sharing = sharing
        self.specs = {spec.name: spec for spec in specs}
        self.served: dict[str, Watched] = {}
        self.refused: dict[str, str] = {}
        self.retry_at = 0.0
        for spec in specs:
            self.open(spec)

    @property
    def names(self) -> set[str]:
        """Of all that are wanted: none of them may be a device's."""
        return set(self.specs)

    def open(self, spec: ImageSpec) -> None:
        try:
            if spec.name in self.taken():
                raise RefusedError("a swap device has that name: give it another one")
            self.check_alone(spec)
            opened = open_image(spec.path, spec.writable)
            self.served[spec.name] = Watched(
                self.host, spec, self.compress, opened, self.log, self.sharing
            )
        except RefusedError as error:
            if self.refused.get(spec.name) != str(error):
                self.log(ERROR, f"the image {spec.name} is not served: {error}")
            self.refused[spec.name] = str(error)
            return
        if self.refused.pop(spec.name, None) is not None:
            self.log(NOTICE, f"the image {spec.name} is served now")

    def check_alone(self, spec: ImageSpec) -> None:
        """One that is written to is no other image, too.  Its lock would not say who has it."""
        mine = beneath(spec.path)
        for name, other in self.served.items():
            is_written = spec.writable or other.spec.writable
            if is_written and mine == beneath(other.image.descriptor):
                writer = spec.name if spec.writable else name
                raise RefusedError(
                    f"{spec.path} is the image {name} already, and {writer} is writable: a disk"
                    " that is written to is one image"
                )

    def connect(self, name: str) -> Connection | None:
        """None: there is no such image, or it is not served."""
        image = self.served.get(name)
        return None if image is None else image.connect()

    def look(self, frozen: bool = False) -> None:
        """To be called about once a second."""
        for image in self.served.values():
            image.look(frozen)
        if self.refused and self.clock() >= self.retry_at:
            self.retry_at = self.clock() + RETRY_SECONDS
            for name in list(self.refused):
                self.open(self.specs[name])

    def stats(self) -> dict[str, ImageFigures]:
        return {
            name: cast(ImageFigures, image.stats()) for name, image in list(self.served.items())
        }


def check(specs: Sequence[ImageSpec]) -> dict[str, RefusedError]:
    """Which of them could not be served at this moment, and why."""
    refused = {}
    for spec in specs:
        try:
            open_image(spec.path, spec.writable).close()
        except RefusedError as error:
            refused[spec.name] = error
    return refused
