# SPDX-License-Identifier: BSD-3-Clause
"""Every setting is written once, and the documents say what the table says."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preswapd.api.kinds import (
    AGE,
    AGE_OR_AUTO,
    AUTO,
    FLAG,
    LONGEST_AGE,
    OFF,
    PAGES,
    RATE,
    RECOMPRESS_CODEC,
    ROOM,
    SIZE,
    WAIT,
    Kind,
    or_word,
)
from preswapd.api.settings import (
    DEFAULT,
    DEVICE,
    INSTANCE,
    POLICY,
    REMOTE_USED,
    START,
    VM_REMOTE,
    Place,
    Setting,
    said_in,
    sysctl_rows,
)
from preswapd.errors import PreswapError
from preswapd.paths import InstancePaths, RuntimePaths, SharedMemoryPaths, StatePaths
from preswapd.preswap.policy import Policy
from preswapd.preswap.settings import DeviceSpec, Settings
from preswapd.server.config.merged import Config

ROOT = Path(__file__).parents[2]
LEFT = Setting("left", or_word(SIZE, "off", 0), START, "memory", "off", table="writeback")


def test_one_name_in_every_place() -> None:
    assert LEFT.at == ("writeback", "left")
    assert (LEFT.name, LEFT.parameter) == ("writeback-left", "writeback_left")
    assert LEFT.sysctl_key("vm1") == "preswap.vm1.writeback_left"
    assert LEFT.sysctl_key("vm1", "g1") == "preswap.vm1.g1.writeback_left"
    assert LEFT.help == "Memory. Default: off."


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


def test_key_of_its_own() -> None:
    assert REMOTE_USED.sysctl_key("vm1") == VM_REMOTE == "vm.remote"


# --- kinds ---


def test_word_that_stands_for_a_value() -> None:
    kind = LEFT.kind
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


@pytest.mark.parametrize(("text", "value"), [("64M", 64 << 20), ("64M/s", 64 << 20), ("off", OFF)])
def test_rate(text: str, value: int | str) -> None:
    assert RATE.parse(text) == RATE.from_toml(text) == value


@pytest.mark.parametrize("text", ["5ms", "5 ms", "0.005s", "5000us"])
def test_short_time(text: str) -> None:
    assert WAIT.parse(text) == WAIT.from_toml(text) == 5.0
    assert WAIT.to_toml(5.0) == "5ms"


@pytest.mark.parametrize("said", ["0", "0%", 0, 0.0, "off"])
def test_no_room_is_off(said: Any) -> None:
    assert ROOM.from_toml(said) == 0
    assert ROOM.to_toml(0.0) == ROOM.to_sysctl(0.0) == "off"


@pytest.mark.parametrize("said", ["5%", "5 %", "5", 5, 5.0])
def test_room(said: Any) -> None:
    assert ROOM.from_toml(said) == 0.05


@pytest.mark.parametrize(
    ("kind", "said", "complaint"),
    [
        (ROOM, "0.05", "0.05% is out of range: from 1% to 50%, or off"),
        (ROOM, "51%", "51% is out of range: from 1% to 50%, or off"),
        (ROOM, "64M", "'64M' is not a share: write it like 5% or 7.5%, or off"),
        (ROOM, False, 'a share is expected, like "5%", or "off"'),
        (AGE, 0, '0s is out of range: from 1s to 30d, or "off"'),
        (AGE, "31d", "31d is out of range: from 1s to 30d, or off"),
        (AGE, "auto", "'auto' is not a duration: write it like 30m, 2h or 90s, or off"),
        (AGE, 1.5, 'a duration is expected, like "30m", or "off"'),
        (AGE_OR_AUTO, "x", "'x' is not a duration: write it like 30m, 2h or 90s, or auto, or off"),
        (AGE_OR_AUTO, True, 'a duration is expected, like "30m", or "auto", or "off"'),
        (RATE, "32", "32 bytes a second is less than a page: at least 4K, like 32M, or off"),
        (RATE, "fast", "'fast' is not a size: write it like 512M, 4G, 1GiB or 4096, or off"),
        (WAIT, "50us", "0.05ms is out of range: from 0.1ms to 1000ms"),
        (WAIT, "fast", "'fast' is not a short time: write it like 5ms or 500us"),
        (RECOMPRESS_CODEC, "none", "'none' is not a codec: the choices are zstd, lz4, or off"),
        (RECOMPRESS_CODEC, 1, 'a string in quotes is expected, or "off"'),
    ],
)
def test_what_is_refused(kind: Kind, said: Any, complaint: str) -> None:
    with pytest.raises((ValueError, PreswapError)) as refused:
        kind.from_toml(said)
    assert str(refused.value) == complaint


values = {
    "writeback_room": st.just(0.0) | st.integers(100, 5000).map(lambda found: found / 10000),
    "writeback_idle": st.sampled_from([OFF, AUTO]) | st.integers(1, LONGEST_AGE),
    "writeback_rate": st.just(OFF) | st.integers(4096, 1 << 40),
    "recompress_after": st.just(OFF) | st.integers(1, LONGEST_AGE),
    "recompress_codec": st.sampled_from(["zstd", "lz4", OFF]),
}


@given(st.fixed_dictionaries(values))
def test_what_is_shown_can_be_set(said: dict[str, Any]) -> None:
    """Also as a number of JSON, which the control API takes as its text."""
    assert said.keys() == {setting.parameter for setting in POLICY}
    for setting in POLICY:
        kind, value = setting.kind, said[setting.parameter]
        assert kind.from_toml(kind.to_toml(value)) == value
        assert kind.parse(str(kind.to_toml(value))) == value
        assert kind.parse(str(kind.to_sysctl(value))) == value


@given(st.sampled_from(POLICY), st.text(max_size=8))
def test_any_text_is_a_value_or_a_complaint(setting: Setting, text: str) -> None:
    kind = setting.kind
    try:
        value = kind.parse(text)
    except (ValueError, PreswapError):
        return
    assert kind.parse(str(kind.to_sysctl(value))) == value
    assert text != DEFAULT


# --- what takes a setting to its effect ---

PATHS = InstancePaths(Path("/r"), Path("/m"), Path("/s"))


def test_defaults_are_those_of_the_policy() -> None:
    """And those that the help names."""
    settings, policy = Settings("vm1", PATHS, 1), Policy()
    policy.follow(settings)
    assert policy == Policy()
    for setting in POLICY:
        assert setting.kind.parse(setting.default) == getattr(settings, setting.parameter)


@given(st.fixed_dictionaries(values))
def test_policy_is_what_was_said(said: dict[str, Any]) -> None:
    policy = Policy()
    policy.follow(Settings("vm1", PATHS, 1, **said))
    for name in ("writeback_room", "writeback_idle", "writeback_rate"):
        value = said[name]
        assert getattr(policy, name) == (None if value == OFF else value)
    codec, after = said["recompress_codec"], said["recompress_after"]
    assert policy.recompress_after == (None if OFF in (codec, after) else after)
    assert policy.recompress_codec == ("zstd" if codec == OFF else codec)


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
