# SPDX-License-Identifier: BSD-3-Clause
"""What `preswapd serve` hands to the plugin when it becomes nbdkit: one JSON text."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from preswapd.api.messages import ServerFacts
from preswapd.paths import InstancePaths
from preswapd.preswap.settings import DeviceSpec, Settings


@dataclass(frozen=True)
class Handover:
    settings: Settings
    facts: ServerFacts
    locks: tuple[int, ...]  # descriptors
    control: int  # descriptor of the listening control socket
    own_sockets: tuple[Path, ...]  # to be removed at a clean stop
    listen: str | None
    death_signal: int  # as host/prctl.py has it

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "Handover":
        values = json.loads(text)
        settings = values["settings"]
        settings["paths"] = InstancePaths(
            **{name: Path(path) for name, path in settings["paths"].items()}
        )
        settings["devices"] = tuple(DeviceSpec(**spec) for spec in settings["devices"])
        return cls(
            settings=Settings(**settings),
            facts=ServerFacts(**values["facts"]),
            locks=tuple(values["locks"]),
            control=values["control"],
            own_sockets=tuple(map(Path, values["own_sockets"])),
            listen=values["listen"],
            death_signal=values["death_signal"],
        )
