# SPDX-License-Identifier: BSD-3-Clause
"""`advise`: what another pool or a larger guest would change, as text, JSON and a picture."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import pytest

from preswapd.api.messages import Advice, GuestPoint, PoolPoint
from preswapd.cli.look import advise
from preswapd.cli.look.curves import Point, drawn, share_at
from preswapd.errors import RefusedError
from preswapd.units import PAGE_SIZE as PAGE
from tests.cli.look.printed import rows
from tests.clients import BEHIND_ZONE, connected
from tests.conftest import StartServer
from tests.running import RunningServer

PAGES = 4096
MIB = 1 << 20


def used(server: RunningServer, export: str = "g1") -> None:
    """Written once, and read twice from end to end."""
    client = connected(server, export)
    client.pwrite(b"".join(f"{page:16}".encode() * 256 for page in range(PAGES)), BEHIND_ZONE)
    for _ in range(2):
        client.pread(PAGES * PAGE, BEHIND_ZONE)
    server.settled_stats()


def advice(**changed: Any) -> Advice:
    """The curves of a guest that reads half of its pages soon, and the others late."""
    found = Advice(
        seconds=3 * 3600.0,
        reads=80_000,
        unseen=0,
        sampled_reads=5000,
        sampled_pages=2000,
        one_in=16,
        trims=100,
        pool_limit=256 * MIB,
        page_bytes=2048.0,
        pool=[
            PoolPoint(0, 40 * MIB, 0.0),
            PoolPoint(1, 64 * MIB, 0.5),
            PoolPoint(2, 128 * MIB, 0.5),
            PoolPoint(3, 256 * MIB, 0.91),
            PoolPoint(4, 512 * MIB, 0.99),
            PoolPoint(5, 1024 * MIB, 1.0),
        ],
        guest=[
            GuestPoint(0, 40 * MIB, 0.0, 0.0),
            GuestPoint(1, 64 * MIB, 0.4, 0.45),
            GuestPoint(2, 128 * MIB, 0.61, 0.614),
            GuestPoint(3, 256 * MIB, 0.97, 0.97),
            GuestPoint(4, 512 * MIB, 1.0, 1.0),
        ],
    )
    return replace(found, **changed)


def lines(found: Advice) -> list[str]:
    return list(advise.told("vm1", found))


def test_sentences() -> None:
    first, pool, guest, *unknown = lines(advice())
    assert first == (
        "vm1: 5000 reads were looked at in 3h, of about 80000; one page of 16 is followed."
    )
    assert pool == (
        "With a pool of 32M 0 % of reads come from memory, with 64M 50 %, with 256M, as now, 91 %,"
        " with 512M 99 %."
    )
    assert guest == (
        "64M more memory in the guest would end 40 to 45 % of its swap-ins, 128M 61 %, 256M 97 %,"
        " 512M 100 %."
    )
    assert unknown[0] == "What this does not know:"
    assert len(unknown) == 5


def test_limit_between_two_sizes_is_named_too() -> None:
    _, pool, *_ = lines(advice(pool_limit=384 * MIB))
    assert "with 256M 91 %, with 384M, as now, 95 %, with 512M 99 %." in pool


def test_pool_without_pages_says_what_its_sizes_are() -> None:
    found = advice(page_bytes=None, pool=[PoolPoint(pages, None, 1.0) for pages in (256, 512)])
    _, pool, *_ = lines(found)
    assert pool == (
        "With a pool of 128K 12 % of reads come from memory, with 256K 25 %, with 512K 50 %, with"
        " 1M 100 % (before compression: the pool has too few pages)."
    )


def test_where_all_comes_at_once_what_is_too_little_is_named() -> None:
    loop = [PoolPoint(1, 100 * MIB, 0.0), PoolPoint(2, 101 * MIB, 1.0)]
    _, pool, *_ = lines(advice(pool=loop, pool_limit=64 * MIB))
    assert pool == ("With a pool of 64M, as now, 0 % of reads come from memory, with 128M 100 %.")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"sampled_reads": 400}, "up to 6 % are noise"),
        ({"unseen": 8000}, "10 % of the reads were of pages written before"),
        ({"trims": 0}, r"it has trimmed nothing \(swapon --discard\)"),
        ({}, "it covers the last 3h"),
        ({}, "A page is taken for 2K"),
        ({}, "drops unseen"),
    ],
)
def test_what_it_does_not_know_is_said(changed: dict[str, Any], said: str) -> None:
    assert re.search(said, "\n".join(lines(advice(**changed))))


def test_what_is_known_is_not_said_to_be_unknown() -> None:
    text = "\n".join(lines(advice()))
    assert "noise" not in text
    assert "written before" not in text
    assert "swapon --discard" not in text


@pytest.mark.parametrize("changed", [{"sampled_reads": 99}, {"sampled_reads": 0, "pool": []}])
def test_of_few_reads_nothing_is_said(changed: dict[str, Any]) -> None:
    (line,) = lines(advice(**changed))
    assert "100 at least are needed" in line
    assert "%" not in line


def test_all_is_only_what_is_all() -> None:
    assert [advise.percent(share) for share in (0.0, 0.004, 0.999, 1.0)] == ["0", "0", "99", "100"]


def test_shares_between_points() -> None:
    curve = [Point(100, 0.5), Point(200, 1.0)]
    found = [share_at(curve, size) for size in (0, 50, 100, 150, 200, 10**9)]
    assert found == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_picture_has_each_curve() -> None:
    picture = ElementTree.fromstring(drawn("vm1", advise.curves_of(advice())))
    space = "{http://www.w3.org/2000/svg}"
    curves = picture.findall(f"{space}polyline")
    assert [len(curve.attrib["points"].split()) for curve in curves] == [6, 5, 5]
    # All of it lies inside.
    width, height = float(picture.attrib["width"]), float(picture.attrib["height"])
    for curve in curves:
        for point in curve.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_a_real_server(server: RunningServer, tmp_path: Path) -> None:
    used(server)
    path = tmp_path / "g1.svg"
    text = server.ctl("advise", "--plot", str(path)).stdout
    assert "% of reads come from memory" in text
    assert "more memory in the guest would end" in text
    assert len(ElementTree.parse(path).findall("{*}polyline")) == 3
    assert server.ctl("advise", "g1").stdout.startswith("g1 of default: ")
    found = json.loads(server.ctl("--json", "advise").stdout)
    assert found["reads"] == pytest.approx(2 * PAGES, rel=0.3)
    shares = [point["from_memory"] for point in found["pool"]]
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert shares == sorted(shares)
    assert all(point["least"] <= point["most"] for point in found["guest"])


def test_server_that_was_not_read(module_server: RunningServer) -> None:
    done = module_server.ctl("advise", "g1")
    assert "0 reads were looked at" in done.stdout
    missing = module_server.ctl("advise", "g3", check=False)
    assert (missing.returncode, "there is no device 'g3'" in missing.stderr) == (2, True)


def test_picture_that_cannot_be_written(module_server: RunningServer, tmp_path: Path) -> None:
    done = module_server.ctl("advise", "--plot", str(tmp_path / "no/g1.svg"), check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "cannot be written" in done.stderr


def test_devices_of_one_pool(start_server: StartServer) -> None:
    server = start_server(devices={"g1": "64M", "g2": "64M"})
    used(server, "g2")
    reads = [
        json.loads(server.ctl("--json", "advise", name).stdout)["reads"] for name in ("g1", "g2")
    ]
    assert reads[0] == 0 < reads[1]
    assert rows(server.ctl("list", "--raw").stdout)  # nothing was changed


def test_older_server_beside_newer_ones() -> None:
    """It says so, under its name, and what the others say is shown."""

    class Older:
        def stats(self) -> object:
            return {"instance": "vm1"}

        def advise(self, dev: str | None) -> Advice:
            raise RefusedError("this server is older than preswapctl")

    found = advise.look(cast(Any, Older()), None)
    assert (found.advice, found.refusal) == (None, "this server is older than preswapctl")
