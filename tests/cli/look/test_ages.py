# SPDX-License-Identifier: BSD-3-Clause
"""`ages`: what is in memory, by how long nobody has used it."""

import json
import re
from pathlib import Path
from typing import Any, cast

import nbd
import pytest

from preswapd.api.figures import Statistics
from preswapd.api.messages import AGES, Age
from preswapd.cli.look import ages
from preswapd.cli.look.columns import AGE_COLUMNS
from preswapd.cli.look.rows import ages_of
from preswapd.errors import RefusedError
from preswapd.units import PAGE_SIZE as PAGE
from tests.cli.look.printed import rows
from tests.clients import BEHIND_ZONE, connected
from tests.conftest import StartServer
from tests.running import PRESWAPCTL, RunningServer, run, wait_for

PAGES = 512


def filled(server: RunningServer, export: str = "g1") -> nbd.NBD:
    client = connected(server, export)
    client.pwrite(b"".join(f"{page:16}".encode() * 256 for page in range(PAGES)), BEHIND_ZONE)
    server.settled_stats()
    return client


def of(server: RunningServer, *arguments: str) -> list[dict[str, Any]]:
    found: dict[str, Any] = json.loads(server.ctl("--json", "ages", *arguments).stdout)
    assert found.keys() == {"ages"}
    return cast(list[dict[str, Any]], found["ages"])


def test_ages_count_what_is_in_memory(server: RunningServer) -> None:
    filled(server)
    found = of(server)
    assert [age["older_than"] for age in found] == list(AGES)
    assert found[0]["pages"] == PAGES
    assert 0 < found[0]["bytes"] <= server.json_stats()["tmem"]["mem_used_total"]
    assert found[-1] == {"older_than": 86400, "pages": 0, "bytes": 0}
    counts = [age["pages"] for age in found]
    assert counts == sorted(counts, reverse=True)


def test_pages_get_older_until_they_are_used(server: RunningServer) -> None:
    client = filled(server)
    wait_for(lambda: of(server)[1], lambda age: age["pages"] == PAGES)
    client.pread(PAGE * PAGES, BEHIND_ZONE)
    assert (of(server)[0]["pages"], of(server)[1]["pages"]) == (PAGES, 0)


def test_ages_of_one_device(start_server: StartServer) -> None:
    server = start_server(devices={"g1": "64M", "g2": "64M"})
    filled(server, "g2")
    assert [of(server, *which)[0]["pages"] for which in (["g1"], ["g2"], [])] == [0, PAGES, PAGES]
    done = server.ctl("ages", "g3", check=False)
    assert (done.returncode, "there is no device 'g3'" in done.stderr) == (2, True)


def test_table_of_ages(server: RunningServer) -> None:
    filled(server)
    found = rows(server.ctl("ages", "--raw").stdout)
    assert [row["UNUSED"] for row in found] == ["0s", "10s", "1m", "10m", "1h", "6h", "1d"]
    assert {row["INSTANCE"] for row in found} == {"default"}
    assert (found[0]["PAGES"], found[0]["ORIG"]) == (str(PAGES), "2M")
    assert (found[-1]["PAGES"], found[-1]["MEMORY"], found[-1]["POOL%"]) == ("0", "0B", "0.0")
    assert 0 < float(found[0]["POOL%"]) <= 100
    exact = rows(server.ctl("ages", "-rb", "-o", "ORIG,MEMORY").stdout)
    assert exact[0]["ORIG"] == str(PAGE * PAGES)
    assert exact[0].keys() == {"ORIG", "MEMORY"}


def test_share_of_a_pool_that_is_empty() -> None:
    stats = cast(Statistics, {"instance": "vm1", "tmem": {"mem_used_total": 0}})
    (row,) = ages_of(stats, [Age(0, 0, 0)])
    assert [column.text(row) for column in AGE_COLUMNS] == ["vm1", "0s", "0", "0B", "0B", "-"]


def test_options_of_tables_are_refused_for_json(module_server: RunningServer) -> None:
    assert module_server.ctl("--json", "ages", "-b", check=False).returncode == 2


def test_every_instance_where_none_is_named(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "preswapd"
    root.mkdir()
    for name in ("vm1", "vm2"):
        server = start_server(devices={f"{name}-swap": "16M"}, extra=[f"--instance={name}"])
        (root / name).symlink_to(server.runtime_dir)
    # Under it an ordinary user's are found; root's have a place of their own.
    code = (
        "from pathlib import Path; import preswapd.cli.instances as i;"
        f"i.runtime_root = lambda: Path({str(root)!r});"
        "from preswapd.cli.main import main; main()"
    )
    python = str(Path(PRESWAPCTL).with_name("python"))
    done = run([python, "-c", code, "--json", "ages"])
    found = json.loads(done.stdout)["instances"]
    assert [one["instance"] for one in found] == ["vm1", "vm2"]
    assert all([age["older_than"] for age in one["ages"]] == list(AGES) for one in found)
    table = rows(run([python, "-c", code, "ages", "--raw"]).stdout)
    assert [row["INSTANCE"] for row in table] == ["vm1"] * len(AGES) + ["vm2"] * len(AGES)
    (one,) = json.loads(run([python, "-c", code, "--json", "ages", "vm2-swap"]).stdout)["instances"]
    assert one["instance"] == "vm2"


def test_older_server_beside_newer_ones() -> None:
    """It says so, under its name, and what the others say is shown."""

    class Older:
        def stats(self) -> object:
            return {"instance": "vm1"}

        def ages(self, dev: str | None) -> list[Age]:
            raise RefusedError("this server is older than preswapctl")

    found = ages.look(cast(Any, Older()), None)
    assert (found.ages, found.refusal) == ([], "this server is older than preswapctl")


def test_ages_in_the_terminal_are_aligned(server: RunningServer) -> None:
    lines = server.ctl("ages").stdout.splitlines()
    assert re.fullmatch(r"INSTANCE +UNUSED +PAGES +ORIG +MEMORY +POOL%", lines[0])
    assert len({len(line) for line in lines}) == 1
