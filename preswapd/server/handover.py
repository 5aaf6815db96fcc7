# SPDX-License-Identifier: BSD-3-Clause
"""What `preswapd serve` hands to the plugin when it becomes nbdkit: one JSON text."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from preswapd.api.messages import ServerFacts
from preswapd.paths import InstancePaths
from preswapd.precache.settings import ImageSpec
from preswapd.preswap.settings import DeviceSpec, Settings
from preswapd.remote.settings import StoreSettings


@dataclass(frozen=True)
class Handover:
    """All that the plugin is told."""

    settings: Settings
    facts: ServerFacts
    locks: tuple[int, ...]  # descriptors
    nbd: int  # descriptor of the socket at RUNTIME_DIR/nbd.sock
    tcp: int  # descriptor of the socket at the address `listen`, if there is one
    control: int  # descriptor of the listening control socket
    own_sockets: tuple[Path, ...]  # to be removed at a clean stop
    listen: str | None
    is_guarded: bool  # over TCP nobody is served without TLS
    death_signal: int  # as host/prctl.py has it
    stops_at: tuple[int, ...]  # signals
    images: tuple[ImageSpec, ...] = ()
    store: StoreSettings | None = None  # of the remote tier
    python: str = ""  # the interpreter that its courier is run with
    is_debugged: bool = False  # nbdkit's own log is on, and errors come with their traceback

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=text_of)

    @classmethod
    def from_json(cls, text: str) -> "Handover":
        values = json.loads(text)
        settings = values["settings"]
        settings["paths"] = InstancePaths(
            **{name: path_of(path) for name, path in settings["paths"].items()}
        )
        settings["devices"] = tuple(DeviceSpec(**spec) for spec in settings["devices"])
        store = values["store"]
        return cls(
            settings=Settings(**settings),
            facts=ServerFacts(**values["facts"]),
            locks=tuple(values["locks"]),
            nbd=values["nbd"],
            tcp=values["tcp"],
            control=values["control"],
            own_sockets=tuple(map(path_of, values["own_sockets"])),
            listen=values["listen"],
            is_guarded=values["is_guarded"],
            death_signal=values["death_signal"],
            stops_at=tuple(values["stops_at"]),
            images=tuple(
                ImageSpec(**{**spec, "path": path_of(spec["path"])}) for spec in values["images"]
            ),
            store=None if store is None else StoreSettings(**with_paths(store)),
            python=values["python"],
            is_debugged=values["is_debugged"],
        )


PATHS_OF_STORE = ("key_file", "image_key_file", "password_file", "ca", "cert", "key")


def with_paths(store: dict[str, Any]) -> dict[str, Any]:
    found = {name: store[name] for name in PATHS_OF_STORE if store[name] is not None}
    return {**store, **{name: path_of(text) for name, text in found.items()}}


# As bytes: nbdkit's Python may take the locale's word for how names are written, as it was embedded
# without a say in that.


def text_of(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def path_of(text: str) -> Path:
    return Path(os.fsdecode(text.encode("utf-8", "surrogateescape")))
