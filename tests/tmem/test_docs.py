# SPDX-License-Identifier: BSD-3-Clause
"""The examples of docs/tmem.md do what the page says."""

import doctest
from pathlib import Path

DOC = Path(__file__).parents[2] / "docs" / "tmem.md"


def test_examples_of_the_page(shm: Path) -> None:
    text = DOC.read_text().replace("/dev/shm/cache", str(shm))
    example = doctest.DocTestParser().get_doctest(text, {}, DOC.name, str(DOC), 0)
    result = doctest.DocTestRunner().run(example)
    assert result.attempted > 10
    assert result.failed == 0
