# SPDX-License-Identifier: BSD-3-Clause
"""`attach` and `detach`, on a QEMU that runs nothing but its firmware: what is added and undone."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

import pytest

from preswapd.cli.attach.disk import Disk
from preswapd.qmp import Monitor
from tests.cli.conftest import Machine, StartMachine, at_a_terminal
from tests.clients import BEHIND_ZONE, connected
from tests.conftest import StartServer
from tests.running import PATIENCE, PRESWAPCTL, RunningServer, run, wait_until

# Its root bus takes devices at run time, and nobody answers when they are to go.
PC = ("-machine", "pc")
# Its root bus takes none.
Q35 = ("-machine", "q35")
PORT = ("-device", "pcie-root-port,id=port0,chassis=1")
SCSI_HOST = ("-device", "virtio-scsi-pci,id=own")


@pytest.fixture
def machine(start_machine: StartMachine) -> Machine:
    return start_machine(*PC)


def refused(server: RunningServer, status: int, *arguments: str) -> str:
    """The one line that it says."""
    done = server.ctl(*arguments, check=False)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


# --- in ---


def test_attach_adds_what_qemu_args_does(
    server: RunningServer, machine: Machine, start_machine: StartMachine
) -> None:
    done = server.ctl("attach", "g1", f"--qmp={machine.qmp}")
    assert done.stdout == "attached g1; in the guest: swapon --discard LABEL=g1\n"
    assert server.json_stats()["devices"]["g1"]["connections"] == 1
    booted = start_machine(*PC, *json.loads(server.ctl("--json", "qemu-args", "g1").stdout))
    assert (machine.nodes(), machine.devices()) == (booted.nodes(), booted.devices())
    for name in ("rotation_rate", "serial", "werror", "rerror", "drive"):
        path = "/machine/peripheral/preswap-g1"
        value = machine.ask("qom-get", path=path, property=name)
        assert value == booted.ask("qom-get", path=path, property=name)


def test_attach_of_a_virtio_disk(server: RunningServer, machine: Machine) -> None:
    done = server.ctl("--json", "attach", "g1", f"--qmp={machine.qmp}", "--bus=virtio")
    assert json.loads(done.stdout) == {
        "name": "g1",
        "bus": "virtio",
        "serial": "preswap-g1",
        "device": "/machine/peripheral/preswap-g1",
    }
    assert machine.devices() == {"preswap-g1"}


def test_attach_uses_a_free_port(server: RunningServer, start_machine: StartMachine) -> None:
    machine = start_machine(*Q35, *PORT)
    server.ctl("attach", "g1", f"--qmp={machine.qmp}")
    assert machine.devices() == {"port0", "pss-g1", "preswap-g1"}


def test_attach_without_a_free_port_is_undone(
    server: RunningServer, start_machine: StartMachine
) -> None:
    machine = start_machine(*Q35)
    assert "--controller" in refused(server, 1, "attach", "g1", f"--qmp={machine.qmp}")
    assert (machine.nodes(), machine.devices()) == (set(), set())


def test_attach_uses_a_controller_that_is_there(
    server: RunningServer, start_machine: StartMachine
) -> None:
    machine = start_machine(*Q35, *SCSI_HOST)
    server.ctl("attach", "g1", f"--qmp={machine.qmp}", "--controller=own")
    assert machine.devices() == {"own", "preswap-g1"}


def test_attach_to_an_unknown_controller_is_undone(server: RunningServer, machine: Machine) -> None:
    said = refused(server, 1, "attach", "g1", f"--qmp={machine.qmp}", "--controller=nix")
    assert "Bus 'nix.0' not found" in said
    assert (machine.nodes(), machine.devices()) == (set(), set())


def test_attach_clears_what_a_killed_attach_left(server: RunningServer, machine: Machine) -> None:
    machine.ask("blockdev-add", **Disk("g1", server.nbd_socket).node())
    server.ctl("attach", "g1", f"--qmp={machine.qmp}", "--yes")
    assert machine.nodes() == {"preswap-g1"}
    assert machine.disks() == ["preswap-g1"]


def test_attach_leaves_what_only_has_its_name(server: RunningServer, machine: Machine) -> None:
    machine.ask("blockdev-add", **{"driver": "null-co", "node-name": "preswap-g1"})
    assert "null-co" in refused(server, 4, "attach", "g1", f"--qmp={machine.qmp}")
    assert machine.nodes() == {"preswap-g1"}


def test_attach_twice_is_refused(server: RunningServer, machine: Machine) -> None:
    server.ctl("attach", "g1", f"--qmp={machine.qmp}")
    assert "already" in refused(server, 4, "attach", "g1", f"--qmp={machine.qmp}")
    assert len(machine.disks()) == 1


def test_attach_to_a_second_guest_is_refused(server: RunningServer, machine: Machine) -> None:
    first = connected(server, "g1")
    assert "--yes" in refused(server, 4, "attach", "g1", f"--qmp={machine.qmp}")
    assert machine.nodes() == set()
    server.ctl("attach", "g1", f"--qmp={machine.qmp}", "--yes")
    first.shutdown()


def test_attach_while_another_guest_may_come_back_asks(
    server: RunningServer, machine: Machine
) -> None:
    first = connected(server, "g1")
    server.kill()
    server.start()
    assert "has not come back" in refused(server, 4, "attach", "g1", f"--qmp={machine.qmp}")
    assert machine.nodes() == set()
    del first


# --- two instances, each with a device of this name ---


class Two(NamedTuple):
    first: RunningServer
    second: RunningServer
    machine: Machine


@pytest.fixture
def two(start_server: StartServer, start_machine: StartMachine) -> Two:
    """One guest, and the instances i1 and i2 with a g1 each."""
    first, second = (start_server(extra=[f"--instance={name}"]) for name in ("i1", "i2"))
    return Two(first, second, start_machine(*Q35, *SCSI_HOST))


def test_detach_takes_no_other_instances_disk(two: Two) -> None:
    qmp = f"--qmp={two.machine.qmp}"
    two.first.ctl("attach", "g1", qmp, "--controller=own")
    said = refused(two.second, 4, "detach", "g1", qmp, "--force")
    assert "g1 of i2 is not attached" in said
    # The command that it names is one that works.
    (command,) = re.findall("preswapctl (--runtime-dir .*)", said)
    assert two.machine.disks() == ["preswap-g1.i1"]
    assert run([PRESWAPCTL, *command.split(), "--force"]).stdout == "detached g1\n"
    assert (two.machine.disks(), two.machine.nodes()) == ([], set())


def test_guest_has_both_and_can_tell_them_apart(two: Two) -> None:
    qmp = f"--qmp={two.machine.qmp}"
    two.first.ctl("attach", "g1", qmp, "--controller=own")
    said = two.second.ctl("attach", "g1", qmp, "--controller=own").stdout
    assert sorted(two.machine.disks()) == ["preswap-g1.i1", "preswap-g1.i2"]
    assert f"--runtime-dir {two.first.runtime_dir} too" in said
    in_guest = Disk("g1", two.second.nbd_socket, instance="i2").path_in_guest
    assert said.endswith(f"swapon --discard {in_guest}\n")
    for name, server in (("i1", two.first), ("i2", two.second)):
        assert f"g1 of {name} is attached" in refused(server, 4, "attach", "g1", qmp)
    two.first.ctl("detach", "g1", qmp, "--force")
    assert two.machine.disks() == ["preswap-g1.i2"]
    assert two.second.json_stats()["devices"]["g1"]["connections"] == 1


@pytest.mark.parametrize("bus", ["scsi", "virtio"])
def test_guest_that_starts_with_both(two: Two, start_machine: StartMachine, bus: str) -> None:
    arguments = [
        argument
        for server in (two.first, two.second)
        for argument in json.loads(server.ctl("--json", "qemu-args", "g1", f"--bus={bus}").stdout)
    ]
    machine = start_machine(*Q35, *arguments)
    assert machine.nodes() == {"preswap-g1.i1", "preswap-g1.i2"}


def test_disk_of_an_older_release_is_found_by_its_export(two: Two) -> None:
    """It named all disks without their instance."""
    old = Disk("g1", two.first.nbd_socket)
    two.machine.ask("blockdev-add", **old.node())
    two.machine.ask("device_add", **old.device("own"))
    qmp = f"--qmp={two.machine.qmp}"
    refused(two.second, 4, "detach", "g1", qmp)
    assert "already" in refused(two.first, 4, "attach", "g1", qmp)
    two.first.ctl("detach", "g1", qmp, "--force")
    assert (two.machine.disks(), two.machine.nodes()) == ([], set())


def test_disk_under_a_layer_of_its_own_is_found(
    server: RunningServer, start_machine: StartMachine
) -> None:
    machine = start_machine(*Q35, *SCSI_HOST)
    disk = Disk("g1", server.nbd_socket)
    machine.ask("blockdev-add", **disk.node() | {"node-name": "below"})
    layer = {"driver": "raw", "node-name": "above", "file": "below"}
    machine.ask("blockdev-add", **layer)
    machine.ask("device_add", **disk.device("own") | {"drive": "above", "id": "mine"})
    server.ctl("detach", "g1", f"--qmp={machine.qmp}", "--force")
    assert (machine.disks(), machine.nodes()) == ([], set())


def test_socket_behind_a_link_is_the_same(
    server: RunningServer, start_machine: StartMachine
) -> None:
    machine = start_machine(*Q35, *SCSI_HOST)
    link = server.base / "link"
    link.symlink_to(server.runtime_dir)
    disk = Disk("g1", link / "nbd.sock")
    machine.ask("blockdev-add", **disk.node())
    machine.ask("device_add", **disk.device("own"))
    server.ctl("detach", "g1", f"--qmp={machine.qmp}", "--force")
    assert machine.disks() == []


INTERRUPTED_WHEN_ATTACHED = """
import os, signal
from preswapd.cli import main
from preswapd.cli.attach.hotplug import Hotplug

