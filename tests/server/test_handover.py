# SPDX-License-Identifier: BSD-3-Clause
"""What `preswapd serve` says to the plugin arrives there."""

import json
import os
import sys
from pathlib import Path

from preswapd.api.messages import ServerFacts
from preswapd.paths import InstancePaths
from preswapd.precache.settings import ImageSpec
from preswapd.preswap.settings import DeviceSpec, Settings
from preswapd.remote.settings import StoreSettings
from preswapd.server.handover import Handover, path_of, text_of
from tests.running import run

FACTS = ServerFacts(1, "1.32.5", 1, "why", False, "why not", "/r", "/s", "/t")


def test_round_trip() -> None:
    handed = Handover(
        settings=Settings(
            instance="vm1",
            paths=InstancePaths(Path("/r"), Path("/s"), Path("/t")),
            pool_size=1 << 30,
            devices=(DeviceSpec("g1", 1 << 20), DeviceSpec("g2", 1 << 20, "zstd", 7)),
            host_reserve=5,
            writeback_room=0.075,
            writeback_idle="auto",
            writeback_rate="off",
            recompress_after=90,
            recompress_codec="lz4",
            discard_state=True,
            accept_moved=True,
        ),
        facts=FACTS,
        locks=(64, 65, 66),
        nbd=3,
        tcp=4,
        control=67,
        own_sockets=(Path("/r/nbd.sock"),),
        listen="127.0.0.1:1",
        is_guarded=True,
        death_signal=9,
        stops_at=(15, 2),
        images=(ImageSpec("a", Path("/a")), ImageSpec("b", Path("/b\udcff"), "zstd")),
        store=StoreSettings(
            "redis://h",
            Path("/k\udcff"),
            image_key_file=Path("/i"),
            ca=Path("/ca"),
            timeout=2.5,
            max=7,
        ),
        python="/usr/bin/python3",
    )
    assert Handover.from_json(handed.to_json()) == handed


def test_path_that_is_no_text() -> None:
    """Names of files are bytes: those of Latin-1, and what is no text at all."""
    path = Path(os.fsdecode(b"/b\xfccher/\xff\xc3\xbc"))
    assert path_of(text_of(path)) == path
    assert text_of(Path("/\xfc")).encode() == b"/\xc3\xbc"


def test_path_arrives_where_the_locale_cannot_write_it(tmp_path: Path) -> None:
    """As in nbdkit's Python on a host without C.UTF-8."""
    path = tmp_path / "bücher"
    path.touch()
    code = (
        "import json, sys; from preswapd.server.handover import path_of;"
        " print(sys.getfilesystemencoding(), path_of(json.loads(sys.argv[1])).exists())"
    )
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run([sys.executable, "-c", code, json.dumps(text_of(path))], env=env)
    assert done.stdout == "ascii True\n"
