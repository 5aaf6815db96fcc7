# SPDX-License-Identifier: BSD-3-Clause
"""Every setting is written once, and the documents say what the table says."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from preswapd.api.kinds import FLAG, PAGES, SIZE, or_word
from preswapd.api.settings import (
    DEVICE,
    INSTANCE,
    START,
    Place,
    Setting,
    said_in,
    sysctl_rows,
)
from preswapd.paths import RuntimePaths, SharedMemoryPaths, StatePaths
from preswapd.preswap.settings import DeviceSpec, Settings
from preswapd.server.config.merged import Config

ROOT = Path(__file__).parents[2]
ROOM = Setting("room", or_word(SIZE, "off", 0), START, "memory", "off", table="writeback")


def test_one_name_in_every_place() -> None:
    assert ROOM.at == ("writeback", "room")
    assert (ROOM.name, ROOM.parameter) == ("writeback-room", "writeback_room")
    assert ROOM.sysctl_key("vm1") == "preswap.vm1.writeback_room"
    assert ROOM.sysctl_key("vm1", "g1") == "preswap.vm1.g1.writeback_room"
    assert ROOM.help == "Memory. Default: off."


@pytest.mark.parametrize("settings", [INSTANCE, DEVICE])
def test_names_are_told_apart(settings: tuple[Setting, ...]) -> None:
    names = [setting.name for setting in settings]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("setting", [*INSTANCE, *DEVICE], ids=lambda setting: setting.name)
def test_meaning_reads_as_part_of_a_table(setting: Setting) -> None:
    """And as a sentence, once it has a capital letter and a full stop."""
    first, last = setting.meaning[0], setting.meaning[-1]
    assert first == first.lower()
    assert last not in ".,;:"
    assert "|" not in setting.meaning + setting.default


# --- kinds ---


def test_word_that_stands_for_a_value() -> None:
    kind = ROOM.kind
    assert [kind.parse(text) for text in ("off", "64M")] == [0, 64 << 20]
    assert [kind.from_toml(value) for value in ("off", "1K", 1024)] == [0, 1024, 1024]
    assert [kind.to_toml(value) for value in (0, 64 << 20)] == ["off", "64M"]
    assert [kind.to_sysctl(value) for value in (0, 1024)] == ["off", 1024]


def test_flag() -> None:
    assert [FLAG.parse(text) for text in "01"] == [False, True]
    assert [FLAG.from_toml(value) for value in (0, 1)] == [False, True]
    assert [FLAG.to_toml(value) for value in (False, True)] == [0, 1]


def test_pages_of_a_file_are_those_of_sysctl() -> None:
    assert PAGES.from_toml(100) == PAGES.from_toml("400K") == PAGES.parse("400K") == 100


# --- what takes a setting to its effect ---


def test_settings_of_a_start_have_a_field() -> None:
    """Settings, Config or InstancePaths in `preswapd/`, see CONTRIBUTING.md."""
    homes = (Settings, Config, RuntimePaths, SharedMemoryPaths, StatePaths)
    there = {field.name for home in homes for field in fields(home)}
    wanted = {setting.parameter for setting in INSTANCE if setting.places & START}
    assert wanted <= there, "a setting without a field that holds it"
    wanted = {setting.parameter for setting in DEVICE if setting.places & START}
    assert wanted <= {field.name for field in fields(DeviceSpec)}


# --- documents ---


@pytest.mark.parametrize(
    "setting", said_in(Place.FILE, (*INSTANCE, *DEVICE)), ids=lambda setting: setting.name
)
def test_example_says_what_the_table_says(setting: Setting) -> None:
    example = (ROOT / "systemd/example.toml").read_text()
    comment = re.sub(r"\n# ", " ", f"# {setting.help}")
    paragraphs = [re.sub(r"\n# ", " ", part) for part in example.split("\n\n")]
    beginning = f"{comment}\n#{setting.key} = "
    found = any(part.startswith(beginning) for part in paragraphs)
    assert found, f"systemd/example.toml has no paragraph that begins with\n{beginning}"


def test_every_key_is_in_the_help_of_sysctl() -> None:
    from_help = subprocess.run(
        [Path(sys.executable).parent / "preswapctl", "sysctl", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    text = " ".join(from_help.stdout.split())
    for key, setting in sysctl_rows():
        assert f"{key} {setting.meaning}" in text
