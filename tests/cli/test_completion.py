# SPDX-License-Identifier: BSD-3-Clause
"""Completion: what the shells really offer, and that it takes no server to be quiet."""

import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from preswapd.cli import completion
from preswapd.cli.instances import Instances
from preswapd.cli.look.columns import DEVICE_COLUMNS
from tests.conftest import StartServer
from tests.running import BIN, PATIENCE, PRESWAPCTL, RunningServer, run


def offered(words: str, **env: str) -> list[str]:
    """What preswapctl tells bash for a line that ends in a word that is being typed."""
    done = run(
        [PRESWAPCTL],
        env={
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
            "_PRESWAPCTL_COMPLETE": "bash_complete",
            **env,
        },
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [line.partition(",")[2] for line in done.stdout.split("\n") if line]


def test_commands_and_options() -> None:
    assert offered("preswapctl shr") == ["shrink"]
    assert "--instance" in offered("preswapctl --ins")
    assert offered("preswapctl create g2 1M --compress z") == ["zstd"]


@pytest.mark.parametrize(
    "command",
    [
        *("stats ", "ages ", "advise ", "shrink 0 ", "swapoff ", "remove ", "qemu-args g"),
        *("park g", "unpark g"),
    ],
)
def test_devices(module_server: RunningServer, command: str) -> None:
    words = f"preswapctl --runtime-dir={module_server.runtime_dir} {command}"
    assert offered(words) == ["g1"]
    environment = {"PRESWAPD_RUNTIME_DIR": str(module_server.runtime_dir)}
    assert offered(f"preswapctl {command}", **environment) == ["g1"]


def test_images(tmp_path: Path) -> None:
    base = tmp_path / "base.raw"
    base.write_bytes(bytes(1 << 20))
    with RunningServer(tmp_path, {"g1": "1M"}, extra=[f"--image=base={base}"]) as server:
        words = f"preswapctl --runtime-dir={server.runtime_dir}"
        assert offered(f"{words} images ") == ["base"]
        assert offered(f"{words} swapoff ") == ["g1"]
        for command in ("qemu-args", "libvirt-xml", "attach", "detach"):
            assert offered(f"{words} {command} ") == ["base", "g1"]


def test_device_follows_an_age(module_server: RunningServer) -> None:
    """Instead of it a number of pages would come first, of which there is nothing to offer."""
    words = f"preswapctl --runtime-dir={module_server.runtime_dir} shrink"
    assert offered(f"{words} --idle 30m ") == ["g1"]
    assert offered(f"{words} ") == []


KEYS = [
    "preswap.default.frozen",
    "preswap.default.g1.compress",
    "preswap.default.g1.quota",
    "preswap.default.governed_limit",
    "preswap.default.pool_limit",
    "preswap.default.recompress_after",
    "preswap.default.recompress_codec",
    "preswap.default.writeback_idle",
    "preswap.default.writeback_rate",
    "preswap.default.writeback_room",
    "vm.preswap",
    "vm.preswap.g1",
    "vm.remote",
]


def test_sysctl_keys(module_server: RunningServer) -> None:
    words = f"preswapctl --runtime-dir={module_server.runtime_dir} sysctl"
    assert offered(f"{words} ") == KEYS
    assert offered(f"{words} -w vm.") == KEYS[-3:]
    assert offered(f"{words} vm.preswap preswap.default.g1.q") == ["preswap.default.g1.quota"]
    # For what comes behind -p the shell completes files.
    assert offered(f"{words} -p ") == [""]
    assert offered(f"{words} -p a ") == [""]


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("list -o TM", ["TMEM"]),
        ("list -o NAME,us", ["NAME,USED"]),
        ("list -o +loa", ["+LOADS"]),
        ("list -o +LOADS,NA", ["+LOADS,NAME"]),
        ("list -o LIM", []),
        ("stats -o LIM", ["LIMIT"]),
        ("stats -o PUTS", ["PUTS"]),
        ("stats --watch=1 -o PUTS", ["PUTS/S", "PUTS"]),
        ("stats g1 -o TM", ["TMEM"]),
        ("stats g1 --watch=1 -o STORES", ["STORES/S", "STORES"]),
        ("list --output=QUO", ["QUOTA"]),
    ],
)
def test_columns(command: str, names: list[str]) -> None:
    assert offered(f"preswapctl {command}") == names


