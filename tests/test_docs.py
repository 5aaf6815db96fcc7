# SPDX-License-Identifier: BSD-3-Clause
"""What the documents name is there: files of the repository, what they link to, and functions."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    {*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("[!.]*/README.md")}
)
# Whole, or as seen from the package or the tests.
FOLDERS = (ROOT, ROOT / "preswapd", ROOT / "tests")
SUFFIXED = re.compile(r"`([\w.-]+(?:/[\w.-]+)*/[\w-]+\.(?:py|pyx|c|h|md|toml|yml|svg))(?:::\w+)?`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
LINK_TO_HEADING = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.M)

# The documents that follow a request or a change from function to function.
WALKS = (ROOT / "CONTRIBUTING.md", ROOT / "docs/development.md", ROOT / "docs/glossary.md")
FUNCTION = re.compile(r"`(\w+)\(\)`")
FUNCTION_IN_FILE = re.compile(r"`(\w+)\(\)`[^`.;:]*?\bin\s+`([\w./-]+\.(?:py|pyx|c|h))`")
CYTHON_FUNCTION = re.compile(r"^[ \t]*(?:def|cdef|cpdef)\b[^(=\n]*?(\w+)\(", re.M)
# At the left margin, or behind the type alone: calls are indented.
C_FUNCTION = re.compile(r"^\w[\w \t*]*?\b(\w+)\([^;]*?\)\s*\{", re.M)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_and_links_exist(document: Path) -> None:
    text = document.read_text()
    named = set(SUFFIXED.findall(text))
    gone = {name for name in named if not any((folder / name).exists() for folder in FOLDERS)}
    linked = {link for link in LINK.findall(text) if "://" not in link}
    gone |= {link for link in linked if not (document.parent / link).exists()}
    assert not gone


def anchor(heading: str) -> str:
    """What a link to it ends with: letters, digits and hyphens."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_linked_headings_exist(document: Path) -> None:
    gone = {
        f"{file}#{name}"
        for file, name in LINK_TO_HEADING.findall(document.read_text())
        if "://" not in file
        for target in [document.parent / file if file else document]
        if name not in map(anchor, HEADING.findall(target.read_text()))
    }
    assert not gone


def functions_in(path: Path) -> Iterator[str]:
    """What the file defines; a declaration is not enough."""
    text = path.read_text()
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name
    else:
        yield from (C_FUNCTION if path.suffix in (".c", ".h") else CYTHON_FUNCTION).findall(text)


@pytest.fixture(scope="module")
def functions() -> set[str]:
    return {
        name
        for top in ("preswapd", "nbd_plugin")
        for path in (ROOT / top).rglob("*")
        if path.suffix in (".py", ".pyx", ".pxd", ".c", ".h")
        for name in functions_in(path)
    }


@pytest.mark.parametrize("document", WALKS, ids=lambda path: path.name)
def test_named_functions_exist(document: Path, functions: set[str]) -> None:
    assert set(FUNCTION.findall(document.read_text())) <= functions


@pytest.mark.parametrize("document", WALKS, ids=lambda path: path.name)
def test_named_functions_are_in_the_named_file(document: Path) -> None:
    elsewhere = {
        (name, file)
        for name, file in FUNCTION_IN_FILE.findall(document.read_text())
        for path in [folder / file for folder in FOLDERS if (folder / file).is_file()][:1]
        if name not in functions_in(path)
    }
    assert not elsewhere


def test_the_walk_names_functions() -> None:
    assert len(set(FUNCTION.findall((ROOT / "docs/development.md").read_text()))) > 40
