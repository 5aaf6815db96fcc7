# SPDX-License-Identifier: BSD-3-Clause
"""Which instance a command speaks to when several run."""

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from preswapd.cli.instances import Instances
from preswapd.cli.main import preswapctl
from preswapd.errors import PreswapError, UnreachableError, UsageError
from tests.clients import connected
from tests.running import RunningServer


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunningServer]]:
    """Under one runtime root, a with g1 and shared, b with g2 and shared, and one that is dead."""
    found = {}
    with ExitStack() as stack:
        first = RunningServer(tmp_path_factory.mktemp("a"), start=False)
        stack.enter_context(first)
        place = first.base / "root"
        devices = {"a": {"g1": "1M", "shared": "1M"}, "b": {"g2": "1M", "shared": "1M"}}
        for name, own in devices.items():
            running = RunningServer(
                tmp_path_factory.mktemp(name), own, extra=[f"--instance={name}"], start=False
            )
            stack.enter_context(running)
            running.paths = replace(running.paths, runtime_dir=place / name)
            running.start()
            found[name] = running
        first.paths = replace(first.paths, runtime_dir=place / "dead")
        first.start()
        first.kill()
        found["dead"] = first
        yield found


@pytest.fixture(scope="module")
def root(servers: dict[str, RunningServer]) -> Path:
    return servers["dead"].runtime_dir.parent