def device(self, look=Hotplug.device):
    found = look(self)
    if found:
        os.kill(os.getpid(), signal.SIGINT)
    return found

Hotplug.device = device
main.main()
"""


def test_interrupt_after_the_last_step_leaves_nothing_unsaid(
    server: RunningServer, machine: Machine
) -> None:
    options = [f"--runtime-dir={server.runtime_dir}", "attach", "g1", f"--qmp={machine.qmp}"]
    done = run([sys.executable, "-c", INTERRUPTED_WHEN_ATTACHED, *options])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("attached g1;")
    assert machine.disks() == ["preswap-g1"]


def test_two_devices_side_by_side(start_server: StartServer, start_machine: StartMachine) -> None:
    machine = start_machine(*Q35, *SCSI_HOST)
    server = start_server(devices={"g1": "64M", "g2": "64M"})
    for name in ("g1", "g2"):
        server.ctl("attach", name, f"--qmp={machine.qmp}", "--controller=own")
    assert sorted(machine.disks()) == ["preswap-g1", "preswap-g2"]
    server.ctl("detach", "g1", f"--qmp={machine.qmp}", "--force")
    assert (machine.disks(), machine.nodes()) == (["preswap-g2"], {"preswap-g2"})


# --- out ---


def test_detach_takes_all_out_again(server: RunningServer, start_machine: StartMachine) -> None:
    machine = start_machine(*Q35, *SCSI_HOST)
    server.ctl("attach", "g1", f"--qmp={machine.qmp}", "--controller=own")
    done = server.ctl("detach", "g1", f"--qmp={machine.qmp}", "--force")
    assert done.stdout == "detached g1\n"
    assert (machine.nodes(), machine.devices()) == (set(), {"own"})
    assert server.json_stats()["devices"]["g1"]["connections"] == 0


def test_detach_tells_what_is_kept(server: RunningServer, start_machine: StartMachine) -> None:
    machine = start_machine(*Q35, *SCSI_HOST)
    client = connected(server, "g1")
    client.pwrite(b"x" * 8192, BEHIND_ZONE)
    client.shutdown()
    for _ in range(2):
        server.ctl("attach", "g1", f"--qmp={machine.qmp}", "--controller=own")
        done = server.ctl("--json", "detach", "g1", f"--qmp={machine.qmp}", "--force")
        assert json.loads(done.stdout) == {"name": "g1", "kept_pages": 2}


def test_detach_of_a_disk_that_holds_pages_asks(
    server: RunningServer, start_machine: StartMachine
) -> None:
    """Not so recent a request, and no word from the guest that it needs them no more."""
    client = connected(server, "g1")
    client.pwrite(b"x" * 8192, BEHIND_ZONE)
    client.shutdown()
    server.restart()
    machine = start_machine(*Q35, *json.loads(server.ctl("--json", "qemu-args", "g1").stdout))
    command = ("detach", "g1", f"--qmp={machine.qmp}")
    wait_until(lambda: "holds" in refused(server, 4, *command), "the firmware's reads to be old")
    assert "g1 of default holds 2 pages (8K), which the guest loses" in refused(server, 4, *command)
    # The guest swaps again while the question stands.
    client = connected(server, "g1")
    status, said = at_a_terminal(
        server, "y\n", *command, meanwhile=lambda: client.pwrite(b"y" * 4096, BEHIND_ZONE)
    )
    assert (status, "it had I/O " in said) == (4, True)
    client.shutdown()
    assert machine.disks() == ["preswap-g1"]
    wait_until(lambda: "holds" in refused(server, 4, *command), "that to be old")
    done = server.ctl(*command, "--yes")
    assert done.stdout == (
        "detached g1\nthe server keeps 2 pages (8K): preswapctl swapoff g1 drops them\n"
    )
    assert machine.disks() == []


def test_detach_leaves_a_controller_of_the_command_line(
    server: RunningServer, start_machine: StartMachine
) -> None:
    machine = start_machine(*Q35, *json.loads(server.ctl("--json", "qemu-args", "g1").stdout))
    done = server.ctl("detach", "g1", f"--qmp={machine.qmp}", "--force")
    assert "its controller pss-g1 was not removed" in done.stderr
    assert (machine.nodes(), machine.devices()) == (set(), {"pss-g1"})
    server.ctl("attach", "g1", f"--qmp={machine.qmp}")
    assert machine.devices() == {"pss-g1", "preswap-g1"}


def test_detach_of_a_disk_without_an_id(server: RunningServer, start_machine: StartMachine) -> None:
    arguments = json.loads(server.ctl("--json", "qemu-args", "g1").stdout)
    machine = start_machine(*Q35, *(text.replace("id=preswap-g1,", "") for text in arguments))
    assert machine.disks()[0].startswith("/machine/peripheral-anon/")
    server.ctl("detach", "g1", f"--qmp={machine.qmp}", "--force")
    assert machine.disks() == []


@pytest.mark.parametrize("bus", ["scsi", "virtio"])
def test_detach_from_a_guest_that_holds_on(
    server: RunningServer, machine: Machine, bus: str
) -> None:
    server.ctl("attach", "g1", f"--qmp={machine.qmp}", f"--bus={bus}")
    command = ("detach", "g1", f"--qmp={machine.qmp}", "--force", "--timeout=0.2")
    # The second time QEMU says that it is being unplugged already.
    for _ in range(2):
        assert "has not let go" in refused(server, 5, *command)
    if bus == "virtio":
        assert machine.nodes() == {"preswap-g1"}, "a node must outlive its disk"
    else:
        assert machine.disks() == []


def test_detach_of_what_was_in_use_just_now_is_refused(
    server: RunningServer, machine: Machine
) -> None:
    server.ctl("attach", "g1", f"--qmp={machine.qmp}")
    client = connected(server, "g1")
    client.pwrite(b"x" * 4096, BEHIND_ZONE)
    assert "--force" in refused(server, 4, "detach", "g1", f"--qmp={machine.qmp}")
    assert machine.disks() == ["preswap-g1"]
    client.shutdown()


def test_detach_from_a_paused_guest_is_refused(
    server: RunningServer, start_machine: StartMachine
) -> None:
    machine = start_machine(*PC, "-S")
    server.ctl("attach", "g1", f"--qmp={machine.qmp}")
    said = refused(server, 4, "detach", "g1", f"--qmp={machine.qmp}")
    assert "is not running (prelaunch)" in said
    assert machine.disks() == ["preswap-g1"]


def test_detach_of_what_is_not_attached(server: RunningServer, machine: Machine) -> None:
    assert "not attached" in refused(server, 4, "detach", "g1", f"--qmp={machine.qmp}")


def test_detach_waits_for_the_server(server: RunningServer, start_machine: StartMachine) -> None:
    """QEMU's last flush would hold the guest up until it has reconnected."""
    machine = start_machine(*Q35, *SCSI_HOST)
    server.ctl("attach", "g1", f"--qmp={machine.qmp}", "--controller=own")
    server.kill()
    refused(server, 3, "detach", "g1", f"--qmp={machine.qmp}", "--force")
    assert machine.disks() == ["preswap-g1"]
    server.start()
    server.ctl("detach", "g1", f"--qmp={machine.qmp}", "--force")
    assert machine.nodes() == set()


