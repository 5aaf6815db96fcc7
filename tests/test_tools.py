# SPDX-License-Identifier: BSD-3-Clause
"""The scripts in tools/: those that draw what a real server says, and the one that writes docs/."""

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.running import RunningServer, run

TOOLS = Path(__file__).parent.parent / "tools"
PNG = b"\x89PNG\r\n\x1a\n"


def test_statistics_are_plotted(module_server: RunningServer, tmp_path: Path) -> None:
    lines = module_server.ctl("stats", "--json-lines", "--interval", "0.1", "--count", "3").stdout
    recorded, picture = tmp_path / "run.jsonl", tmp_path / "run.png"
    # A second instance, and a last line that was being written when the disk was full.
    other = json.dumps({**json.loads(lines.splitlines()[0]), "instance": "vm2"})
    recorded.write_text(f'{lines}{other}\n{{"time": 17')
    done = run([sys.executable, str(TOOLS / "plot-stats"), str(recorded), str(picture)])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert picture.read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    "text", ["", "no JSON\n", "{}\n", "[]\n", '{"time": 1, "instance": "a"}\n']
)
def test_what_cannot_be_plotted_is_one_line(tmp_path: Path, text: str) -> None:
    recorded = tmp_path / "run.jsonl"
    recorded.write_text(text)
    command = [str(TOOLS / "plot-stats"), str(recorded), str(tmp_path / "run.png")]
    done = run([sys.executable, *command])
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("plot-stats: ")


def test_top_is_drawn_without_the_network(module_server: RunningServer, tmp_path: Path) -> None:
    picture = tmp_path / "top.svg"
    done = run(
        [sys.executable, str(TOOLS / "draw-top"), str(picture)],
        env={"PRESWAPD_RUNTIME_DIR": str(module_server.runtime_dir)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = picture.read_text()
    assert "LOADS/S" in "".join(ET.fromstring(text).itertext())
    assert "url(http" not in text


def test_tables_of_the_documentation_are_what_the_code_says() -> None:
    done = run([sys.executable, str(TOOLS / "tables"), "--check"])
    assert done.returncode == 0, done.stderr


def test_matrix_of_an_unknown_row_says_which_there_are() -> None:
    done = run([str(TOOLS / "ci-matrix"), "bookworm-tcc"])
    assert done.returncode == 2
    assert "bookworm-gcc" in done.stderr
    assert "trixie-oldest" in done.stderr
