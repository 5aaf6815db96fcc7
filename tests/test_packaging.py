# SPDX-License-Identifier: BSD-3-Clause
"""What gets installed and what gets published: an incomplete package is seen only by users."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Both archives are put together in the checkout, so one worker makes them.
pytestmark = pytest.mark.xdist_group("packaging")

SETUPTOOLS = [sys.executable, "-W", "ignore", "-c", "import setuptools; setuptools.setup()", "-q"]

# Other tests write bytecode beside the sources meanwhile, and a file that vanishes ends setuptools.
COMES_AND_GOES = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis"
)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in the source archive, without the folder they stand in."""
    out = tmp_path_factory.mktemp("sdist")
    tree = shutil.copytree(ROOT, out / "tree", ignore=COMES_AND_GOES)
    command = [*SETUPTOOLS, "egg_info", "--egg-base", str(out), "sdist", "--dist-dir", str(out)]
    subprocess.run(command, cwd=tree, check=True, timeout=60)
    (archive,) = out.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        return {name.partition("/")[2] for name in tar.getnames()}


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


def test_sdist_holds_every_source(sdist: set[str]) -> None:
    code = tracked("preswapd", "nbd_plugin", "benchmarks", "tests", "tools")
    assert code | tracked("docs", "systemd", "contrib") <= sdist


def test_sdist_holds_what_it_is_built_with(sdist: set[str]) -> None:
    wanted = {"pyproject.toml", "Makefile", "LICENSE", ".editorconfig"}
    assert wanted | {path.name for path in ROOT.glob("*.md")} <= sdist


def test_sdist_holds_nothing_built(sdist: set[str]) -> None:
    assert not [name for name in sdist if name.endswith((".so", ".pyc"))]


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
