# SPDX-License-Identifier: BSD-3-Clause
"""What all commands have in common: help, exit statuses, one line for what went wrong."""

import json
import sys
from pathlib import Path

import pytest

from preswapd.cli.main import preswapctl
from tests.running import PRESWAPCTL, RunningServer, run

COMMANDS = sorted(preswapctl.commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    done = run([PRESWAPCTL, command, "--help"])
    assert done.returncode == 0
    assert "Example" in done.stdout
    assert f"preswapctl {command}" in done.stdout or "preswapctl --json" in done.stdout


def test_help_lists_every_command() -> None:
    done = run([PRESWAPCTL, "--help"])
    assert all(f"  {command} " in done.stdout for command in COMMANDS)
    assert "Examples" in done.stdout


@pytest.mark.parametrize("module", ["preswapd.cli.main", "preswapd.cli.look.list"])
def test_interrupt_while_it_loads_is_one_line(module: str) -> None:
    """Ctrl-C at the import of what the command needs, as a finder of modules that raises it."""
    code = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == '{module}': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "import preswapd.cli.start\n"
        "preswapd.cli.start.main()\n"
    )
    done = run([sys.executable, "-c", code, "list"])
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "preswapctl: interrupted\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["--nonsense"],
        ["list", "surplus"],
        ["shrink"],
        ["shrink", "many"],
        ["shrink", "-1"],
        ["shrink", "1000B"],
        ["sysctl", "vm.swappiness"],
        ["sysctl", "-w", "vm.preswap"],
        ["sysctl", "vm.preswap="],
        ["sysctl", "vm.preswap=x"],
        ["swapoff"],
        ["create", "g2"],
        ["detach", "g1", "--qmp=nowhere", "--timeout=nan"],
        ["detach", "g1", "--qmp=nowhere", "--timeout=inf"],
        ["create", "bad/name", "1M"],
        ["create", "g2", "1X"],
        ["create", "g2", "1M", "--compress=gzip"],
        ["--instance=a", "--runtime-dir=/x", "list"],
        ["--instance=../a", "list"],
        ["--runtime-dir=", "list"],
    ],
    ids=" ".join,
)
def test_usage_errors_exit_2(module_server: RunningServer, arguments: list[str]) -> None:
    done = run(
        [PRESWAPCTL, *arguments], env={"PRESWAPD_RUNTIME_DIR": str(module_server.runtime_dir)}
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("preswapctl: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["stats"], ["sysctl", "vm.preswap"], ["shrink", "0"], ["swapoff", "g1", "--yes"]],
    ids=" ".join,
)
def test_unreachable_exits_3(tmp_path: Path, arguments: list[str]) -> None:
    done = run([PRESWAPCTL, f"--runtime-dir={tmp_path}", *arguments])
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1


def test_stopped_server_is_unreachable(server: RunningServer) -> None:
    server.kill()
    assert server.ctl("list", check=False).returncode == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["stats", "g9"],
        ["shrink", "0", "g9"],
        ["swapoff", "g9", "--yes"],
        ["remove", "g9", "--yes"],
        ["mkswap", "g9"],
        ["qemu-args", "g9"],
    ],
    ids=" ".join,
)
def test_unknown_device_exits_2(module_server: RunningServer, arguments: list[str]) -> None:
    done = module_server.ctl(*arguments, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "g9" in done.stderr
    assert done.stderr.count("\n") == 1


def test_environment_names_the_instance(module_server: RunningServer) -> None:
    done = run(
        [PRESWAPCTL, "--json", "list"],
        env={"PRESWAPD_RUNTIME_DIR": str(module_server.runtime_dir)},
    )
    assert json.loads(done.stdout)["devices"][0]["name"] == "g1"


def test_option_wins_over_the_environment(module_server: RunningServer, tmp_path: Path) -> None:
    done = run(
        [PRESWAPCTL, f"--runtime-dir={module_server.runtime_dir}", "list"],
        env={"PRESWAPD_RUNTIME_DIR": str(tmp_path)},
    )
    assert done.returncode == 0


def test_reader_that_leaves_is_no_traceback(module_server: RunningServer) -> None:
    command = f"{PRESWAPCTL} --runtime-dir={module_server.runtime_dir} --json stats | head -c 1"
    assert run(["/bin/sh", "-c", command]).stderr == ""
