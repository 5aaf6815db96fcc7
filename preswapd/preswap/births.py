# SPDX-License-Identifier: BSD-3-Clause
"""Devices are made: the row "create" of docs/concurrency.md, for many devices at once."""

from collections.abc import Iterator, Sequence

from preswapd.errors import RefusedError
from preswapd.preswap.creation import Maker, Served, cannot_make
from preswapd.preswap.device._table import Entry
from preswapd.preswap.files.disk_file import check_unclaimed
from preswapd.preswap.files.identity import new_token
from preswapd.preswap.files.making import Making, make_files
from preswapd.preswap.files.maps import born, create_map
from preswapd.preswap.files.sidecar import Sidecar
from preswapd.preswap.files.zone import zone
from preswapd.preswap.footprint import check_room, private_bytes
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE

# Each has three files open until they are synced.
MOST_AT_ONCE = 64


def create(maker: Maker, spec: DeviceSpec, compress: str) -> Served:
    """A device with a swap header; RefusedError leaves nothing behind."""
    [made] = create_all(maker, [spec], compress)
    if isinstance(made, RefusedError):
        raise made
    return made


def create_all(
    maker: Maker, specs: Sequence[DeviceSpec], compress: str
) -> Iterator[Served | RefusedError]:
    """Each, or why it was not made; `compress` where it names none itself."""
    for at in range(0, len(specs), MOST_AT_ONCE):
        births = [Birth(maker, spec, compress) for spec in specs[at : at + MOST_AT_ONCE]]
        taken = 0
        for birth in births:
            birth.begin(taken)
            if birth.making is not None:
                taken += private_bytes(birth.spec.size)
        make_files([birth.making for birth in births if birth.making is not None])
        # All of them, also where the caller has heard enough at the first.
        yield from [birth.end() for birth in births]


class Birth:
    """Of one device.  What an error leaves is undone, or left to the next start or creation."""

    def __init__(self, maker: Maker, spec: DeviceSpec, compress: str) -> None:
        self.maker = maker
        self.spec = spec
        self.compress = spec.compress or compress
        self.entry: Entry | None = None
        self.making: Making | None = None
        self.refusal: RefusedError | None = None

    def begin(self, taken: int) -> None:
        """`taken`: memory that those before it are still to take."""
        try:
            self.making = self.entered(taken)
        except RefusedError as error:
            self.give_up(error)
        except (OSError, MemoryError) as error:
            self.give_up(cannot_make(self.spec.name, error))

    def entered(self, taken: int) -> Making:
        name, size, maker = self.spec.name, self.spec.size, self.maker
        pages, token = size // PAGE_SIZE, new_token()
        maker.finish_leftovers(name)
        check_unclaimed(maker.paths.disk_file(name), size)
        check_room(maker.host, name, size, taken)
        self.entry = maker.entered(name, size, "creating")
        create_map(maker.paths.map(name), size, born(pages, zone(pages)))
        sidecar = Sidecar(
            name=name,
            size=size,
            type=self.entry.type,
            compress=self.compress,
            arena=maker.host.uuid,
            boot_id=maker.boot_id,
            tmem_dirty=True,
            token=token,
            prev=token,
        )
        return Making(maker.paths, sidecar)

    def end(self) -> Served | RefusedError:
        if self.making is not None and self.entry is not None:
            try:
                if self.making.error is not None:
                    raise self.making.error
                return self.maker.serve(self.entry, self.making.sidecar)
            except RefusedError as error:
                self.give_up(error)
            except (OSError, MemoryError) as error:
                self.give_up(cannot_make(self.spec.name, error))
        assert self.refusal is not None
        return self.refusal

    def give_up(self, refusal: RefusedError) -> None:
        self.refusal = refusal
        if self.entry is not None:
            self.maker.undo(self.entry)