def test_interrupted_detach_can_be_run_again(server: RunningServer, machine: Machine) -> None:
    server.ctl("attach", "g1", f"--qmp={machine.qmp}", "--bus=virtio")
    with waiting_detach(server, machine) as process:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (5, "preswapctl: interrupted; run it again to go on\n")
    assert machine.disks() != []


@contextmanager
def waiting_detach(server: RunningServer, machine: Machine) -> Iterator[subprocess.Popen[str]]:
    """One that waits for a guest that does not answer."""
    command = [PRESWAPCTL, f"--runtime-dir={server.runtime_dir}", "detach", "g1", "--force"]
    with subprocess.Popen(
        [*command, f"--qmp={machine.qmp}", "--timeout=600"], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "waiting for the guest to let go of the disk\n"
            yield process
        finally:
            process.kill()


# --- the monitor's socket ---


@pytest.mark.parametrize("command", ["attach", "detach"])
def test_socket_that_is_not_there(server: RunningServer, command: str) -> None:
    said = refused(server, 1, command, "g1", f"--qmp={server.base / 'nix'}")
    assert "no QEMU listens there" in said


def test_socket_of_a_qemu_that_ended(server: RunningServer, machine: Machine) -> None:
    machine.process.kill()
    machine.process.wait(PATIENCE)
    refused(server, 1, "attach", "g1", f"--qmp={machine.qmp}")


def test_socket_in_use_by_another_client(server: RunningServer, machine: Machine) -> None:
    with closing(Monitor.at(machine.qmp)):
        said = refused(server, 1, "attach", "g1", f"--qmp={machine.qmp}")
    assert "another client" in said
    assert "virsh attach-device" in said


@pytest.mark.parametrize("monitor", ["readline", "closed"])
def test_socket_of_something_else(
    server: RunningServer, start_machine: StartMachine, monitor: str
) -> None:
    path = server.base / "hmp"
    if monitor == "readline":
        start_machine(*PC, "-monitor", f"unix:{path},server=on,wait=off")
        refused(server, 1, "attach", "g1", f"--qmp={path}")
    else:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            listening.settimeout(PATIENCE)
            process = subprocess.Popen(
                [
                    *(PRESWAPCTL, f"--runtime-dir={server.runtime_dir}"),
                    *("attach", "g1", f"--qmp={path}"),
                ],
                stderr=subprocess.PIPE,
                text=True,
            )
            listening.accept()[0].close()
            _, said = process.communicate(timeout=PATIENCE)
        assert (process.returncode, said.count("\n")) == (1, 1)


def test_qemu_that_ends_while_the_guest_is_waited_for(
    server: RunningServer, machine: Machine
) -> None:
    server.ctl("attach", "g1", f"--qmp={machine.qmp}", "--bus=virtio")
    with waiting_detach(server, machine) as process:
        machine.process.kill()
        _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said.count("\n")) == (1, 1)


def test_unknown_device(server: RunningServer, machine: Machine) -> None:
    assert "g9" in refused(server, 2, "attach", "g9", f"--qmp={machine.qmp}")
    assert "g9" in refused(server, 2, "detach", "g9", f"--qmp={machine.qmp}")


def test_controller_of_a_virtio_disk_is_a_mistake(server: RunningServer) -> None:
    command = ("attach", "g1", f"--qmp={os.devnull}", "--bus=virtio", "--controller=own")
    assert "--controller" in refused(server, 2, *command)
