# SPDX-License-Identifier: BSD-3-Clause
"""What gets installed and what gets published: an incomplete package is seen only by users."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
# Both archives are put together in the checkout, so one worker makes them.
pytestmark = pytest.mark.xdist_group("packaging")

# As the Makefile calls it (KNOWN_EXPERIMENTAL).
SETUP = ["-W", "ignore:`[tool.", "-c", "import setuptools; setuptools.setup()", "-q"]
SETUPTOOLS = [sys.executable, *SETUP]

# Other tests write bytecode beside the sources meanwhile, and a file that vanishes ends setuptools.
COMES_AND_GOES = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis"
)

BUILT = ("_x.cpython-311-x86_64-linux-gnu.so", "__pycache__/x.pyc", "__pycache__/x.pyc.1234")


class Archive(NamedTuple):
    """A source archive: its names, without the folder they stand in, and what making it said."""

    names: set[str]
    said: str


def archive_of(tree: Path, out: Path) -> Archive:
    command = [*SETUPTOOLS, "egg_info", "--egg-base", str(out), "sdist", "--dist-dir", str(out)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True, timeout=60)
    (archive,) = out.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    return Archive(names, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout as it is cloned."""
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("tree") / "tree", ignore=COMES_AND_GOES)


@pytest.fixture(scope="module")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return archive_of(tree, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files that go into a wheel beside the compiled extensions."""
    out = tmp_path_factory.mktemp("wheel")
    lib = out / "lib"
    command = [*SETUPTOOLS, "egg_info", "--egg-base", str(out), "build_py", "--build-lib", str(lib)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    return {str(path.relative_to(lib)) for path in lib.rglob("*")}


def tracked(*folders: str) -> set[str]:
    """What belongs to the project: the folders' files, less what was built or cached there."""
    return {
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in {".so", ".pyc"}
    }


def test_sdist_holds_every_source(sdist: Archive) -> None:
    code = tracked("preswapd", "nbd_plugin", "benchmarks", "tests", "tools")
    assert code | tracked("docs", "systemd", "contrib") <= sdist.names


def test_sdist_holds_what_it_is_built_with(sdist: Archive) -> None:
    wanted = {"pyproject.toml", "Makefile", "LICENSE", ".editorconfig"}
    assert wanted | {path.name for path in ROOT.glob("*.md")} <= sdist.names


def test_sdist_is_made_without_a_word(sdist: Archive) -> None:
    """setuptools warns of each pattern in MANIFEST.in for which there is nothing."""
    assert sdist.said == ""


def test_sdist_holds_nothing_built(sdist: Archive, tree: Path, tmp_path: Path) -> None:
    for folder, name in product(("preswapd", "tests", "benchmarks"), BUILT):
        built = tree / folder / name
        built.parent.mkdir(exist_ok=True)
        built.write_text("")
    assert archive_of(tree, tmp_path).names == sdist.names


def test_wheel_holds_the_plugin_script(installed: set[str]) -> None:
    assert "nbd_plugin/preswap.py" in installed


def test_wheel_holds_every_module_and_its_types(installed: set[str]) -> None:
    code = tracked("preswapd", "nbd_plugin")
    wanted = {name for name in code if name.endswith((".py", ".pyi", ".typed"))}
    assert wanted <= installed


def test_every_extension_has_types() -> None:
    extensions = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "ext-modules"
    ]
    for extension in extensions:
        assert (ROOT / extension["name"].replace(".", "/")).with_suffix(".pyi").is_file()