@pytest.fixture
def hanging(servers: dict[str, RunningServer], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """b is there and does not answer."""
    monkeypatch.setattr("preswapd.api.client.READ_SECONDS", 0.3)
    os.kill(servers["b"].pid, signal.SIGSTOP)
    yield
    os.kill(servers["b"].pid, signal.SIGCONT)


@pytest.fixture(autouse=True)
def use_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preswapd.cli.instances.runtime_root", lambda: root)
    monkeypatch.setattr("preswapd.paths.runtime_root", lambda: root)
    monkeypatch.setattr("preswapd.cli.instances.default_shm_dirs", dict)
    monkeypatch.delenv("PRESWAPD_RUNTIME_DIR", raising=False)


def ctl(*arguments: str) -> None:
    preswapctl.main(list(arguments), standalone_mode=False)


def test_those_that_answer_are_found() -> None:
    assert [instance.name for instance in Instances().running()] == ["a", "b"]


def test_device_of_one() -> None:
    assert Instances().having("g2").name == "b"


def test_device_of_two() -> None:
    with pytest.raises(UsageError, match=r"several instances have a device 'shared' \(a, b\)"):
        Instances().having("shared")


def test_device_of_none() -> None:
    with pytest.raises(UsageError, match="no device 'g9' in a, b"):
        Instances().having("g9")


def test_named_one() -> None:
    assert Instances(name="b").only().client.stats()["instance"] == "b"


def test_none_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        monkeypatch.setattr("preswapd.cli.instances.runtime_root", lambda at=place: at)
        with pytest.raises(UnreachableError, match="no preswapd server runs"):
            Instances().running()


@pytest.mark.parametrize(
    "arguments",
    [
        ["sysctl", "vm.preswap=0"],
        ["shrink", "0"],
        ["create", "g3", "1M"],
        ["shrink", "0", "shared"],
        ["swapoff", "shared", "--yes"],
        ["remove", "shared"],
        ["mkswap", "shared"],
        ["qemu-args", "shared"],
        ["stats", "shared"],
    ],
    ids=" ".join,
)
def test_no_guessing(arguments: list[str]) -> None:
    with pytest.raises(PreswapError) as refused:
        ctl(*arguments)
    assert refused.value.exit_status == 2


@pytest.mark.parametrize("command", ["list", "stats"])
def test_json_of_all(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    ctl("--json", command)
    found = json.loads(capsys.readouterr().out)["instances"]
    assert [answer["instance"] for answer in found] == ["a", "b"]


@pytest.mark.parametrize("command", ["list", "stats", "stats g1", "sysctl -a"])
def test_json_of_the_only_one_has_the_same_shape(
    servers: dict[str, RunningServer],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    """A script that names none goes on working when a second instance starts."""
    (tmp_path / "a").symlink_to(servers["a"].runtime_dir)
    monkeypatch.setattr("preswapd.cli.instances.runtime_root", lambda: tmp_path)
    ctl("--json", *command.split())
    (found,) = json.loads(capsys.readouterr().out)["instances"]
    assert found["instance"] == "a"


@pytest.mark.usefixtures("hanging")
def test_json_of_none_that_answers_is_a_list(
    servers: dict[str, RunningServer],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "b").symlink_to(servers["b"].runtime_dir)
    monkeypatch.setattr("preswapd.cli.instances.runtime_root", lambda: tmp_path)
    with pytest.raises(UnreachableError):
        ctl("--json", "stats")
    assert json.loads(capsys.readouterr().out) == {"instances": []}


def test_json_of_a_named_one(capsys: pytest.CaptureFixture[str]) -> None:
    ctl("--instance=a", "--json", "stats")
    assert json.loads(capsys.readouterr().out)["devices"].keys() == {"g1", "shared"}


def test_list_shows_all(capsys: pytest.CaptureFixture[str]) -> None:
    ctl("list")
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [["g1", "a"], ["shared", "a"], ["g2", "b"], ["shared", "b"]]


def test_metrics_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    ctl("metrics")
    printed = capsys.readouterr().out
    assert printed.count("# TYPE preswapd_tmem_puts_total") == 1
    assert all(f'preswapd_tmem_puts_total{{instance="{name}"}} 0\n' in printed for name in "ab")


@pytest.mark.usefixtures("hanging")
def test_metrics_of_those_that_answer(tmp_path: Path) -> None:
    path = tmp_path / "preswapd.prom"
    with pytest.raises(UnreachableError, match=r"b/control\.sock does not answer"):
        ctl("metrics", f"--textfile={path}")
    assert 'instance="a"' in path.read_text()
    assert 'instance="b"' not in path.read_text()


@pytest.mark.usefixtures("hanging")
def test_list_shows_those_that_answer(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnreachableError, match=r"b/control\.sock does not answer"):
        ctl("list")
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [["g1", "a"], ["shared", "a"]]


@pytest.mark.usefixtures("hanging")
def test_json_of_those_that_answer_is_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnreachableError):
        ctl("--json", "stats")
    found = json.loads(capsys.readouterr().out)["instances"]
    assert [answer["instance"] for answer in found] == ["a"]


@pytest.mark.parametrize("command", ["list", "stats", "sysctl -a"])
def test_json_of_one_that_is_away(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnreachableError, match="no preswapd server answers"):
        ctl("--instance=nobody", "--json", *command.split())
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("hanging")
def test_keys_of_those_that_answer(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnreachableError, match=r"b/control\.sock does not answer"):
        ctl("sysctl", "-a")
    printed = capsys.readouterr().out
    assert "preswap.a.frozen = 0\n" in printed
    assert "preswap.b." not in printed


def test_one_whose_queue_is_full_is_there(root: Path) -> None:
    """Nobody takes its connections, and there is no room for one more that waits."""
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root / "full")
        (root / "full").mkdir()
        path = root / "full/control.sock"
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(str(path))
        (full,) = (found for found in Instances().running() if found.name == "full")
        with pytest.raises(UnreachableError, match="does not answer"):
            full.client.stats()


@pytest.mark.usefixtures("hanging")
@pytest.mark.parametrize("arguments", [["shrink", "0", "g1"], ["sysctl", "preswap.a.frozen"]])
def test_no_guessing_past_one_that_hangs(arguments: list[str]) -> None:
    with pytest.raises(UnreachableError, match="name the one you mean with --instance"):
        ctl(*arguments)


@pytest.mark.usefixtures("hanging")
@pytest.mark.parametrize(
    ("name", "mend"), [("b", "let it go on: kill -CONT "), ("dead", "start it: ")]
)
def test_doctor_tells_one_that_hangs_from_one_that_is_gone(
    capsys: pytest.CaptureFixture[str], name: str, mend: str
) -> None:
    ctl(f"--instance={name}", "--json", "doctor")
    found = {check["subject"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert mend in found[f"instance {name}"]["mend"]


@pytest.mark.usefixtures("hanging")
def test_doctor_looks_at_those_that_answer(capsys: pytest.CaptureFixture[str]) -> None:
    ctl("--json", "doctor")
    found = {check["subject"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert found["instance b"]["status"] == "fix"
    assert found["instance a, device g1"]["status"] == "note"


def test_the_hosts_servers_are_pointed_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An operator without sudo looks into a directory of their own."""
    own, hosts = tmp_path / "own", tmp_path / "hosts"
    hosts.mkdir()
    monkeypatch.setattr("preswapd.cli.instances.SYSTEM_RUNTIME_ROOT", hosts)
    monkeypatch.setattr("preswapd.cli.instances.runtime_root", lambda: own)
    with pytest.raises(UnreachableError, match=f"under {hosts} are found when this runs as root"):
        Instances().running()
    monkeypatch.setattr("preswapd.cli.instances.runtime_root", lambda: hosts)
    with pytest.raises(UnreachableError, match=f"under {hosts}$"):
        Instances().running()


# The last one: others look at counters of servers that nobody has used.
def test_all_keys_of_all(
    servers: dict[str, RunningServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two have a device of one name: nothing is added up, and nothing left out."""
    for name, pages in (("a", 3), ("b", 5)):
        client = connected(servers[name], "shared")
        client.pwrite(b"preswapd" * 512 * pages, 4096)
    ctl("--json", "sysctl", "-a")
    found = json.loads(capsys.readouterr().out)["instances"]
    of = {answer["instance"]: answer["sysctl"] for answer in found}
    assert [values["vm.preswap.shared"] for values in of.values()] == [3, 5]
    assert of["b"]["preswap.b.shared.quota"] == "unlimited"
    ctl("sysctl", "-a")
    _, first, second = capsys.readouterr().out.split("# ")
    assert first.splitlines()[:2] == ["a", "vm.preswap = 3"]
    assert second.splitlines()[:2] == ["b", "vm.preswap = 5"]
    ctl("sysctl", "-an")
    assert "#" not in capsys.readouterr().out
    ctl("--instance=a", "sysctl", "-a")
    assert capsys.readouterr().out.startswith("vm.preswap = 3\n")
    ctl("--instance=a", "--json", "sysctl", "-a")
    assert json.loads(capsys.readouterr().out)["vm.preswap"] == 3
