# SPDX-License-Identifier: BSD-3-Clause
"""The governor's configuration: checked as an instance's is, with the file and line."""

import re
from pathlib import Path

import pytest

from preswapd import paths
from preswapd.errors import UsageError
from preswapd.govern.config import BEFORE_INSTANCES, GOVERNOR_SETTINGS, SHARE_SETTINGS, load
from preswapd.govern.policy import Rules
from preswapd.govern.shares import LEAST, Share
from preswapd.host.meminfo import default_reserve

ROOT = Path(__file__).parents[2]
GIB = 1 << 30


def written(tmp_path: Path, text: str, name: str = "governor.toml") -> Path:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_no_file_is_all_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "CONFIG_ROOT", tmp_path)
    found = load()
    assert (found.rules, found.files) == (Rules(default_reserve() + BEFORE_INSTANCES), ())
    assert found.rules.share("any") == Share(100, LEAST, None)


def test_every_key(tmp_path: Path) -> None:
    text = 'reserve = "2G"\n[instance.vm1]\nweight = 200\nfloor = "512M"\ncap = "4G"\n'
    rules = load(written(tmp_path, text)).rules
    assert rules.reserve == 2 * GIB
    assert rules.share("vm1") == Share(200, GIB // 2, 4 * GIB)
    assert rules.share("vm2") == Share()


def test_drop_ins_win_key_by_key(tmp_path: Path) -> None:
    path = written(tmp_path, 'reserve = "2G"\n[instance.vm1]\nweight = 200\ncap = "4G"\n')
    drop_in = written(tmp_path, '[instance.vm1]\ncap = "2G"\n', "governor.toml.d/10.toml")
    found = load(path)
    assert found.files == (path, drop_in)
    assert found.rules.share("vm1") == Share(200, LEAST, 2 * GIB)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("\nreserv = 1", ":2: unknown key 'reserv': the choices are reserve, [instance.NAME]"),
        ('reserve = "1M"', ":1: reserve: a reserve must be at least 64M"),
        ('reserve = "900T"', ":1: reserve: the host has "),
        ("instance = 1", ":1: instances are written as tables, [instance.NAME]"),
        ("[instance]\nvm1 = 1", ":2: an instance is written as a table, [instance.vm1]"),
        ("[instance.governor]", ":1: 'governor' is no name for an instance"),
        ('[instance."a b"]', ":1: 'a b' is not an instance name"),
        ("[instance.a]\nweight = 0", ":2: weight: 0 is out of range: from 1 to 10000"),
        ("[instance.a]\nweight = true", ":2: weight: a number is expected"),
        ('[instance.a]\nfloor = "1M"', ":2: floor: a pool must be at least 4M"),
        ("[instance.a]\nyields = true", ":2: unknown key 'yields': the choices are weight, floor"),
        (
            '[instance.a]\nfloor = "2G"\ncap = "1G"',
            ":1: the floor of a is 2G, above its cap of 1G",
        ),
    ],
)
def test_complaints(tmp_path: Path, text: str, complaint: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as found:
        load(path)
    assert str(found.value).startswith(f"{path}{complaint}")


def test_example_has_every_key_as_the_code_says_it(tmp_path: Path) -> None:
    example = (ROOT / "systemd/governor.toml").read_text()
    plain = " ".join(example.replace("# ", "").split())
    for setting in (*GOVERNOR_SETTINGS, *SHARE_SETTINGS):
        assert setting.help in plain
        assert re.search(rf"^#{setting.key} = ", example, re.M)
    lines = [line.removeprefix("#") for line in example.splitlines() if line[:2] != "# "]
    assert load(written(tmp_path, "\n".join(lines))).rules.share("vm1").cap == 2 * GIB


def test_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml: No such file"):
        load(tmp_path / "none.toml")
