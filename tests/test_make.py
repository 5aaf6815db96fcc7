# SPDX-License-Identifier: BSD-3-Clause
"""`make` installs into .venv, whatever pip is told elsewhere, and looks whether it did."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.running import run

ROOT = Path(__file__).parents[1]
WHEEL = {
    "found_here.py": "",
    "found_here-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: found-here\nVersion: 1\n",
    "found_here-1.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
    "found_here-1.dist-info/RECORD": "",
}
# Where each package is that preswapd needs.
NEEDED = f"""
import runpy
needed_by = runpy.run_path({str(ROOT / "tools/install-app")!r})["needed_by"]
for package in needed_by("preswapd", {{}}).values():
    print(package.locate_file(""))
"""


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the Makefile makes it."""
    found = tmp_path_factory.mktemp("made") / "venv"
    command = ["/usr/bin/python3", "-m", "venv", "--system-site-packages", str(found)]
    subprocess.run(command, check=True)
    return found


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    with zipfile.ZipFile(folder / "found_here-1-py3-none-any.whl", "w") as wheel:
        for name, text in WHEEL.items():
            wheel.writestr(name, text)
    return folder


def settings(tmp_path: Path) -> list[tuple[dict[str, str], str]]:
    """Variables, and what stands in pip.conf."""
    elsewhere = tmp_path / "elsewhere"
    return [
        ({"PIP_USER": "1"}, ""),
        ({}, "[install]\nuser = true\n"),
        ({"PIP_TARGET": str(elsewhere)}, "[global]\nuser = true\n"),
        ({}, f"[install]\ntarget = {elsewhere}\n"),
        ({"PIP_ROOT": str(elsewhere)}, f"[install]\nprefix = {elsewhere}\n"),
        ({"PIP_DRY_RUN": "1", "PIP_PYTHON": "/usr/bin/python3"}, "[global]\ndry-run = true\n"),
        ({"PYTHONUSERBASE": str(elsewhere), "PIP_USER": "1"}, ""),
        ({"PYTHONPATH": str(elsewhere)}, ""),
    ]


