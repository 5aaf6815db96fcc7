# SPDX-License-Identifier: BSD-3-Clause
"""The manual pages: complete, and without a fault of their own."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from preswapd.__main__ import preswapd
from preswapd.api.figures import DEVICE, IMAGE, TMEM
from preswapd.cli.look.columns import DEVICE_COLUMNS, IMAGE_COLUMNS, POOL_COLUMNS
from preswapd.cli.main import preswapctl
from preswapd.commandline import INTERRUPTED
from preswapd.govern.config import GOVERNOR_KEYS, SHARE_KEYS
from preswapd.server.config.files import DEVICE_KEYS, INSTANCE_KEYS

ROOT = Path(__file__).parents[1]
PAGES = ("preswapd.8", "preswapctl.8", "preswapd.toml.5", "preswapd-governor.toml.5")
GROUPS = {"preswapd.8": preswapd, "preswapctl.8": preswapctl}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, ROOT / "tools/man-pages", folder], check=True)
    assert {path.name for path in folder.iterdir()} == set(PAGES)
    return folder


def text_of(page: Path) -> str:
    """As a person reads it, the lines put together."""
    command = ["groff", "-man", "-Tascii", "-P-c", "-rLL=1000n", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return re.sub(r".\x08", "", done.stdout)


@pytest.mark.parametrize("page", PAGES)
def test_groff_has_nothing_to_say(pages: Path, page: str) -> None:
    command = ["groff", "-man", "-ww", "-z", "-Tutf8", str(pages / page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES)
def test_mandoc_has_nothing_to_say(pages: Path, page: str) -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    # Without a date, which would only tell when the page was built.
    command = ["mandoc", "-Tlint", "-Wwarning", str(pages / page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line for line in done.stdout.splitlines() if "missing date" not in line] == []


@pytest.mark.parametrize("page", GROUPS)
def test_every_command_and_option(pages: Path, page: str) -> None:
    text = text_of(pages / page)
    group = GROUPS[page]
    context = click.Context(group)
    for name in group.list_commands(context):
        _, command, _ = group.resolve_command(context, [name])
        assert command is not None
        found = re.search(rf"^ {{3}}{re.escape(name)}( |$)", text, re.M)
        assert found, name
        # To the next heading: an option is told where its command is.
        part = re.split(r"\n {3}(?=\S)|\n(?=\S)", text[found.start() + 3 :], maxsplit=1)[0]
        for parameter in command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) else ():
                assert option in part, f"{name} {option}"
    if group is preswapctl:
        for parameter in group.params:
            assert parameter.opts[0] in text


def test_every_key(pages: Path) -> None:
    text = text_of(pages / "preswapd.toml.5")
    for key, known in (*INSTANCE_KEYS.items(), *DEVICE_KEYS.items()):
        if isinstance(known, dict):
            # A table: its keys follow it, up to the next one.
            own = re.split(rf"\n +\[{key}\]", text)[1]
            own = re.split(r"\n {5,7}\[", own)[0]
            for inner in known:
                assert re.search(rf"^ +{inner} = ", own, re.M), f"{key}.{inner}"
        else:
            assert re.search(rf"^ +{key} = ", text, re.M), key
    assert "[device.swap0]" in text


def test_every_key_of_the_governor(pages: Path) -> None:
    text = text_of(pages / "preswapd-governor.toml.5")
    for key in (*GOVERNOR_KEYS, *SHARE_KEYS):
        assert re.search(rf"^ +{key} = ", text, re.M), key
    assert "[instance.vm1]" in text


def test_every_column_and_figure(pages: Path) -> None:
    text = text_of(pages / "preswapctl.8")
    for column in (*DEVICE_COLUMNS, *IMAGE_COLUMNS, *POOL_COLUMNS):
        assert re.search(rf"^ +{re.escape(column.name)}\*?\s+{re.escape(column.help)}$", text, re.M)
    for figure in (*TMEM.values(), *DEVICE.values(), *IMAGE.values()):
        told = rf"^ +{figure.key}\s+{re.escape(figure.meaning)} \("
        assert bool(re.search(told, text, re.M)) == (not figure.internal), figure.key


@pytest.mark.parametrize(
    ("page", "statuses"),
    [("preswapd.8", {0, 1, 2, 4, 5}), ("preswapctl.8", {0, 1, 2, 3, 4, 5, INTERRUPTED})],
)
def test_every_exit_status(pages: Path, page: str, statuses: set[int]) -> None:
    text = text_of(pages / page)
    part = text.split("\nEXIT STATUS\n")[1].split("\nENVIRONMENT\n")[0]
    assert set(map(int, re.findall(r"^ +(\d+) ", part, re.M))) == statuses


def test_every_variable_of_the_environment(pages: Path) -> None:
    together = "".join(text_of(pages / page) for page in GROUPS)
    sources = [
        path
        for path in (ROOT / "preswapd").rglob("*.py")
        if "guest" not in path.parts[len(ROOT.parts) :]
    ]
    code = "".join(path.read_text() for path in sources)
    named = set(re.findall(r"environ\.get\(\"(\w+)\"|_VARIABLE = \"(\w+)\"", code))
    variables = {name for pair in named for name in pair if name} - {"PATH"}
    assert {"PRESWAPD_RUNTIME_DIR", "PRESWAPD_DEBUG", "NOTIFY_SOCKET"} <= variables
    assert [name for name in sorted(variables) if name not in together] == []