def test_every_column_is_offered() -> None:
    assert offered("preswapctl list -o ") == [column.name for column in DEVICE_COLUMNS]


def test_one_that_hangs_does_not_hide_the_others(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("preswapd.cli.instances.runtime_root", lambda: tmp_path)
    servers = {name: start_server(devices={f"g-{name}": "1M"}) for name in "abc"}
    for name, server in servers.items():
        (tmp_path / name).symlink_to(server.runtime_dir)
    os.kill(servers["b"].pid, signal.SIGSTOP)
    try:
        assert completion.suggest("dev", Instances(), new=False) == ["g-a", "g-c"]
    finally:
        os.kill(servers["b"].pid, signal.SIGCONT)


def test_no_taken_name_for_a_new_device(module_server: RunningServer) -> None:
    assert offered(f"preswapctl --runtime-dir={module_server.runtime_dir} create ") == []


def test_nothing_without_a_server(tmp_path: Path) -> None:
    assert offered(f"preswapctl --runtime-dir={tmp_path} stats ") == []


def test_nothing_of_a_server_that_hangs(start_server: StartServer) -> None:
    server = start_server()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        assert offered(f"preswapctl --runtime-dir={server.runtime_dir} stats ") == []
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_waiting_has_an_end() -> None:
    with pytest.raises(TimeoutError), completion.limited(0.01):
        signal.pause()


def test_instances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their place is another one for root than for everybody else."""
    monkeypatch.setattr(completion, "runtime_root", lambda: tmp_path)
    for name in ("vm2", "vm1"):
        (tmp_path / name).mkdir()
    assert completion.suggest("name", Instances(), new=False) == ["vm1", "vm2"]
    monkeypatch.setattr(completion, "runtime_root", lambda: tmp_path / "none")
    assert completion.suggest("name", Instances(), new=False) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("command", ["preswapctl", "preswapd"])
def test_every_shell_has_a_script(shell: str, command: str) -> None:
    done = run([str(BIN / command)], env={f"_{command.upper()}_COMPLETE": f"{shell}_source"})
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{shell}_complete" in done.stdout


def test_bash_completes_at_the_prompt(module_server: RunningServer) -> None:
    """A person's TAB: bash with a terminal, the script that is installed, a running server."""
    script = run([PRESWAPCTL], env={"_PRESWAPCTL_COMPLETE": "bash_source"}).stdout
    place = Path(module_server.base) / "completion.bash"
    place.write_text(script)
    terminal, inner = pty.openpty()
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PRESWAPD_RUNTIME_DIR": str(module_server.runtime_dir),
        "PS1": "",
        "TERM": "dumb",
    }
    bash = subprocess.Popen(
        ["bash", "--noprofile", "--norc", "-i"],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        env=environment,
        start_new_session=True,
    )
    os.close(inner)
    try:
        os.write(terminal, f". {place}; echo be''gin\n".encode())
        wait_for(terminal, "begin\r\n")
        os.write(terminal, b"echo preswapctl; preswapctl swapo\t")
        wait_for(terminal, "swapoff ")
        os.write(terminal, b"\t")
        wait_for(terminal, "g1 ")
    finally:
        bash.kill()
        bash.wait()
        os.close(terminal)


def wait_for(terminal: int, text: str) -> None:
    seen = ""
    deadline = time.monotonic() + PATIENCE
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"bash did not write {text!r} but {seen!r}"
        seen += os.read(terminal, 4096).decode()
