# SPDX-License-Identifier: BSD-3-Clause
"""Which of the distribution's packages `make` installs, and what it does not do to get them.

The distribution's tools are stand-ins: no test may change the packages of the machine it runs on.
"""

import os
import re
from pathlib import Path

import pytest

from tests.running import run

ROOT = Path(__file__).parents[1]
PROXY = "http://proxy.example:3128"
TOOLS = {
    # What is installed, as the real one prints it with this tool's format.
    "dpkg-query": 'cat "$FOLDER/installed"',
    "dpkg": "echo amd64",
    "apt-get": """case $* in
  *--simulate*) cat "$FOLDER/plan" ;;
  *) echo "$* $http_proxy" >>"$FOLDER/done"
    [ "$1" != update ] || exit "$(cat "$FOLDER/network")" ;;
esac""",
    "id": "echo 1000",
    # It hands on no more than it is told to.
    "sudo": """case $1 in
  --preserve-env=http_proxy,*) [ ! -e "$FOLDER/forbids" ] || exit 1; shift ;;
  *) unset http_proxy ;;
esac
exec "$@\"""",
    "uname": 'cat "$FOLDER/machine"',
    # The package lists are fresh.
    "find": "echo partial",
    "ls": "echo a_Packages",
}
TOOL = ROOT / "tools/system-packages"
LISTS = re.findall(r"<<'LIST'\n(.*?)\nLIST", TOOL.read_text(), re.DOTALL)
ALL = [line.split()[0] for listed in LISTS for line in listed.splitlines()]
# What the tool itself runs.
COMMANDS = ("cat", "sed", "tr", "grep", "cut", "env")


