# SPDX-License-Identifier: BSD-3-Clause
"""The document of all tables: what it is made of, and that the one in docs/ is such a document."""

import re
from pathlib import Path

from benchmarks import sections, tables

DOCUMENT = Path(__file__).parent.parent.parent / "docs/benchmark-tables.md"
RUN = {
    "date": "2026-11-25T10:00:00+00:00",
    "versions": {"preswapd": "0.1.0", "fio": "3.33"},
    "machine": {"processor": "A processor", "cores": 2, "memory": 24 << 30, "load_before": 0.1},
    "sections": {
        "recovery": {
            "stored_bytes": 1 << 30,
            "empty_seconds": [0.2, 0.3],
            "seconds": [0.3, 0.4],
            "seconds_per_gib": 0.1,
        }
    },
}


def titles(text: str) -> list[str]:
    return re.findall(r"^## (.+)$", text, re.M)


def test_run_is_told_with_its_circumstances_and_the_sections_that_it_had() -> None:
    text = tables.document(RUN)
    assert titles(text) == ["Targets", "Recovery"]
    assert "- preswapd 0.1.0, fio 3.33\n- A processor, 2 cores, 24 GiB\n" in text
    assert "each GiB stored adds 0.10 s" in text
    assert text.count("```") == 4


def test_document_of_the_last_run_is_one_of_a_whole_run() -> None:
    text = DOCUMENT.read_text()
    assert text.startswith(tables.INTRODUCTION)
    whole = [name.replace("_", " ").capitalize() for name in sections.NAMES]
    assert titles(text) == ["Targets", *whole]
