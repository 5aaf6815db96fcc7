# SPDX-License-Identifier: BSD-3-Clause
"""`guest-setup`: a script for the guest's shell.  tests/guest/test_hotplug.py uses its parts."""

import json
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.running import RunningServer, run


@pytest.mark.parametrize("bus", ["scsi", "virtio"])
def test_shell_takes_it(module_server: RunningServer, bus: str) -> None:
    text = module_server.ctl("guest-setup", "g1", f"--bus={bus}").stdout
    done = run(["/bin/sh", "-n", "-c", text])
    assert (done.returncode, done.stderr) == (0, "")
    assert ("udev" in text) == (bus == "virtio")


def test_parts_as_json(module_server: RunningServer) -> None:
    found = json.loads(module_server.ctl("--json", "guest-setup", "g1", "--bus=virtio").stdout)
    assert found["fstab"] == "LABEL=g1 none swap discard,nofail,pri=100 0 0"
    assert 'ATTR{queue/rotational}="0"' in found["udev_rule"]
    text = module_server.ctl("guest-setup", "g1", "--bus=virtio").stdout
    assert found["fstab"].replace("100", "$priority") in text
    assert f"{found['udev_rule']}\n" in text


def test_scsi_disk_needs_no_rule(module_server: RunningServer) -> None:
    found = json.loads(module_server.ctl("--json", "guest-setup", "g1").stdout)
    assert found["udev_rule"] is None


def test_unknown_device(module_server: RunningServer) -> None:
    done = module_server.ctl("guest-setup", "g9", check=False)
    assert (done.returncode, done.stdout) == (2, "")


LINE = "LABEL=a.b none swap discard,nofail,pri=100 0 0\n"
ROOT = "UUID=1 / ext4 defaults 0 1"


