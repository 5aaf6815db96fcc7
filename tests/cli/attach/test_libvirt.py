# SPDX-License-Identifier: BSD-3-Clause
"""`libvirt-xml`: what libvirt is told, in the form that its version knows."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from preswapd.cli.attach.disk import VIRTIO, Disk
from preswapd.cli.attach.libvirt import QEMU_NAMESPACE, device_xml, letters
from preswapd.host.versions import LIBVIRTS, first_version
from tests.cli.conftest import StartMachine
from tests.running import PRESWAPCTL, RunningServer, run

NASTY = Path('/run/a "b" & <c>/it\'s/nbd.sock')
COMMAND_LINE = f"{{{QEMU_NAMESPACE}}}commandline"


def devices(text: str) -> dict[str, ET.Element]:
    """By tag, as they stand in <devices>."""
    return {element.tag: element for element in ET.fromstring(f"<devices>{text}</devices>")}


def printed(server: RunningServer, *options: str) -> dict[str, ET.Element]:
    return devices(server.ctl("libvirt-xml", "g1", *options).stdout)


def attributes(element: ET.Element, path: str) -> dict[str, str]:
    found = element.find(path)
    assert found is not None, path
    return found.attrib


def test_disk_has_the_settings_of_qemu_args(module_server: RunningServer) -> None:
    found = printed(module_server, "--libvirt=9.2.0")
    disk = found["disk"]
    assert disk.attrib == {"type": "network", "device": "disk"}
    assert attributes(disk, "source") == {"protocol": "nbd", "name": "g1"}
    host = {"transport": "unix", "socket": str(module_server.nbd_socket)}
    assert attributes(disk, "source/host") == host
    assert attributes(disk, "source/reconnect") == {"delay": "300"}
    assert attributes(disk, "target") == {"dev": "sdo", "bus": "scsi", "rotation_rate": "1"}
    driver = attributes(disk, "driver")
    assert (driver["cache"], driver["discard"], driver["detect_zeroes"]) == ("none", "unmap", "off")
    assert (driver["error_policy"], driver["rerror_policy"]) == ("stop", "stop")
    assert disk.findtext("serial") == "preswap-g1"
    assert found["controller"].attrib == {"type": "scsi", "index": "0", "model": "virtio-scsi"}


def test_disk_lies_on_that_controller(module_server: RunningServer) -> None:
    """Left to libvirt, sdh and later ones get another one, of another kind."""
    address = attributes(printed(module_server, "--libvirt=9.2.0")["disk"], "address")
    assert (address["controller"], address["target"], address["unit"]) == ("0", "14", "0")


@pytest.mark.parametrize(("name", "number"), [("sda", 0), ("sdz", 25), ("sdaa", 26), ("sdba", 52)])
def test_numbers_of_names(name: str, number: int) -> None:
    assert letters(name) == number


def test_virtio_disk(module_server: RunningServer) -> None:
    found = printed(module_server, "--libvirt=9.2.0", "--bus=virtio")
    assert set(found) == {"disk"}
    assert attributes(found["disk"], "target") == {"dev": "vdz", "bus": "virtio"}
    assert found["disk"].find("address") is None


def test_target_is_the_callers(module_server: RunningServer) -> None:
    disk = printed(module_server, "--libvirt=9.2.0", "--target=sdb")["disk"]
    assert attributes(disk, "target")["dev"] == "sdb"
    assert attributes(disk, "address")["target"] == "1"


@pytest.mark.parametrize("only", ["disk", "controller"])
def test_one_element_by_itself(module_server: RunningServer, only: str) -> None:
    text = module_server.ctl("libvirt-xml", "g1", "--libvirt=10.0.0", f"--only={only}").stdout
    assert ET.fromstring(text).tag == only


@pytest.mark.parametrize(
    ("version", "tag"),
    [("8.0.0", COMMAND_LINE), ("9.1.9", COMMAND_LINE), ("9.2", "disk"), ("10.0.0", "disk")],
)
def test_version_decides_the_form(module_server: RunningServer, version: str, tag: str) -> None:
    assert tag in printed(module_server, f"--libvirt={version}")


@pytest.mark.parametrize("bus", ["scsi", "virtio"])
def test_command_line_is_one_for_qemu(
    server: RunningServer, start_machine: StartMachine, bus: str
) -> None:
    line = printed(server, "--libvirt=9.0.0", f"--bus={bus}")[COMMAND_LINE]
    machine = start_machine("-machine", "q35", *(element.attrib["value"] for element in line))
    assert [disk.split("/virtio-backend")[0] for disk in machine.disks()] in (
        ["preswap-g1"],
        ["/machine/peripheral/preswap-g1"],
    )


def test_command_line_devices_are_json(module_server: RunningServer) -> None:
    """QEMU makes all others before libvirt's own, and a PCI slot would be taken twice."""
    line = printed(module_server, "--libvirt=9.0.0")[COMMAND_LINE]
    values = [element.attrib["value"] for element in line]
    assert [json.loads(value)["driver"] for value in values[1::2]] == [
        "nbd",
        "virtio-scsi-pci",
        "scsi-hd",
    ]


def test_any_path_and_name_is_xml() -> None:
    for bus in ("scsi", VIRTIO):
        found = devices(device_xml(Disk("a--b-", NASTY, bus), "sdo"))
        assert attributes(found["disk"], "source/host")["socket"] == str(NASTY)


def test_installed_libvirt_decides(module_server: RunningServer, tmp_path: Path) -> None:
    virsh = tmp_path / "virsh"
    for version, tag in (("9.0.0", COMMAND_LINE), ("9.2.0", "disk")):
        virsh.write_text(f"#!/bin/sh\necho {version}\n")
        virsh.chmod(0o755)
        command = [PRESWAPCTL, f"--runtime-dir={module_server.runtime_dir}", "libvirt-xml", "g1"]
        done = run(command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
        assert tag in devices(done.stdout)
        assert done.stderr == ""


def test_daemon_tells_its_version_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    daemon = tmp_path / "libvirtd"
    daemon.write_text("#!/bin/sh\necho '/usr/sbin/libvirtd (libvirt) 9.7.1'\n")
    daemon.chmod(0o755)
    monkeypatch.setattr(
        "preswapd.host.versions.which",
        lambda name, path=None: str(daemon) if name == "libvirtd" and path else None,
    )
    assert first_version(LIBVIRTS) == (9, 7, 1)


def test_no_libvirt_is_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preswapd.host.versions.which", lambda name, path=None: None)
    assert first_version(LIBVIRTS) is None


def test_json(module_server: RunningServer) -> None:
    found = json.loads(module_server.ctl("--json", "libvirt-xml", "g1", "--libvirt=9.2.0").stdout)
    assert (found["name"], found["bus"]) == ("g1", "scsi")
    assert "disk" in devices(found["xml"])


@pytest.mark.parametrize(
    "options",
    [
        ["--libvirt=new"],
        ["--libvirt=9.0.0", "--only=disk"],
        ["--libvirt=9.2.0", "--bus=virtio", "--only=controller"],
        ["--target=/dev/sda"],
    ],
    ids=" ".join,
)
def test_mistakes_exit_2_with_one_line(module_server: RunningServer, options: list[str]) -> None:
    done = module_server.ctl("libvirt-xml", "g1", *options, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_unknown_device(module_server: RunningServer) -> None:
    done = module_server.ctl("libvirt-xml", "g9", check=False)
    assert (done.returncode, done.stdout) == (2, "")
