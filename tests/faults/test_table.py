# SPDX-License-Identifier: BSD-3-Clause
"""docs/faults.md names a test for each fault, and each test of faults has its row."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
DOCUMENT = TESTS.parent / "docs" / "faults.md"
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def rows() -> list[str]:
    """The tables' rows, without their heads."""
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    return [line for line in lines if not line.startswith(("|---", "| fault |"))]


def names_in(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    return {
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_rows_have_five_columns_and_a_test() -> None:
    assert len(rows()) > 50
    wrong = [row for row in rows() if row.count("|") != 6 or not NAMED.search(row.split("|")[5])]
    assert wrong == []


def test_named_tests_exist() -> None:
    named = NAMED.findall(DOCUMENT.read_text())
    missing = [f"{file}::{name}" for file, name in named if name not in names_in(TESTS / file)]
    assert missing == []


def test_all_tests_of_faults_are_named() -> None:
    named = {(TESTS / file, name) for file, name in NAMED.findall(DOCUMENT.read_text())}
    files = set(Path(__file__).parent.glob("test_*.py")) - {Path(__file__)}
    unnamed = [name for path in files for name in names_in(path) if (path, name) not in named]
    assert unnamed == []
