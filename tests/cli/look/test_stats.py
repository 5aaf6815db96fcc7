# SPDX-License-Identifier: BSD-3-Clause
"""`stats`, once and again and again; and what `--help` says of tables."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from preswapd.cli.look.columns import DEVICE_COLUMNS, DEVICE_RATES, POOL_COLUMNS, POOL_RATES
from tests.cli.look.printed import rows
from tests.running import PATIENCE, PRESWAPCTL, RunningServer, run

TMEM = {
    "mem_limit",
    "mem_used_total",
    "mem_used_max",
    "stored_pages",
    "same_filled_pages",
    "huge_pages",
    "orig_data_size",
    "compr_data_size",
    "metadata_size",
    "puts",
    "good_puts",
    "no_mem_puts",
    "dup_puts_replaced",
    "dup_puts_flushed",
    "gets",
    "found_gets",
    "flushes",
    "flushes_found",
    "pool_limit_hit",
    "reject_alloc_fail",
    "checksum_errors",
}
DEVICE = {
    "size",
    "connections",
    "preswap_pages",
    "disk_pages",
    "loads",
    "succ_stores",
    "failed_stores",
    "invalidates",
    "disk_reads",
    "disk_writes",
    "disk_errors",
    "trims",
    "written_back_pages",
    "read_requests",
    "write_requests",
}


def test_stats_have_every_promised_field(module_server: RunningServer) -> None:
    stats = module_server.json_stats()
    assert stats["page_size"] == 4096
    assert stats["instance"] == "default"
    assert re.fullmatch(r"\d+\.\d+\.\d+", stats["version"])
    assert stats["tmem"].keys() >= TMEM
    assert stats["devices"]["g1"].keys() >= DEVICE


def test_stats_say_why_so_many_threads(module_server: RunningServer) -> None:
    server = module_server.json_stats()["server"]
    assert server["threads"] >= 1
    assert server["threads_reason"]


def test_pool_size_is_the_limit(module_server: RunningServer) -> None:
    assert module_server.json_stats()["tmem"]["mem_limit"] == 32 << 20


def test_stats_of_one_device(server: RunningServer) -> None:
    server.ctl("create", "g2", "1M")
    assert json.loads(server.ctl("--json", "stats", "g2").stdout)["devices"].keys() == {"g2"}


def test_stats_for_people_show_every_counter(module_server: RunningServer) -> None:
    text = module_server.ctl("stats").stdout
    assert all(re.search(rf"^  {name} +\S", text, re.MULTILINE) for name in TMEM | DEVICE)
    assert re.search(r"^  read_p99 +(-|[0-9.]+(us|ms|s))$", text, re.MULTILINE)
    assert re.search(r"^  mem_limit +33554432  32M$", text, re.MULTILINE)
    assert re.search(r"^  puts +\d+$", text, re.MULTILINE)
    assert "{" not in text


# --- tables ---


def test_stats_as_a_table(module_server: RunningServer) -> None:
    (row,) = rows(module_server.ctl("stats", "--raw", "-o", "limit,devices,ratio").stdout)
    assert row == {"LIMIT": "32M", "DEVICES": "1", "RATIO": "-"}


def test_stats_of_one_device_as_a_row(server: RunningServer) -> None:
    server.ctl("create", "g2", "1M")
    assert server.ctl("stats", "g2", "-rn", "-o", "NAME,SIZE").stdout == "g2 1M\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "-o", "NONSENSE"],
        ["--json", "list", "--raw"],
        ["stats", "-o", "TIME"],
        ["stats", "g1", "-o", "LIMIT"],
        ["--json", "stats", "-o", "USED"],
        ["--json", "stats", "--watch"],
        ["stats", "--json-lines", "--watch", "1"],
        ["stats", "--json-lines", "--bytes"],
        ["stats", "--interval", "1"],
        ["stats", "--count", "1"],
        ["stats", "--watch", "0"],
        ["stats", "--watch", "nan"],
        ["stats", "g9", "--watch", "--count", "1"],
    ],
    ids=" ".join,
)
def test_what_makes_no_table_exits_2(module_server: RunningServer, arguments: list[str]) -> None:
    done = module_server.ctl(*arguments, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_help_says_what_every_column_means() -> None:
    for command, columns in (
        ("list", DEVICE_COLUMNS),
        ("stats", (*POOL_COLUMNS, *POOL_RATES, *DEVICE_RATES)),
    ):
        text = " ".join(run([PRESWAPCTL, command, "--help"]).stdout.split())
        for column in columns:
            assert re.search(rf" {re.escape(column.name)}\*? {re.escape(column.help)} ", f"{text} ")


# --- again and again ---


@contextmanager
def watching(server: RunningServer, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [PRESWAPCTL, f"--runtime-dir={server.runtime_dir}", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize(
    "arguments", [["--watch", "0.1"], ["g1", "-w", "0.1"], ["--json-lines", "--interval", "0.1"]]
)
def test_interrupt_ends_a_watch_well(module_server: RunningServer, arguments: list[str]) -> None:
    with watching(module_server, "stats", *arguments) as process:
        assert read_line(process)
        assert read_line(process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")


def test_watch_shows_rates(server: RunningServer, client: Any) -> None:
    with watching(server, "stats", "g1", "-w", "0.2", "--raw", "--count", "2") as process:
        head, first = read_line(process).split(), read_line(process).split()
        client.pwrite(os.urandom(1 << 20), 4096)
        second = read_line(process).split()
        assert process.wait(PATIENCE) == 0
    at = head.index("STORES/S")
    assert first[at] == "-"
    assert float(second[at]) > 0


def test_json_lines_are_the_statistics_with_a_time(server: RunningServer) -> None:
    server.ctl("create", "g2", "1M")
    text = server.ctl("stats", "g2", "--json-lines", "--interval", "0.1", "--count", "3").stdout
    found = [json.loads(line) for line in text.splitlines()]
    times = [line["time"] for line in found]
    assert len(times) == 3
    assert times == sorted(times)
    assert all(line["tmem"].keys() >= TMEM for line in found)
    assert all(line["devices"].keys() == {"g2"} for line in found)


@pytest.mark.parametrize(
    "arguments", [["--watch", "0.1"], ["--json-lines", "--interval", "0.1"]], ids=" ".join
)
def test_watch_ends_with_its_device(server: RunningServer, arguments: list[str]) -> None:
    server.ctl("create", "g2", "1M")
    with watching(server, "stats", "g2", *arguments) as process:
        assert read_line(process)
        server.ctl("remove", "g2")
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (
        1,
        "preswapctl: g2 is gone from default: it was removed\n",
    )


def test_device_goes_before_watch(module_server: RunningServer) -> None:
    done = module_server.ctl("stats", "--watch", "g1", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "'g1' is not a number of seconds (a device must come before --watch)" in done.stderr


def test_watch_goes_on_through_a_restart(server: RunningServer) -> None:
    with watching(server, "stats", "--json-lines", "--interval", "0.1") as process:
        first = json.loads(read_line(process))
        server.kill()
        assert process.stderr is not None
        # It may have been in the middle of an answer.
        assert re.search("no preswapd server answers|went away", process.stderr.readline())
        server.start()
        assert process.stderr.readline() == "preswapctl: default is back\n"
        while (line := json.loads(read_line(process)))["server"] == first["server"]:
            pass
        assert line["server"]["start_time"] > first["server"]["start_time"] > 1e9
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


def test_watch_that_ends_while_the_server_is_away_exits_3(server: RunningServer) -> None:
    with watching(server, "stats", "--watch", "0.1") as process:
        assert read_line(process)
        server.kill()
        assert process.stderr is not None
        assert process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 3
