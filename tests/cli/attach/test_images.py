# SPDX-License-Identifier: BSD-3-Clause
"""An image as a guest's disk: what QEMU makes of it, and the overlay that is made or looked at."""

import json
import os
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from preswapd.cli.attach.image_disk import ImageDisk
from preswapd.cli.attach.qemu_args import qemu_arguments
from preswapd.units import PAGE_SIZE as PAGE
from tests.cli.conftest import StartMachine, at_a_terminal
from tests.precache.running import MIB, content
from tests.running import PRESWAPCTL, RunningServer, run, wait_for

SIZE = 4 * MIB
CONTENT = content(SIZE)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """A device, an image, and a writable one."""
    options = []
    for name in ("base", "own"):
        path = tmp_path / f"{name}.raw"
        path.write_bytes(CONTENT)
        options.append(f"--image={name}={path}")
    with RunningServer(tmp_path, {"g1": "64M"}, "32M", [*options, "--writable=own"]) as made:
        wait_for(lambda: made.json_stats()["images"]["base"]["cached"], bool)
        yield made


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    return tmp_path / "vm 1.qcow2"


def words(text: str) -> list[str]:
    return shlex.split(text.replace("\\\n", " "))


def information(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        run(["qemu-img", "info", "-U", "--output=json", str(path)]).stdout
    )
    return found


@pytest.mark.parametrize("bus", ["scsi", "virtio"])
def test_read_only_disk(server: RunningServer, start_machine: StartMachine, bus: str) -> None:
    arguments = words(server.ctl("qemu-args", "base", f"--bus={bus}").stdout)
    machine = start_machine("-machine", "q35", *arguments)
    (block,) = machine.ask("query-block")
    assert block["inserted"]["ro"]
    assert block["inserted"]["node-name"] == "image-base"
    assert server.json_stats()["images"]["base"]["connections"] == 1


@pytest.mark.parametrize("bus", ["scsi", "virtio"])
def test_overlay_is_a_disk_to_write_to(
    server: RunningServer, start_machine: StartMachine, overlay: Path, bus: str
) -> None:
    done = server.ctl("qemu-args", "base", f"--bus={bus}", "--overlay", str(overlay))
    assert done.stderr == (
        f"preswapctl: made {overlay}, a disk of 4M above base: what its guest writes goes there\n"
    )
    machine = start_machine("-machine", "q35", *words(done.stdout))
    (block,) = machine.ask("query-block")
    assert not block["inserted"]["ro"]
    assert block["inserted"]["image"]["virtual-size"] == SIZE
    assert machine.nodes() >= {"image-base", "base-base"}
    # Beside its guest, which has it open.
    again = server.ctl("qemu-args", "base", f"--bus={bus}", "--overlay", str(overlay))
    assert (again.stdout, again.stderr) == (
        done.stdout,
        f"preswapctl: {overlay} is an overlay of base already\n",
    )


def test_what_a_guest_reads_and_writes(server: RunningServer, overlay: Path) -> None:
    """By QEMU's own code, which finds the base as the file names it."""
    server.ctl("qemu-args", "base", "--overlay", str(overlay))
    copy = overlay.with_name("copy.raw")
    convert = ["qemu-img", "convert", "-O", "raw", str(overlay), str(copy)]
    assert run(convert).returncode == 0
    assert copy.read_bytes() == CONTENT
    write = ["qemu-io", "-f", "qcow2", "-c", f"write -P 7 {PAGE} {PAGE}", str(overlay)]
    assert run(write).returncode == 0
    assert run(convert).returncode == 0
    assert copy.read_bytes() == CONTENT[:PAGE] + b"\7" * PAGE + CONTENT[2 * PAGE :]
    assert (overlay.parent / "base.raw").read_bytes() == CONTENT
    assert server.json_stats()["images"]["base"]["hits"] > 0


def test_overlay_names_the_server(server: RunningServer, overlay: Path) -> None:
    server.ctl("qemu-args", "base", "--overlay", str(overlay))
    found = information(overlay)
    uri = f"nbd+unix:///base?socket={server.nbd_socket}"
    assert (found["backing-filename"], found["backing-filename-format"]) == (uri, "raw")
    assert overlay.stat().st_mode & 0o777 == 0o600
    assert [path for path in overlay.parent.iterdir() if path.name.startswith(".")] == []


def test_overlay_is_found_from_anywhere(server: RunningServer, tmp_path: Path) -> None:
    command = [PRESWAPCTL, f"--runtime-dir={server.runtime_dir}", "qemu-args", "base"]
    here = shlex.join([*command, "--overlay", "vm.qcow2"])
    printed = run(["/bin/sh", "-c", f"cd {shlex.quote(str(tmp_path))} && {here}"]).stdout
    assert json.dumps(str(tmp_path / "vm.qcow2")) in printed


OTHERS: dict[str, Callable[[Path], object]] = {
    "is a raw file and no overlay": lambda path: path.write_bytes(bytes(MIB)),
    "is no file": lambda path: path.mkdir(),
    "is a whole disk and no overlay": lambda path: create(path),
    "is an overlay of other.raw": lambda path: create(path, "-b", "other.raw", "-F", "raw"),
}


