# SPDX-License-Identifier: BSD-3-Clause
"""NAME.json beside a disk file: what must be known of a device when its shared memory is gone."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from preswapd.api.kinds import check_compress, check_device_size
from preswapd.errors import RefusedError, UsageError
from preswapd.host.filesystems import is_there
from preswapd.paths import check_device_name
from preswapd.preswap.files.durable import sync_directory, write_file

FORMAT = 1
# Of a device that is moving from one host to another, or has been named to another.  A release that
# does not know what that means would serve a guest its past: it refuses this number.
MOVING_FORMAT = 2
SUFFIX = ".json"
# All sidecars have the length of a sector, so that one can be written over on a full disk.
LENGTH = 512
MOVING = ("life", "source", "arrival", "taken", "moved", "renewing")
# How far a restore is: pages only, or the zone, too.
RESTORING, RESTORING_ZONE = "pages", "zone"


@dataclass(frozen=True)
class Sidecar:
    """`arena` and `boot_id`: where its pages were in memory, and since which start of the host.

    `clean`: the saved map holds, if the disk file is as it was then, by `token`, `inode` and
    `ctime`; `map` is the map's checksum.  `prev`: the token before it, which the disk file may
    still bear.  `bare`: it bore none, as a block device without room for it does.  `removed`: an
    operator has said so, and a start finishes it.  `restore`: one is under way; after a kill or a
    reboot nothing is known, and the zone is made anew where it had come to that.

    `life`: what another host has been told that it may pull from (docs/moving.md); 0: nobody was
    told, since the device was made or its pages were dropped.  `source`: the life of another host's
    device that PENDING pages come from; `arrival`: the number under which it knows this one;
    `taken`: it knows that its guest is here.  `moved`: the arrival that has taken this one.
    `renewing`: all pages are being dropped, and a start finishes it.

    `tmem_dirty` is for older releases, which take holes for zeros where it is false; they write a
    sidecar without a token.
    """

    name: str
    size: int
    type: int
    compress: str
    arena: str
    boot_id: str
    tmem_dirty: bool
    token: int = 0
    prev: int = 0
    inode: int = 0
    clean: bool = False
    ctime: int = 0
    map: str = ""
    bare: bool = False
    removed: bool = False
    restore: str = ""
    life: int = 0
    source: int = 0
    arrival: int = 0
    taken: bool = False
    moved: int = 0
    renewing: bool = False

    @property
    def is_of_older_release(self) -> bool:
        return self.token == 0

    @property
    def is_moving(self) -> bool:
        return any(getattr(self, name) for name in MOVING)

    @property
    def guest(self) -> str:
        """Where it is, as a device has it."""
        if self.moved:
            return "gone"
        return "coming" if self.source and not self.taken else "here"

    def settled(self) -> "Sidecar":
        """Nobody has been told of it, it comes from nowhere, and nothing is half done."""
        return replace(
            self, life=0, source=0, arrival=0, taken=False, moved=0, renewing=False, restore=""
        )

    def content(self) -> bytes:
        body = {"format": MOVING_FORMAT if self.is_moving else FORMAT, **asdict(self)}
        for name in (*MOVING, "restore"):
            if not body[name]:
                del body[name]
        # Without blanks there is room for all that may be in it at once.
        text = json.dumps(body, separators=(",", ":"))
        return text.encode().ljust(LENGTH - 1) + b"\n"

    def write(self, path: Path) -> None:
        write_file(path, self.content())

    @classmethod
    def read(cls, path: Path) -> "Sidecar":
        """RefusedError when it is not what write() wrote."""
        try:
            body = json.loads(synced(path))
            if body.pop("format") not in (FORMAT, MOVING_FORMAT):
                raise RefusedError(f"{path} was written by another version of preswapd")
            kinds = cls.__annotations__
            known = {name: body[name] for name in kinds if name in body}
            found = cls(**known)
            if any(type(known[name]) is not kinds[name] for name in known):
                raise ValueError
            if any(not 0 <= getattr(found, name) < 1 << 64 for name in MOVING):
                raise ValueError
            check_device_name(found.name)
            check_device_size(found.size)
            check_compress(found.compress)
        except OSError as error:
            raise RefusedError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, UsageError):
            raise RefusedError(f"{path} is damaged") from None
        if f"{found.name}{SUFFIX}" != path.name:
            raise RefusedError(f"{path} belongs to another device, {found.name}")
        return found


def synced(path: Path) -> bytes:
    """A start builds on what it reads, so that must be on disk first."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        return file.read()


def paths_in(state_dir: Path) -> list[Path]:
    """Of all sidecars.  RefusedError for a directory that cannot be read, which a glob takes for
    one without any."""
    try:
        names = sorted(os.listdir(state_dir))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RefusedError(f"{state_dir} cannot be read: {error.strerror}") from None
    return [state_dir / name for name in names if name.endswith(SUFFIX)]


class Sidecars(NamedTuple):
    """What a state directory knows, by device; of the others why it cannot be read."""

    read: dict[str, Sidecar]
    refused: dict[str, RefusedError]


def read_all(state_dir: Path) -> Sidecars:
    if is_there(state_dir):
        sync_directory(state_dir)
    found = Sidecars({}, {})
    for path in paths_in(state_dir):
        try:
            found.read[path.stem] = Sidecar.read(path)
        except RefusedError as error:
            found.refused[path.stem] = error
    return found