class GuestFiles:
    """Stands in for a guest: what the script reads and writes lies in a directory, and what it runs
    are scripts of ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "bin"
        self.programs.mkdir()
        for path in ("etc", "proc", "sys/power", "sys/class/block/sdb"):
            (folder / path).mkdir(parents=True)
        self.write("etc/fstab", "")
        self.write("sys/class/block/sdb/dev", "8:16\n")
        self.swaps()
        self.program("findfs", "echo /dev/sdb")
        self.program("swapon", "true")
        self.program("dmesg", "echo swap on")
        self.program("blkid", 'echo "uuid-of-${5#/dev/}"')

    def write(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)

    def read(self, path: str) -> str:
        return (self.folder / path).read_text()

    def program(self, name: str, text: str) -> None:
        self.write(f"bin/{name}", f"#!/bin/sh\n{text}\n")
        (self.programs / name).chmod(0o755)

    def swaps(self, *areas: tuple[str, int, int]) -> None:
        """Name, size and priority of each area."""
        lines = [f"{name:40}partition\t{size}\t\t0\t\t{priority}" for name, size, priority in areas]
        head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority"
        self.write("proc/swaps", "\n".join([head, *lines, ""]))

    def hibernates(self, to: str) -> None:
        self.write("sys/power/state", "freeze mem disk\n")
        self.write("sys/power/resume", f"{to}\n")

    def run(self, script: str) -> str:
        """What it says; as a person does who pipes it to `sh -eu`."""
        for folder in ("/etc/", "/proc/", "/sys/"):
            script = script.replace(folder, f"{self.folder}{folder}")
        env = {"PATH": f"{self.programs}:/usr/bin:/bin"}
        done = run(["/bin/sh", "-eu", "-c", script], env=env)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


@pytest.fixture
def guest(tmp_path: Path) -> GuestFiles:
    folder = tmp_path / "guest"
    folder.mkdir()
    return GuestFiles(folder)


@pytest.fixture(scope="module")
def script(module_server: RunningServer) -> str:
    return module_server.ctl("guest-setup", "g1").stdout


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", LINE),
        ("LABEL=axb none swap discard 0 0\n", f"LABEL=axb none swap discard 0 0\n{LINE}"),
        ("LABEL=a.bc none swap discard 0 0\n", f"LABEL=a.bc none swap discard 0 0\n{LINE}"),
        ("LABEL=a.b\tnone\tswap\tdiscard\t0\t0\n", "LABEL=a.b\tnone\tswap\tdiscard\t0\t0\n"),
        (ROOT, f"{ROOT}\n{LINE}"),
        (f"{ROOT}\nLABEL=a.b none swap sw 0 0", f"{ROOT}\nLABEL=a.b none swap sw 0 0"),
    ],
    ids=["empty", "a dot is a dot", "a longer name", "tabs", "no last newline", "there already"],
)
def test_fstab_line_comes_once(
    start_server: StartServer, guest: GuestFiles, before: str, after: str
) -> None:
    server = start_server(devices={"a.b": "1M"})
    guest.write("etc/fstab", before)
    text = server.ctl("guest-setup", "a.b").stdout
    for _ in range(2):
        guest.run(text)
    assert guest.read("etc/fstab") == after


@pytest.mark.parametrize(
    ("areas", "priority"),
    [
        ([("/dev/vda2", 1000, -2)], 100),
        ([("/dev/zram0", 1000, 100)], 99),
        ([("/dev/vda2", 1000, -2), ("/dev/zram0", 500, 60), ("/dev/zram1", 500, 75)], 59),
        ([("/dev/zram0", 1000, 200)], 100),
        ([("/dev/zram0", 1000, -2)], 100),
        ([("/dev/zram0", 1000, 1)], 0),
    ],
    ids=["disk", "zram", "several", "higher zram", "zram that nobody chose", "lowest"],
)
def test_priority_is_after_a_zram_and_before_disks(
    guest: GuestFiles, script: str, areas: list[tuple[str, int, int]], priority: int
) -> None:
    guest.swaps(*areas)
    said = guest.run(script)
    assert f"The priority of g1 is {priority};" in said
    assert f",pri={priority} 0 0" in guest.read("etc/fstab")
    for name, _, _ in areas:
        assert name in said


def test_priority_that_was_given(module_server: RunningServer, guest: GuestFiles) -> None:
    guest.swaps(("/dev/zram0", 1000, 100))
    guest.run(module_server.ctl("guest-setup", "g1", "--priority=500").stdout)
    assert ",pri=500 0 0" in guest.read("etc/fstab")
    found = json.loads(module_server.ctl("--json", "guest-setup", "g1", "--priority=500").stdout)
    assert found["fstab"] == "LABEL=g1 none swap discard,nofail,pri=500 0 0"


def test_disk_by_its_serial_number(start_server: StartServer, guest: GuestFiles) -> None:
    """Where the guest has a g1 of another instance too, the label is that of both."""
    server = start_server(extra=["--instance=i2"])
    path = "/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_preswap-g1.i2"
    guest.write("etc/fstab", "LABEL=g1 none swap discard 0 0\n")
    guest.program("readlink", f'[ "$*" = "-e {path}" ] && echo /dev/sdb')
    for _ in range(2):
        guest.run(server.ctl("guest-setup", "g1", "--by-id").stdout)
    line = f"{path} none swap discard,nofail,pri=100 0 0\n"
    assert guest.read("etc/fstab") == f"LABEL=g1 none swap discard 0 0\n{line}"


@pytest.mark.parametrize("priority", ["-1", "32768", "high", "1.5"])
def test_bad_priority(module_server: RunningServer, priority: str) -> None:
    done = module_server.ctl("guest-setup", "g1", f"--priority={priority}", check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


CONF = "etc/initramfs-tools/conf.d/resume"


@pytest.mark.parametrize(
    ("areas", "line"),
    [
        ([("/dev/vda2", 1000, -2), ("/dev/vda3", 3000, -3)], "RESUME=UUID=uuid-of-vda3\n"),
        ([("/dev/vda2", 1000, -2), ("/dev/sdb", 9000, 100)], "RESUME=UUID=uuid-of-vda2\n"),
        ([("/dev/zram0", 3000, 100)], "RESUME=none\n"),
        ([], "RESUME=none\n"),
    ],
    ids=["largest", "on already", "zram", "none"],
)
def test_initramfs_resumes_from_what_it_did_before(
    guest: GuestFiles, script: str, areas: list[tuple[str, int, int]], line: str
) -> None:
    """Its choice is the largest area, and from now on that may be this disk."""
    guest.write("etc/initramfs-tools/initramfs.conf", "MODULES=most\n# RESUME=\n")
    (guest.folder / CONF).parent.mkdir()
    guest.swaps(*areas)
    assert line in guest.run(script)
    guest.swaps(*areas, ("/dev/sdb", 90000, 100))
    guest.run(script)
    assert guest.read(CONF) == line


@pytest.mark.parametrize("path", [CONF, "etc/initramfs-tools/initramfs.conf"])
def test_initramfs_that_was_told_already(guest: GuestFiles, script: str, path: str) -> None:
    (guest.folder / CONF).parent.mkdir(parents=True)
    guest.write(path, "RESUME=/dev/vda2\n")
    guest.run(script)
    assert (guest.folder / CONF).exists() == (path == CONF)
    assert guest.read(path) == "RESUME=/dev/vda2\n"


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("0:0", "Before this guest hibernates"),
        ("8:16", "Do not hibernate this guest"),
        ("254:2", "hibernates to another area"),
    ],
    ids=["nowhere", "this disk", "another"],
)
def test_where_the_guest_hibernates_to_is_said(
    guest: GuestFiles, script: str, to: str, said: str
) -> None:
    guest.hibernates(to)
    assert said in guest.run(script)


def test_guest_that_cannot_hibernate_hears_nothing_of_it(guest: GuestFiles, script: str) -> None:
    assert "hibernate" not in guest.run(script)


def test_guest_without_the_disk_is_left_alone(guest: GuestFiles, script: str) -> None:
    guest.program("findfs", "exit 1")
    script = script.replace("/etc/", f"{guest.folder}/etc/")
    done = run(["/bin/sh", "-c", script], env={"PATH": f"{guest.programs}:/usr/bin:/bin"})
    assert done.returncode == 1
    assert guest.read("etc/fstab") == ""