class Host:
    """A Debian where these packages are installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.installed = [f"installed amd64 {name}, " for name in ALL]
        (folder / "bin").mkdir()
        for name, script in TOOLS.items():
            (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / "bin" / name).chmod(0o755)
        self.path = f"{folder}/bin{os.pathsep}{os.environ['PATH']}"
        self.will("")
        self.network("0")
        self.is_a("x86_64")

    def lacks(self, *names: str) -> None:
        self.installed = [line for line in self.installed if line.split()[2][:-1] not in names]

    def will(self, plan: str) -> None:
        """What apt-get would do."""
        (self.folder / "plan").write_text(plan)

    def network(self, status: str) -> None:
        """With what status apt-get update ends."""
        (self.folder / "network").write_text(status)

    def is_a(self, machine: str) -> None:
        (self.folder / "machine").write_text(machine + "\n")

    def packages(self, stage: str) -> tuple[int, str]:
        """The exit status, and what it said."""
        (self.folder / "installed").write_text("".join(f"{line}\n" for line in self.installed))
        env = {"PATH": self.path, "FOLDER": str(self.folder), "http_proxy": PROXY}
        done = run(["/bin/sh", str(TOOL), stage], env=env)
        return done.returncode, done.stdout + done.stderr

    def has_no_sudo(self) -> None:
        """Not even one of the machine that the test runs on."""
        (self.folder / "bin/sudo").unlink()
        for name in COMMANDS:
            (self.folder / "bin" / name).symlink_to(f"/usr/bin/{name}")
        self.path = f"{self.folder}/bin"

    def has_old_lists(self) -> None:
        (self.folder / "bin/find").write_text("#!/bin/sh\n")

    @property
    def done(self) -> str:
        """What apt-get was told to do as root, and what it knew of the proxy."""
        file = self.folder / "done"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_nothing_is_done_where_all_is_there(host: Host) -> None:
    assert host.packages("demo") == (0, "")
    assert host.done == ""


def test_what_is_missing_is_named_and_installed_through_the_users_proxy(host: Host) -> None:
    host.lacks("memtester", "zstd")
    status, said = host.packages("demo")
    assert status == 0
    assert "memtester              tests the guest's memory" in said
    assert "gcc" not in said
    assert f" memtester zstd {PROXY}\n" in host.done


def test_sudo_that_hands_on_no_proxy(host: Host) -> None:
    (host.folder / "forbids").touch()
    host.lacks("memtester")
    assert host.packages("demo")[0] == 0
    assert host.done.endswith(" memtester \n")


def test_stand_in_counts(host: Host) -> None:
    """Proxmox VE's QEMU says that it is as good as Debian's."""
    host.lacks("qemu-system-x86", "qemu-utils")
    host.installed.append(
        "installed amd64 pve-qemu-kvm, qemu-system-x86 (= 9.2.0), qemu-utils, qemu-system-x86-64"
    )
    assert host.packages("demo") == (0, "")


def test_only_what_is_installed_for_this_architecture_counts(host: Host) -> None:
    host.installed.append("installed i386 libc6-dev, libc-dev")
    assert host.packages("build") == (0, "")
    host.lacks("libssl-dev", "nbdkit")
    host.installed += ["installed i386 libssl-dev, ", "config-files amd64 nbdkit, "]
    host.packages("build")
    assert " libssl-dev nbdkit http" in host.done


@pytest.mark.parametrize(
    ("plan", "names"),
    [
        ("Remv elogind [252]\nInst systemd (252 Debian)\n", "elogind "),
        ("Remv pve-qemu-kvm [9]\nRemv proxmox-ve [8] [x:amd64 ]\n", "pve-qemu-kvm proxmox-ve "),
        ("Remv busybox [1]\nRemv elogind [252]\n", "elogind "),
    ],
)
def test_nothing_that_is_here_is_removed(host: Host, plan: str, names: str) -> None:
    host.lacks("memtester")
    host.will(plan)
    status, said = host.packages("demo")
    assert status == 1
    assert (
        f"would remove packages that are installed here, so nothing is installed: {names}" in said
    )
    assert "Install what can be had of these packages by hand, then run: make SYSTEM_PACK" in said
    assert host.done == ""


def test_what_cannot_be_had_is_not_the_end(host: Host) -> None:
    host.lacks("memtester")
    (host.folder / "plan").unlink()
    status, said = host.packages("demo")
    assert status == 1
    assert "then run: make SYSTEM_PACKAGES=true demo" in said
    assert host.done == ""


def test_static_busybox_takes_the_place_of_the_other(host: Host) -> None:
    host.lacks("busybox-static")
    host.will("Remv busybox [1:1.35.0]\nInst busybox-static (1:1.35.0 Debian [amd64])\n")
    assert host.packages("demo")[0] == 0
    assert "busybox-static" in host.done


def test_guests_are_refused_on_other_machines_before_all_else(host: Host) -> None:
    host.lacks("memtester", "nbdkit")
    host.is_a("aarch64")
    status, said = host.packages("demo")
    assert status == 1
    assert said.startswith("'make demo' boots a Linux guest, and does so on x86-64 only")
    assert host.done == ""
    assert host.packages("test")[0] == 0
    assert " nbdkit memtester http" in host.done


def test_without_root_and_sudo_it_says_what_to_do(host: Host) -> None:
    host.has_no_sudo()
    host.lacks("memtester")
    status, said = host.packages("demo")
    assert status == 1
    assert "As root: apt-get update && apt-get install --no-install-recommends memtester" in said


def test_old_lists_are_no_reason_to_end_without_root_and_sudo(host: Host) -> None:
    """The guest's kernel may be in the cache."""
    host.has_no_sudo()
    host.has_old_lists()
    status, said = host.packages("demo")
    assert status == 0
    assert "older than two days" in said
    assert host.packages("build") == (0, "")


def test_old_lists_are_made_new(host: Host) -> None:
    host.has_old_lists()
    assert host.packages("demo")[0] == 0
    assert host.done == f"update -qq {PROXY}\n"


def test_lists_that_cannot_be_made_new(host: Host) -> None:
    """As where another program has apt's lock.  Old ones may do; where not, that is why."""
    host.has_old_lists()
    host.network("100")
    host.lacks("memtester")
    assert host.packages("demo")[0] == 0
    assert "memtester" in host.done
    (host.folder / "plan").unlink()
    status, said = host.packages("demo")
    assert status == 1
    assert "Try it again once 'apt-get update' works" in said
