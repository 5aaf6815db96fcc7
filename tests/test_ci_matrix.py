# SPDX-License-Identifier: BSD-3-Clause
"""tools/ci-matrix in a bare system of a handful of programs: what it says, and what it leaves."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from preswapd.guest.programs import find, with_libraries
from tests.running import PATIENCE, run, wait_until

ROOT = Path(__file__).parents[1]
PROGRAMS = ("bash", "chroot", "env", "mount", "sleep", "touch", "umount")
NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "mount", "--make-rprivate", "/"]
ROW = "bookworm-gcc"
# In place of mmdebstrap's system.
STUB = """
bare_needs() { :; }
bare_system() { cp -a "$PREPARED" "$2"; }
"""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="making namespaces needs root"),
    pytest.mark.skipif(shutil.which("git") is None, reason="there is no git"),
]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A system that has what tools/bare runs in it."""
    if run(NAMESPACES).returncode:
        pytest.skip("this environment does not let root make namespaces and mount")
    system = tmp_path / "system"
    for name in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "proc", "sys", "dev", "run"):
        (system / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (system / name).symlink_to(f"usr/{name}")
    for path in with_libraries(find(name, name) for name in PROGRAMS):
        there = system / path.relative_to("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, there)
    return system


class Matrix:
    """A repository of its own, whose .ci/run is this script."""

    def __init__(self, folder: Path, prepared: Path, script: str) -> None:
        self.folder = folder
        self.system = folder / "build/ci-matrix" / ROW
        self.environment = {**os.environ, "PREPARED": str(prepared)}
        (folder / "tools").mkdir(parents=True)
        (folder / ".ci").mkdir()
        shutil.copy(ROOT / "tools/ci-matrix", folder / "tools")
        shutil.copy(ROOT / "pyproject.toml", folder)
        bare = (ROOT / "tools/bare").read_text()
        (folder / "tools/bare").write_text(bare + STUB)
        (folder / ".ci/run").write_text(f"#!/bin/bash\n{script}\n")
        (folder / ".ci/run").chmod(0o755)
        git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@localhost"]
        for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "all"]):
            subprocess.run([*git, *words], check=True)

    def command(self) -> list[str]:
        return [str(self.folder / "tools/ci-matrix"), ROW]

    def log(self) -> str:
        path = self.folder / f"build/ci-matrix/{ROW}.log"
        return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(("script", "status"), [("true", 0), ("false", 1)])
def test_says_whether_a_row_has_passed(
    prepared: Path, tmp_path: Path, script: str, status: int
) -> None:
    matrix = Matrix(tmp_path / "tree", prepared, f"echo '== 7 passed in 1.0s =='; {script}")
    done = run(matrix.command(), env=matrix.environment)
    assert done.returncode == status, matrix.log()
    last = done.stdout.splitlines()[-1]
    assert last.split()[:2] == [ROW, "FAILED" if status else "passed"]
    assert last.endswith("7 passed in 1.0s")
    assert not matrix.system.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_what_runs_in_the_system(
    prepared: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """All of it, before the script itself has ended; and no mount is left."""
    holding = "exec 3>/held; sleep 1000 & touch /begun; sleep 1000"
    matrix = Matrix(tmp_path / "tree", prepared, holding)
    # Whoever has it open is there: their end can be seen without a list of processes.
    os.mkfifo(prepared / "held")
    process = subprocess.Popen(
        matrix.command(), env=matrix.environment, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        wait_until(lambda: (matrix.system / "held").exists(), "the system")
        reader = os.open(matrix.system / "held", os.O_RDONLY | os.O_NONBLOCK)
        wait_until(lambda: (matrix.system / "begun").exists(), "the row")
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 128 + number
        assert os.read(reader, 1) == b""
        os.close(reader)
        assert not matrix.system.exists()
        assert str(matrix.system) not in Path("/proc/self/mountinfo").read_text()
    finally:
        process.kill()
        process.communicate()
