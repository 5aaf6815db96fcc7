# SPDX-License-Identifier: BSD-3-Clause
"""The hook of libvirt: which guests it lets come to a host, by the XML that libvirt gives it."""

import subprocess
from pathlib import Path

import pytest

from tests.clients import BEHIND_ZONE, connected
from tests.conftest import StartServer
from tests.running import PATIENCE, RunningServer

HOOK = Path(__file__).parent.parent / "contrib/libvirt/hook.py"
NEWER, OLDER = "9.2.0", "9.0.0"
HOST = """<disk type="network" device="disk"><source protocol="nbd" name="other">
<host {host}/></source><target dev="sda" bus="scsi"/></disk>"""


def domain(*disks: str) -> str:
    """A guest of libvirt, with a disk that is none of ours too."""
    outside = "".join(disk for disk in disks if "commandline" in disk)
    inside = "".join(disk for disk in disks if disk not in outside)
    local = '<disk type="file" device="disk"><source file="/x.qcow2"/></disk>'
    return (
        '<domain type="kvm" xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">'
        f"<name>vm1</name><devices>{local}{inside}</devices>{outside}</domain>"
    )


def printed(server: RunningServer, name: str, libvirt: str = NEWER) -> str:
    return server.ctl("libvirt-xml", name, "--libvirt", libvirt).stdout


def hook(xml: str, *operation: str) -> subprocess.CompletedProcess[str]:
    """With the little that libvirt gives it."""
    return subprocess.run(
        [HOOK, "vm1", *operation, "-"],
        input=xml,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        check=False,
    )


def refused(xml: str, *operation: str) -> str:
    """Why."""
    done = hook(xml, *(operation or ("migrate", "begin")))
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.startswith("preswapd: vm1: ")
    return done.stderr


def let_in(xml: str, *operation: str) -> None:
    done = hook(xml, *(operation or ("migrate", "begin")))
    # Nothing on standard output: libvirt goes on with its own XML.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("libvirt", [NEWER, OLDER])
def test_comes_once_its_device_was_announced(start_server: StartServer, libvirt: str) -> None:
    there, here = start_server(), start_server(devices={})
    connected(there, "g1").pwrite(bytes(range(256)) * 4096, BEHIND_ZONE)
    # The guest's XML names the same socket on both hosts; here they are two.
    xml = domain(printed(there, "g1", libvirt).replace(str(there.base), str(here.base)))
    create = f"preswapctl --runtime-dir={here.runtime_dir} create g1 SIZE --from"
    assert create in refused(xml)
    here.ctl("create", "g1", "64M")
    assert create in refused(xml)
    here.ctl("create", "g1", "64M", "--from", there.nbd_uri("g1"), "--yes")
    for _ in range(2):  # a migration that failed is tried again
        let_in(xml)
    here.ctl("pull", "g1", "--rate", "4K", "--no-wait")
    connected(here, "g1").pwrite(bytes(4096), BEHIND_ZONE)
    assert "does not wait for it" in refused(xml)
    # It runs there now, and must not be started here.
    taken = domain(printed(there, "g1", libvirt))
    assert f"preswapctl --runtime-dir={there.runtime_dir} swapoff g1" in refused(
        taken, "prepare", "begin"
    )


def test_without_a_server(start_server: StartServer) -> None:
    server = start_server()
    xml = domain(printed(server, "g1"))
    server.kill()
    assert "no server of its swap g1 answers" in refused(xml)
    # libvirt says so itself, and a server may be started by its socket.
    let_in(xml, "prepare", "begin")


def test_other_disks_come(start_server: StartServer, tmp_path: Path) -> None:
    image = tmp_path / "image.raw"
    image.write_bytes(bytes(1 << 20))
    server = start_server(extra=[f"--image=base={image}"])
    unix = HOST.format(host=f'transport="unix" socket="{tmp_path}/nbd.sock"')
    tcp = HOST.format(host='name="host1" port="10809"')
    let_in(domain(unix, tcp, printed(server, "base"), printed(server, "base", OLDER)))


def test_other_operations_go_on(start_server: StartServer) -> None:
    xml = domain(printed(start_server(), "g1"))
    for operation in ("prepare begin", "start begin", "stopped end", "release end"):
        let_in(xml, *operation.split())
