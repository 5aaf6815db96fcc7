# SPDX-License-Identifier: BSD-3-Clause
"""The README is done as it stands; what other documents say to type is at least understood."""

import contextlib
import itertools
import os
import pty
import re
import select
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from preswapd.__main__ import preswapd
from preswapd.cli.main import preswapctl
from preswapd.host.filesystems import total_bytes
from preswapd.units import parse_size
from tests.clients import clients
from tests.running import BIN, RunningServer, run
from tests.test_docs import DOCUMENTS, ROOT

README = (ROOT / "README.md").read_text()
TABLES = (ROOT / "docs/benchmark-tables.md").read_text()
# A guest of ours swaps in these, and `make` builds.
NOT_HERE = ("swapon", "git", "make", "sudo")


def code_lines(text: str) -> Iterator[str]:
    """The lines of blocks of code, without prompts and with lines that go on put together."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            yield line.removeprefix("$ ")


def to_do() -> list[str]:
    lines = [line for line in code_lines(README) if not line.startswith(NOT_HERE)]
    assert lines[0].startswith("preswapd serve ")
    return lines


# --- done as it stands ---


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a shell beside the README's server, whose directories are of its own."""
    words = shlex.split(to_do()[0])
    size = parse_size(words[words.index("--pool-size") + 1])
    if total_bytes(Path("/dev/shm")) < size:
        pytest.skip("/dev/shm is smaller than the README's pool")
    tmp = tmp_path_factory.mktemp("readme")
    # Instead of a guest: what it would be started with.
    (tmp / "qemu-system-x86_64").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp / "qemu-system-x86_64").chmod(0o755)
    with RunningServer(tmp, {}, extra=words[2:]) as server, clients() as connect:
        # Somebody has swapped.
        connect(server, "swap0").pwrite(os.urandom(1 << 20), 1 << 20)
        yield {
            **os.environ,
            "PATH": f"{tmp}:{BIN}:/usr/sbin:/usr/bin:/sbin:/bin",
            "PRESWAPD_RUNTIME_DIR": str(server.runtime_dir),
            "TERM": "xterm",
        }


def typed(line: str, keys: bytes, env: dict[str, str]) -> tuple[int, str]:
    """A line at a terminal, and the keys that are pressed again and again until it ends."""
    ours, theirs = pty.openpty()
    shown = b""
    with subprocess.Popen(
        ["bash", "-c", line], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    ) as shell:
        os.close(theirs)
        with contextlib.suppress(OSError):  # What the terminal says when nobody else has it open.
            while True:
                if select.select([ours], [], [], 0.3)[0]:
                    shown += os.read(ours, 1 << 16)
                else:
                    os.write(ours, keys)
    os.close(ours)
    return shell.returncode, shown.decode(errors="replace")


def test_commands_work_one_after_another(newcomer: dict[str, str]) -> None:
    for line in to_do()[1:]:
        keys = b"q" if " top" in line else b"y\r"
        status, shown = typed(line, keys, newcomer)
        if " attach " in line:
            # No guest has a monitor there: that is all that may be wrong.
            assert "/run/vm1.qmp" in shown, shown
        elif " doctor" in line:
            assert status in (0, 1), shown
        else:
            assert status == 0, f"{line}: {shown}"
        if line.startswith("eval"):
            assert '"export":"swap0"' in shown


def test_targets_exist() -> None:
    known = {
        line.split()[0]
        for line in run(["make", f"--directory={ROOT}", "help"]).stdout.splitlines()
        if line
    }
    named = set(re.findall(r"\bmake ([a-z]+)", "\n".join(code_lines(README))))
    assert {"install", "demo"} <= named
    assert named | {"uninstall"} <= known


# --- figures ---


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {title}\n```\n(.*?)^```", TABLES, re.M | re.S)
    return str(found)


def row(table: str, start: str) -> list[float]:
    """The figures of the row that begins so."""
    (found,) = re.findall(rf"^ *{re.escape(start)} +(.*)$", table, re.M)
    return [float(word) for word in str(found).split()]


def test_first_figures_are_those_of_the_tables() -> None:
    """So a new run of the benchmarks changes the README, too."""
    opening = " ".join(README[: README.index("## ")].replace("**", "").split())
    pages = section("Pages")
    programs = sum(int(count) for count in re.findall(r"(\d+) of ", pages.splitlines()[0]))
    assert f"{programs * 4096 >> 20} MiB of memory of real programs" in opening
    host, to_zram = 1, 3
    lz4, zstd = row(pages, "preswapd lz4"), row(pages, "preswapd zstd")
    assert f"take {lz4[host]:.0f} MiB of the host's with LZ4, {zstd[host]:.0f} MiB with" in opening
    assert f"{lz4[to_zram]:.2f} and {zstd[to_zram]:.2f} times what zram takes" in opening
    store = section("Guests").partition("\nstore\n")[2]
    written, requests = 3, 8
    ours, file = row(store, "50 %  preswapd lz4"), row(store, "50 %  file, cache=none")
    assert ours[written] == 0
    assert "wrote nothing to disk" in opening
    assert f"{file[written]:.0f} MiB to a swap file" in opening
    assert f"{(ours[requests] / file[requests] - 1) * 100:.0f} % more requests" in opening
    compared = (ROOT / "docs/compared.md").read_text()
    zram, cached = row(store, "50 %  zram lz4"), row(store, "50 %  file, cache=writeback")
    assert f"{zram[requests] * 1000:,.0f} requests a second on zram" in compared
    assert f"{ours[requests] * 1000:,.0f} on preswapd" in compared
    assert f"{file[written]:.0f} MiB in a run" in compared
    assert f"written to disk all the same ({cached[written]:.0f} MiB)" in compared
    (to_dd,) = re.findall(r"^ *ratio +([\d.]+)", section("Giving back"), re.M)
    assert f"as dd ({to_dd})" in opening


# --- understood ---


def place_of_command(group: click.Group, words: list[str]) -> int:
    """An instance may be called as a command is (`--instance images`)."""
    options = (option for option in group.params if isinstance(option, click.Option))
    valued = {name for option in options if not option.is_flag for name in option.opts}
    for at, (before, word) in enumerate(itertools.pairwise(["", *words])):
        if word in group.commands and before not in valued:
            return at
    return 0  # None of ours: the first word is complained of.


def understood(group: click.Group, words: list[str]) -> None:
    """Parsed as if it were run: options, arguments and their values."""
    at = place_of_command(group, words)
    context = group.make_context(group.name, words[: at + 1])
    name, command, rest = group.resolve_command(context, words[at:])
    assert command is not None
    command.make_context(name, rest, parent=context)


# At the left margin, or where a shell expects a command: not in a table, nor in a message.
CALL = re.compile(r"(?:^|[(|;&] ?|sudo )(?:\.venv/bin/)?(preswap(?:d|ctl) [^#|>;&)]*)")


def commands_of(document: Path) -> Iterator[list[str]]:
    """The calls of our commands in the document's code; "..." is what the reader fills in."""
    for line in code_lines(document.read_text()):
        for call in CALL.findall(line):
            yield shlex.split(call)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_understood(document: Path) -> None:
    for command, *words in commands_of(document):
        try:
            understood({"preswapd": preswapd, "preswapctl": preswapctl}[command], words)
        except click.ClickException as error:
            raise AssertionError(
                f"{command} {shlex.join(words)}: {error.format_message()}"
            ) from None


def test_documents_have_commands() -> None:
    assert sum(1 for document in DOCUMENTS for _ in commands_of(document)) > 40
