"""What the documents name is there: files of the repository, and what they link to."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("[!.]*/README.md")]
)
# Whole, or as seen from the package or the tests.
FOLDERS = (ROOT, ROOT / "preswapd", ROOT / "tests")
SUFFIXED = re.compile(r"`([\w.-]+(?:/[\w.-]+)*/[\w-]+\.(?:py|pyx|c|h|md|toml|yml|svg))(?:::\w+)?`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_and_links_exist(document: Path) -> None:
    text = document.read_text()
    named = set(SUFFIXED.findall(text))
    gone = {name for name in named if not any((folder / name).exists() for folder in FOLDERS)}
    linked = {link for link in LINK.findall(text) if "://" not in link}
    gone |= {link for link in linked if not (document.parent / link).exists()}
    assert not gone
