# SPDX-License-Identifier: BSD-3-Clause
"""What `preswapd serve` says to the plugin arrives there."""

from pathlib import Path

from preswapd.api.messages import ServerFacts
from preswapd.paths import InstancePaths
from preswapd.preswap.settings import DeviceSpec, Settings
from preswapd.server.handover import Handover

FACTS = ServerFacts(1, "1.32.5", 1, "why", False, "why not", "/r", "/s", "/t")


def test_round_trip() -> None:
    handed = Handover(
        settings=Settings(
            instance="vm1",
            paths=InstancePaths(Path("/r"), Path("/s"), Path("/t")),
            pool_size=1 << 30,
            devices=(DeviceSpec("g1", 1 << 20), DeviceSpec("g2", 1 << 20, "zstd", 7)),
            host_reserve=5,
            discard_state=True,
        ),
        facts=FACTS,
        locks=(64, 65, 66),
        control=67,
        own_sockets=(Path("/r/nbd.sock"),),
        listen="127.0.0.1:1",
        death_signal=9,
    )
    assert Handover.from_json(handed.to_json()) == handed
