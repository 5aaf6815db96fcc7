# SPDX-License-Identifier: BSD-3-Clause
"""NAME.json beside a disk file: what must be known of a device when its shared memory is gone."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from preswapd.api.kinds import check_compress, check_device_size
from preswapd.errors import RefusedError, UsageError
from preswapd.paths import check_device_name
from preswapd.preswap.files.durable import fresh_name, write_file

FORMAT = 1
SUFFIX = ".json"
# All sidecars have the length of a sector, so that one can be written over on a full disk.
LENGTH = 512


@dataclass(frozen=True)
class Sidecar:
    """`tmem_dirty` from before the first page enters tmem until a clean stop with none there.

    `arena` and `boot_id` say in which arena, and since which start of the host, they are.
    """

    name: str
    size: int
    type: int
    compress: str
    arena: str
    boot_id: str
    tmem_dirty: bool

    def write(self, path: Path) -> None:
        body = {"format": FORMAT, **asdict(self)}
        write_file(path, json.dumps(body, indent=1).encode().ljust(LENGTH - 1) + b"\n")

    @classmethod
    def read(cls, path: Path) -> "Sidecar":
        """RefusedError when it is not what write() wrote."""
        try:
            body = json.loads(path.read_bytes())
            if body.pop("format") != FORMAT:
                raise RefusedError(f"{path} was written by another version of preswapd")
            kinds = cls.__annotations__
            found = cls(**{name: body[name] for name in kinds})
            if any(type(getattr(found, name)) is not kind for name, kind in kinds.items()):
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


def remove_sidecar(path: Path) -> None:
    fresh_name(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def read_all(state_dir: Path) -> dict[str, Sidecar]:
    """All devices that the state directory knows, by name."""
    sidecars = (Sidecar.read(path) for path in sorted(state_dir.glob(f"*{SUFFIX}")))
    return {sidecar.name: sidecar for sidecar in sidecars}
