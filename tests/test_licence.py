"""Each source file names its licence, in the form that programs read."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINE = "SPDX-License-Identifier: BSD-3-Clause"
# The comment at the top of a script is its usage, and the licence stands at its end.
TOP_LINES = 30
SUFFIXES = {".py", ".pyi", ".pyx", ".pxd", ".c", ".h", ".sh"}
FOLDERS = ("preswapd", "nbd_plugin", "benchmarks", "tests", "tools", ".ci")
NOT_SOURCES = {ROOT / "tests/fuzz/corpus"}


def sources() -> Iterator[Path]:
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*")):
        if path.is_file() and not NOT_SOURCES & set(path.parents):
            is_script = not path.suffix and path.read_bytes().startswith(b"#!")
            if is_script or path.suffix in SUFFIXES:
                yield path


def test_sources_name_their_licence() -> None:
    found = list(sources())
    assert len(found) > 300
    without = [
        str(path.relative_to(ROOT))
        for path in [*found, ROOT / "Makefile"]
        if not any(LINE in line for line in path.read_text().splitlines()[:TOP_LINES])
    ]
    assert without == []