def create(path: Path, *options: str) -> None:
    path.with_name("other.raw").write_bytes(bytes(MIB))
    command = ["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), "1M"]
    assert run(command).returncode == 0


@pytest.mark.parametrize("why", OTHERS)
@pytest.mark.parametrize("command", ["qemu-args", "libvirt-xml"])
def test_what_is_there_is_left_as_it_is(
    server: RunningServer, overlay: Path, why: str, command: str
) -> None:
    OTHERS[why](overlay)
    before = overlay.is_file() and overlay.read_bytes()
    done = server.ctl(command, "base", "--overlay", str(overlay), check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    assert f"{overlay} {why}" in done.stderr
    assert (overlay.is_file() and overlay.read_bytes()) == before


def test_rebase_that_is_named_works(server: RunningServer, overlay: Path) -> None:
    create(overlay, "-b", "other.raw", "-F", "raw")
    done = server.ctl("qemu-args", "base", "--overlay", str(overlay), check=False)
    command = done.stderr.partition("as that does: ")[2].strip()
    assert run(["/bin/sh", "-c", command]).returncode == 0
    assert "already" in server.ctl("qemu-args", "base", "--overlay", str(overlay)).stderr


def test_overlay_that_cannot_be_made(server: RunningServer, tmp_path: Path) -> None:
    missing = tmp_path / "no such" / "vm.qcow2"
    done = server.ctl("qemu-args", "base", "--overlay", str(missing), check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.endswith(f"is no directory: mkdir -p '{missing.parent}'\n")


@pytest.mark.parametrize("command", ["qemu-args", "libvirt-xml"])
def test_overlay_of_a_device(server: RunningServer, overlay: Path, command: str) -> None:
    done = server.ctl(command, "g1", "--overlay", str(overlay), check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "preswapctl: --overlay is for an image, and g1 is a swap device\n"
    assert not overlay.exists()


def test_two_images_and_their_devices_do_not_clash() -> None:
    found = [
        {
            word
            for word in qemu_arguments(ImageDisk(name, Path("/s"), overlay=Path("/o")))
            if word not in ("-blockdev", "-device")
        }
        for name in ("a", "b")
    ]
    assert not found[0] & found[1]


# --- a writable one ---


@pytest.mark.parametrize("bus", ["scsi", "virtio"])
def test_writable_image_is_a_disk_to_write_to(
    server: RunningServer, start_machine: StartMachine, bus: str
) -> None:
    arguments = json.loads(server.ctl("--json", "qemu-args", "own", f"--bus={bus}").stdout)
    node = json.loads(arguments[1])
    assert "read-only" not in node
    assert (node["discard"], node["detect-zeroes"]) == ("unmap", "off")
    assert arguments[-1].endswith(",werror=stop,rerror=stop")
    assert "rotation_rate" not in arguments[-1]
    machine = start_machine("-machine", "q35", *arguments)
    (block,) = machine.ask("query-block")
    assert not block["inserted"]["ro"]
    # As the guest's disk does it.
    command = f'qemu-io -d {block["qdev"]} "write -P 7 0 4096"'
    said = machine.ask("human-monitor-command", **{"command-line": command})
    figures = wait_for(lambda: server.json_stats()["images"]["own"], lambda own: own["writes"] == 1)
    assert figures["connections"] == 1, said
    assert Path(figures["path"]).read_bytes() == b"\7" * PAGE + CONTENT[PAGE:]


@pytest.mark.parametrize("command", ["qemu-args", "libvirt-xml"])
def test_overlay_of_a_writable_image(server: RunningServer, overlay: Path, command: str) -> None:
    done = server.ctl(command, "own", "--overlay", str(overlay), check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "preswapctl: own is writable, and what is below an overlay must not change: leave --overlay"
        " out, or serve a base that nobody writes to\n"
    )
    assert not overlay.exists()


def test_libvirt_writable(server: RunningServer) -> None:
    disk = xml(server, name="own")
    assert disk.find("readonly") is None
    driver = disk.find("driver")
    assert driver is not None
    assert driver.attrib == {
        "name": "qemu",
        "type": "raw",
        "cache": "none",
        "error_policy": "stop",
        "rerror_policy": "stop",
        "discard": "unmap",
        "detect_zeroes": "off",
    }


def test_attach_and_detach_of_a_writable_one(
    server: RunningServer, start_machine: StartMachine
) -> None:
    """It is one guest's, and may be mounted there when it is to go."""
    machine, other = start_machine("-machine", "pc"), start_machine("-machine", "pc")
    qmp = f"--qmp={machine.qmp}"
    assert server.ctl("attach", "own", qmp, "--bus=virtio").stdout == (
        "attached own; in the guest: /dev/disk/by-id/virtio-image-own\n"
    )
    (block,) = machine.ask("query-block")
    assert not block["inserted"]["ro"]
    for options in ((), ("--yes",)):
        refused = server.ctl("attach", "own", f"--qmp={other.qmp}", *options, check=False)
        assert (refused.returncode, refused.stdout) == (4, "")
        assert "own of default: a client is connected, and two guests" in refused.stderr
    assert other.nodes() == set()

    asked = server.ctl("detach", "own", qmp, check=False)
    assert (asked.returncode, asked.stdout, asked.stderr.count("\n")) == (4, "", 1)
    assert "still mounted" in asked.stderr
    status, said = at_a_terminal(server, "n\n", "detach", "own", qmp)
    assert (status, said.endswith("nothing was changed\n")) == (4, True)
    assert "image-own" in machine.devices()
    # No guest is there to let go of it.
    done = server.ctl("detach", "own", qmp, "--yes", "--timeout=2", check=False)
    assert (done.returncode, "run it again" in done.stderr) == (5, True)


def test_attach_takes_back_what_a_killed_one_left(
    server: RunningServer, start_machine: StartMachine
) -> None:
    machine = start_machine("-machine", "pc")
    machine.ask("blockdev-add", **ImageDisk("own", server.nbd_socket, is_own=True).node())
    server.ctl("attach", "own", f"--qmp={machine.qmp}")
    assert machine.nodes() == {"image-own"}


def test_images_and_doctor_show_it(server: RunningServer) -> None:
    shown = server.ctl("images", "--noheadings", "-o", "NAME,WRITABLE").stdout
    assert [line.split() for line in shown.splitlines()] == [["base", "no"], ["own", "yes"]]
    assert "image own: 4M, writable, " in server.ctl("doctor", check=False).stdout


# --- libvirt ---


def xml(server: RunningServer, *options: str, name: str = "base") -> ET.Element:
    text = server.ctl("libvirt-xml", name, "--libvirt=9.2.0", *options).stdout
    found = ET.fromstring(f"<devices>{text}</devices>").find("disk")
    assert found is not None
    return found


def test_libvirt_read_only(server: RunningServer) -> None:
    disk = xml(server)
    assert disk.attrib == {"type": "network", "device": "disk"}
    assert disk.find("readonly") is not None
    source = disk.find("source")
    assert source is not None
    assert source.attrib == {"protocol": "nbd", "name": "base"}


def test_libvirt_with_a_backing_store(server: RunningServer, overlay: Path) -> None:
    disk = xml(server, "--overlay", str(overlay))
    assert disk.attrib == {"type": "file", "device": "disk"}
    assert overlay.exists()
    found = {element.tag: element.attrib for element in disk}
    assert found["source"] == {"file": str(overlay)}
    assert found["driver"]["type"] == "qcow2"
    assert "readonly" not in found
    backing = disk.find("backingStore")
    assert backing is not None
    assert backing.attrib == {"type": "network"}
    assert [element.tag for element in backing] == ["format", "source", "backingStore"]
    assert backing[0].attrib == {"type": "raw"}
    assert backing[1].attrib == {"protocol": "nbd", "name": "base"}
    assert backing[1][0].attrib == {"transport": "unix", "socket": str(server.nbd_socket)}
    assert len(backing[2]) == 0


def test_older_libvirt_hands_it_to_qemu(
    server: RunningServer, start_machine: StartMachine, overlay: Path
) -> None:
    options = ("--libvirt=9.0.0", "--overlay", str(overlay))
    (line,) = ET.fromstring(f"<d>{server.ctl('libvirt-xml', 'base', *options).stdout}</d>")
    machine = start_machine("-machine", "q35", *(element.attrib["value"] for element in line))
    assert [block["inserted"]["ro"] for block in machine.ask("query-block")] == [False]


def test_no_overlay_is_made_for_a_mistake(server: RunningServer, overlay: Path) -> None:
    for options in (("--libvirt=9.0.0", "--only=disk"), ("--bus=virtio", "--only=controller")):
        command = ["libvirt-xml", "base", "--overlay", str(overlay), *options]
        assert server.ctl(*command, check=False).returncode == 2
    assert not os.path.lexists(overlay)


# --- attach ---


def test_attach_and_detach(server: RunningServer, start_machine: StartMachine) -> None:
    machine = start_machine("-machine", "pc")
    qmp = f"--qmp={machine.qmp}"
    done = server.ctl("attach", "base", qmp)
    assert done.stdout.startswith("attached base, which cannot be written; in the guest: /dev/disk")
    (block,) = machine.ask("query-block")
    assert block["inserted"]["ro"]
    again = server.ctl("attach", "base", qmp, check=False)
    assert (again.returncode, again.stderr.count("\n")) == (4, 1)
    # Beside a swap disk, each with its own controller.
    server.ctl("attach", "g1", qmp)
    assert len(machine.disks()) == 2
    done = server.ctl("detach", "base", qmp, "--force", "--timeout=2", check=False)
    assert done.returncode in (0, 5), "no guest is there to let go of a controller"
    assert "image-base" not in machine.devices()
