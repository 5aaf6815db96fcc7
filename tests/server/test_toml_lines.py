"""On which line a key stands."""

from preswapd.server.config.toml_lines import line_of

TEXT = """\
# a comment
pool-size = "1G"

[device.g1]
size = "64M"

[device]
g2.size = "64M"
g3 = { size = "64M" }
names = [
  "a",
  "b",
]
late = 1
"""


def test_first_level() -> None:
    assert line_of(TEXT, ["pool-size"]) == 2


def test_table() -> None:
    assert line_of(TEXT, ["device", "g1"]) == 4


def test_key_in_table() -> None:
    assert line_of(TEXT, ["device", "g1", "size"]) == 5


def test_dotted_key() -> None:
    assert line_of(TEXT, ["device", "g2", "size"]) == 8


def test_inline_table() -> None:
    assert line_of(TEXT, ["device", "g3", "size"]) == 9


def test_value_over_several_lines() -> None:
    assert line_of(TEXT, ["device", "names"]) == 10


def test_key_behind_it() -> None:
    assert line_of(TEXT, ["device", "late"]) == 14


def test_other_line_ends_are_text() -> None:
    assert line_of("# \u2028 \x85\na = 1\n", ["a"]) == 2
