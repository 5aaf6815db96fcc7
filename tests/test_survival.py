# SPDX-License-Identifier: BSD-3-Clause
"""docs/moving-and-rebooting.md: each row of its tables names tests, and each of them is there."""

import re
from pathlib import Path

import pytest

from tests.faults.test_table import names_in

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent / "docs" / "moving-and-rebooting.md"
# All that the last column has.
TEST = r"`[\w/]+\.py::test_\w+`"
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
ROW = re.compile(rf"\| [^|]+ \| [^|]+ \| {TEST}(?:, {TEST})* \|")
HEADS = ("| what happens | what becomes of it | test |", "|---|---|---|")


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|") and line not in HEADS]


def faults(text: str) -> list[str]:
    """Rows without a test, and tests that are not there."""
    wrong = [row for row in rows(text) if not ROW.fullmatch(row)]
    missing = [
        f"{file}::{name}"
        for file, name in NAMED.findall(text)
        if name not in names_in(TESTS / file)
    ]
    return wrong + missing


def test_each_row_names_tests_that_exist() -> None:
    text = DOCUMENT.read_text()
    assert len(rows(text)) > 50
    assert faults(text) == []


@pytest.mark.parametrize(
    "row",
    [
        "| a reboot | all stays | |",
        "| a reboot | all stays | none |",
        "| a reboot | all stays | `test_survival.py::test_that_is_not_there` |",
        "| a reboot | all stays | `test_gone.py::test_each_row_names_tests_that_exist` |",
    ],
)
def test_row_without_a_test_is_found(row: str) -> None:
    assert faults(row)


@pytest.mark.parametrize("file", ["guest/test_moving.py", "guest/test_lives.py"])
def test_what_real_guests_have_met_has_a_row(file: str) -> None:
    named = {name for where, name in NAMED.findall(DOCUMENT.read_text()) if where == file}
    assert names_in(TESTS / file) - named == set()


def test_there_is_one_such_table() -> None:
    documents = [*TESTS.parent.glob("*.md"), *(TESTS.parent / "docs").rglob("*.md")]
    assert [path for path in documents if HEADS[0] in path.read_text()] == [DOCUMENT]
