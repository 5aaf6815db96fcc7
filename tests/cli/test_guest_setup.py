"""`guest-setup`: a script for the guest's shell.  tests/guest/test_hotplug.py uses its parts."""

import json

import pytest

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
    assert found["fstab"] in text
    assert f"{found['udev_rule']}\n" in text


def test_scsi_disk_needs_no_rule(module_server: RunningServer) -> None:
    found = json.loads(module_server.ctl("--json", "guest-setup", "g1").stdout)
    assert found["udev_rule"] is None


def test_unknown_device(module_server: RunningServer) -> None:
    done = module_server.ctl("guest-setup", "g9", check=False)
    assert (done.returncode, done.stdout) == (2, "")