@pytest.mark.parametrize("number", range(len(settings(Path()))))
def test_pips_settings_do_not_change_where_it_goes(
    venv: Path, wheels: Path, tmp_path: Path, number: int
) -> None:
    variables, conf = settings(tmp_path)[number]
    home = tmp_path / "home"
    (home / ".config/pip").mkdir(parents=True)
    (home / ".config/pip/pip.conf").write_text(conf)
    (tmp_path / "elsewhere").mkdir()
    with zipfile.ZipFile(next(wheels.iterdir())) as wheel:
        # There it is installed already, for whoever looks there.
        if "PYTHONPATH" in variables:
            wheel.extractall(tmp_path / "elsewhere")
    before = set(tmp_path.rglob("found_here*"))
    pip = [str(venv / "bin/python"), str(ROOT / "tools/pip"), "-qq", "install", "found-here"]
    env = {"HOME": str(home), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), **variables}
    done = run(pip, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    installed = list(venv.rglob("found_here*"))
    assert {path.name for path in installed} >= {"found_here.py", "found_here-1.dist-info"}
    assert set(tmp_path.rglob("found_here*")) == before
    for path in installed:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def test_pip_does_not_count_what_is_the_distributions(venv: Path, tmp_path: Path) -> None:
    """The environment sees it all the same."""
    pip = [str(venv / "bin/python"), str(ROOT / "tools/pip"), "-qq"]
    sees = [str(venv / "bin/python"), "-c", "import sys; print(*sys.path, sep='\\n')"]
    before = run(sees).stdout
    assert "/usr/lib/python3/dist-packages" in before.splitlines()
    shown = run([*pip[:-1], "list", "--format=freeze"])
    assert {line.split("=")[0] for line in shown.stdout.splitlines()} <= {"pip", "setuptools"}
    assert run(sees).stdout == before
    assert run([*pip, "install", "--no-index", "not-there"]).returncode == 1
    assert run(sees).stdout == before


def test_where_packages_come_from_still_counts(venv: Path, tmp_path: Path) -> None:
    """Mirrors, proxies, certificates: from files and from variables, which win."""
    conf = tmp_path / "pip.conf"
    conf.write_text(
        "[global]\nindex-url = https://mirror/simple\nextra-index-url =\n  https://a\n  https://b\n"
        "retries = 3\nuser = true\n"
    )
    env = {"PIP_CONFIG_FILE": str(conf), "PIP_RETRIES": "7"}
    done = run([str(venv / "bin/python"), str(ROOT / "tools/pip"), "config", "list"], env=env)
    shown = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert shown[":env:.index-url"] == "'https://mirror/simple'"
    assert re.findall(r"https://\w", shown[":env:.extra-index-url"]) == ["https://a", "https://b"]
    assert shown[":env:.retries"] == "'7'"
    assert not any("user" in name for name in shown)


def test_make_takes_no_python_settings_from_outside() -> None:
    """Also those of the interpreters that its recipes run."""
    outside = {"PYTHONHOME": "/nowhere", "PYTHONPATH": "/nowhere", "PYTHONWARNINGS": "error"}
    made = ["make", "-C", str(ROOT), "-s", "--eval=seen: ; env", "seen"]
    seen = run(made, env={**outside, "PYTHONOPTIMIZE": "2", "PYTHONUSERBASE": "/nowhere"}).stdout
    assert not [
        line for line in seen.splitlines() if re.match(r"PYTHON(?!DONT|UNBUF|NOUSER)", line)
    ]


def test_make_looks_whether_the_commands_are_there(tmp_path: Path) -> None:
    """As where pip has put them somewhere else and was content."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    checked = ["make", "-C", str(ROOT), f"VENV={tmp_path}", "looked-at"]
    done = run(checked)
    assert done.returncode != 0
    assert f"{tmp_path}/bin/preswapd does not run" in done.stderr
    for name in ("preswapd", "preswapctl"):
        os.symlink(ROOT / ".venv/bin" / name, tmp_path / "bin" / name)
    assert run(checked).returncode == 0


def test_venv_is_made_once_where_python_comes_with_the_packages(tmp_path: Path) -> None:
    """As in a bare system."""
    python = tmp_path / "python3"
    packages = tmp_path / "packages"
    packages.write_text(f"#!/bin/sh\nln -sf /usr/bin/true {python}\n")
    packages.chmod(0o755)
    own = [f"VENV={tmp_path}/venv", f"PYTHON={python}", f"SYSTEM_PACKAGES={packages}", "PIP=true"]
    make = ["make", "-C", str(ROOT), *own]
    assert "-m venv" in run([*make, created(tmp_path / "venv", "")]).stdout
    stamp = created(tmp_path / "venv", Path("/usr/bin/true").resolve().name)
    assert run([*make, "--question", stamp]).returncode == 0


def created(venv: Path, python: str, place: Path = ROOT) -> str:
    """The stamp of a virtual environment that was made for this Python, in a checkout there."""
    place_number = run(["sh", "-c", f"cd '{place}' && pwd -P | cksum"]).stdout.split()[0]
    return f"{venv}/.created-for-{python}-in-{place_number}"


@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize("upgraded", [True, False])
def test_venv_of_another_python_or_place_is_made_anew(
    tmp_path: Path, upgraded: bool, moved: bool
) -> None:
    """After an upgrade of the distribution nothing in it would be found, and the commands of a
    checkout that was copied would be those of the other one."""
    make = ["make", "-C", str(ROOT), "-n", f"VENV={tmp_path}", "SYSTEM_PACKAGES=true", "build"]
    python = "python3.0" if upgraded else Path("/usr/bin/python3").resolve().name
    Path(created(tmp_path, python, tmp_path if moved else ROOT)).touch()
    assert (f" --clear {tmp_path}" in run(make).stdout) == (upgraded or moved)


def test_packages_that_were_left_alone_are_looked_at_by_the_next_make(tmp_path: Path) -> None:
    venv, told = tmp_path / "venv", tmp_path / "told"
    packages = tmp_path / "packages"
    packages.write_text(f'#!/bin/sh\necho "$1" >>{told}\n')
    packages.chmod(0o755)
    left_alone, looked_at = f"{venv}/.packages-not-looked-at-demo", f"{venv}/.packages-demo"
    make = ["make", "-C", str(ROOT), f"VENV={venv}"]
    assert run([*make, "SYSTEM_PACKAGES=true", left_alone]).returncode == 0
    for _ in range(2):
        assert run([*make, f"SYSTEM_PACKAGES={packages}", looked_at]).returncode == 0
    assert told.read_text() == "demo\n"
    needed = run([*make, "-n", f"SYSTEM_PACKAGES={packages}", "demo"]).stdout
    assert "packages build" in needed
    assert "packages demo" not in needed


@pytest.mark.parametrize("brought", ["true", "tools/system-packages"])
@pytest.mark.parametrize("now", ["true", "tools/system-packages"])
def test_what_was_built_is_installed_whoever_has_brought_the_packages(
    tmp_path: Path, brought: str, now: str
) -> None:
    """Root builds nothing in somebody else's checkout, so it must find all of it done."""
    stamps = [Path(created(tmp_path, Path("/usr/bin/python3").resolve().name))]
    stamps += [tmp_path / ".installed", tmp_path / ".built"]
    for stamp in stamps:
        stamp.touch()
    make = ["make", "-C", str(ROOT), f"VENV={tmp_path}"]
    assert run([*make, f"SYSTEM_PACKAGES={now}", "built"]).returncode != 0
    dry = run([*make, "-n", "--assume-new=pyproject.toml", f"SYSTEM_PACKAGES={brought}", "build"])
    touched = re.findall(r"^touch (.*)", dry.stdout, re.MULTILINE)[-1].partition("#")[0]
    for name in touched.split():
        (ROOT / name).touch()
    assert run([*make, f"SYSTEM_PACKAGES={now}", "built"]).returncode == 0


def test_what_runs_is_none_of_the_distributions() -> None:
    """Which takes its packages away, and gives them other versions, when it likes."""
    needed = run([sys.executable, "-c", NEEDED]).stdout.split()
    assert len(needed) > 5
    assert {Path(folder) for folder in needed} == {Path(sysconfig.get_path("purelib"))}


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute of a processor, which others may want too
def test_build_has_nothing_to_say(tmp_path: Path) -> None:
    """Neither Cython, nor the compiler, setuptools or Python warn of anything."""
    where = ["--force", f"--build-temp={tmp_path}/made", f"--build-lib={tmp_path}/lib"]
    build = ["-c", "import setuptools; setuptools.setup()", "--quiet", "build_ext", *where]
    # KNOWN_EXPERIMENTAL, and what the oldest setuptools allowed says of commands of its own.
    known = ["-W", "ignore:`[tool.", "-W", "ignore:pkg_resources is deprecated"]
    warnings = ["-X", "dev", "-W", "error", *known]
    done = subprocess.run(
        [sys.executable, *warnings, *build],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert list(tmp_path.rglob("_device.*.so"))
