# SPDX-License-Identifier: BSD-3-Clause
"""What a command imports before it does anything: only what it needs."""

import re
import sys

import pytest

from tests.running import RunningServer, run

# Each of them takes milliseconds to import, and a short command is used at prompts and in loops.
HEAVY = {
    "asyncio",
    "bitarray",
    "ctypes",
    "email",
    "fractions",
    "http",
    "importlib.metadata",
    "qemu",
    "rich",
    "ssl",
    "subprocess",
    "tempfile",
    "traceback",
    "xml",
}


TELL = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))"
START = f"{TELL}; from preswapd.cli.start import main; main()"


def imported(*command: str, **env: str) -> set[str]:
    """Every module that was imported when the command had ended."""
    done = run([sys.executable, "-c", START, *command], env=env)
    assert done.returncode == 0
    assert done.stdout
    return set(done.stderr.split())


def folders(modules: set[str]) -> set[str]:
    return {name.split(".")[2] for name in modules if re.match(r"preswapd\.cli\.\w+\.", name)}


@pytest.mark.parametrize("command", ["list", "ages", "advise"])
def test_list_imports_nothing_heavy(module_server: RunningServer, command: str) -> None:
    modules = imported(f"--runtime-dir={module_server.runtime_dir}", command)
    assert f"preswapd.cli.look.{command}" in modules
    assert modules & HEAVY == set()
    assert folders(modules) == {"look"}


def test_images_import_nothing_heavy(module_server: RunningServer) -> None:
    modules = imported(f"--runtime-dir={module_server.runtime_dir}", "--json", "images")
    assert "preswapd.cli.look.images" in modules
    assert modules & HEAVY == set()
    assert folders(modules) == {"look"}


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_what_needs_no_command_imports_none(option: str) -> None:
    modules = imported(option)
    assert modules & HEAVY == set()
    assert folders(modules) == set()


@pytest.mark.parametrize("word", ["", "s", "shrink"])
def test_completing_a_command_imports_none(word: str) -> None:
    modules = imported(
        COMP_WORDS=f"preswapctl {word}", COMP_CWORD="1", _PRESWAPCTL_COMPLETE="bash_complete"
    )
    assert folders(modules) == set()
