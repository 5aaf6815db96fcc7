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
    assert found["fstab"] in text
    assert f"{found['udev_rule']}\n" in text


def test_scsi_disk_needs_no_rule(module_server: RunningServer) -> None:
    found = json.loads(module_server.ctl("--json", "guest-setup", "g1").stdout)
    assert found["udev_rule"] is None


def test_unknown_device(module_server: RunningServer) -> None:
    done = module_server.ctl("guest-setup", "g9", check=False)
    assert (done.returncode, done.stdout) == (2, "")


LINE = "LABEL=a.b none swap discard,nofail,pri=100 0 0\n"
ROOT = "UUID=1 / ext4 defaults 0 1"


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
    start_server: StartServer, tmp_path: Path, before: str, after: str
) -> None:
    server = start_server(devices={"a.b": "1M"})
    fstab = tmp_path / "fstab"
    fstab.write_text(before)
    text = server.ctl("guest-setup", "a.b").stdout
    part = text[text.index("grep -q") : text.index("swapon --all")]
    for _ in range(2):
        done = run(["/bin/sh", "-eu", "-c", part.replace("/etc/fstab", str(fstab))])
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert fstab.read_text() == after
