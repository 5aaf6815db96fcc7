# SPDX-License-Identifier: BSD-3-Clause
"""The units as systemd reads them, without running them."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from preswapd.host import nbdkit
from preswapd.remote import keeping
from tests.running import run
from tests.systemd.booted import CHECKOUT

UNITS = CHECKOUT / "systemd"
TEMPLATES = ("preswapd@.service", "preswapd@.socket", "preswapd-sync@.service")
GOVERNOR = "preswapd-governor.service"
OTHERS = (GOVERNOR, "preswapd-metrics.service", "preswapd-metrics.timer")
MOST_EXPOSED = 2.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The units as they would be installed, but for the command, which is in this checkout."""
    if not Path("/usr/bin/systemd-analyze").exists():
        pytest.skip("systemd-analyze is not installed")
    for name in (*TEMPLATES, *OTHERS):
        text = (UNITS / name).read_text().replace("/opt/preswapd/", f"{CHECKOUT}/.venv/")
        # Whether the manual pages are installed here is another matter.
        (tmp_path / name).write_text(re.sub(r"^Documentation=.*\n", "", text, flags=re.M))
    return tmp_path


def test_systemd_has_nothing_to_say(folder: Path) -> None:
    units = [*(name.replace("@", "@vm1") for name in TEMPLATES), *OTHERS]
    done = subprocess.run(
        ["systemd-analyze", "verify", *units],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    about_ours = [line for line in done.stderr.splitlines() if "preswapd" in line]
    assert (done.returncode, about_ours) == (0, [])


@pytest.mark.parametrize(
    "name", ["preswapd@.service", "preswapd-sync@.service", "preswapd-metrics.service", GOVERNOR]
)
def test_hardening(folder: Path, name: str) -> None:
    unit = str(folder / name)
    done = run(["systemd-analyze", "security", "--offline=true", "--no-pager", unit])
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert level, done.stdout + done.stderr
    assert float(level[1]) <= MOST_EXPOSED


def test_units_that_forbid_new_code_have_a_python_that_makes_none() -> None:
    units = [path.read_text() for path in UNITS.glob("*.service")]
    forbidding = [text for text in units if "\nMemoryDenyWriteExecute=yes\n" in text]
    assert len(forbidding) == 4
    assert all("\nEnvironment=PYTHON_JIT=0\n" in text for text in forbidding)
    # What the server starts has it too, whatever it was started with.
    assert nbdkit.environment()["PYTHON_JIT"] == keeping.environment()["PYTHON_JIT"] == "0"


def test_user_and_folders_are_what_systemd_understands(folder: Path) -> None:
    for tool, options in (("sysusers", []), ("tmpfiles", ["--create"])):
        root = folder / f"root-{tool}"
        (root / "etc").mkdir(parents=True)
        (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\n")
        file = str(UNITS / f"{tool}.d/preswapd.conf")
        done = run([f"/usr/bin/systemd-{tool}", f"--root={root}", *options, file])
        assert (done.returncode, done.stderr.count("Failed")) == (0, 0), done.stderr
    made = folder / "root-sysusers/etc/passwd"
    user = next(line for line in made.read_text().splitlines() if line.startswith("preswapd:"))
    assert 0 < int(user.split(":")[2]) < 1000
    for name in ("run/preswapd", "var/lib/preswapd", "etc/preswapd"):
        assert (folder / "root-tmpfiles" / name).stat().st_mode & 0o777 == 0o755


# Beside the script: notes what it was called with, and takes its exit status from a list.
STUB = """#!/bin/sh
echo "$(basename "$0") $*" >>calls
read -r status <"$(basename "$0").status"
sed -i 1d "$(basename "$0").status"
exit "$status"
"""
SYNC = "preswapctl --runtime-dir RUN sync"
STOP = "preswapctl --runtime-dir RUN shrink --stop"
WITHOUT = "preswapd serve"
PAUSE = "sleep 2"


@pytest.mark.parametrize(
    ("asked", "without", "calls", "status"),
    [
        ([0], [], [SYNC], 0),
        ([5], [], [SYNC], 5),
        ([3], [0], [SYNC, WITHOUT], 0),
        ([3], [5], [SYNC, WITHOUT], 5),
        ([3, 0], [4], [SYNC, WITHOUT, PAUSE, SYNC], 0),
        ([4, 0, 0], [], [SYNC, STOP, PAUSE, SYNC], 0),
        ([3] * 10, [4] * 10, [SYNC, WITHOUT, PAUSE] * 10, 4),
    ],
    ids=["done", "full", "stopped", "stopped-full", "starts", "shrinks", "refused"],
)
def test_who_syncs_at_a_shutdown(
    tmp_path: Path, asked: list[int], without: list[int], calls: list[str], status: int
) -> None:
    unit = (UNITS / "preswapd-sync@.service").read_text()
    found = re.search(r"^ExecStop=/bin/sh -c '(.+?)'$", unit, re.M | re.S)
    assert found
    script = found[1].replace("\\\n", " ").replace("%t/preswapd/%i", "RUN")
    script = script.replace("/opt/preswapd/bin/", "")
    answers = {"preswapctl": asked, "preswapd": without, "sleep": [0] * 10}
    for name, statuses in answers.items():
        (tmp_path / name).write_text(STUB)
        (tmp_path / name).chmod(0o755)
        (tmp_path / f"{name}.status").write_text("".join(f"{one}\n" for one in statuses))
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env={"PATH": path}, check=False)
    made = (tmp_path / "calls").read_text().splitlines()
    assert ([line if WITHOUT not in line else WITHOUT for line in made], done.returncode) == (
        calls,
        status,
    )
    assert all(line.endswith(" --sync-and-exit") for line in made if WITHOUT in line)


@pytest.mark.parametrize(
    ("how", "status", "waits"),
    [
        *(("exited", str(number), True) for number in (1, 2, 4, 127, 203)),
        ("exited", "0", False),
        *((how, signal, False) for how in ("killed", "dumped") for signal in ("KILL", "SEGV")),
    ],
)
def test_what_waits_for_its_next_start(tmp_path: Path, how: str, status: str, waits: bool) -> None:
    unit = (UNITS / "preswapd@.service").read_text()
    (script,) = re.findall(r"^ExecStopPost=/bin/sh -c '(.+)'$", unit, re.M)
    (tmp_path / "sleep").write_text('#!/bin/sh\necho "sleep $*"\n')
    (tmp_path / "sleep").chmod(0o755)
    env = {"PATH": str(tmp_path), "EXIT_CODE": how, "EXIT_STATUS": status}
    assert run(["/bin/sh", "-c", script], env=env).stdout == (f"{PAUSE}\n" if waits else "")


@pytest.mark.parametrize(("name", "guide"), [("listen.conf", "network"), ("remote.conf", "store")])
def test_drop_in_is_what_its_guide_says(name: str, guide: str) -> None:
    text = (CHECKOUT / f"docs/guides/{guide}.md").read_text()
    [block] = re.findall(r"```ini\n(\[Service\]\nIPAddressAllow=.*?)```", text, re.S)
    assert (UNITS / name).read_text().endswith(block)
