# SPDX-License-Identifier: BSD-3-Clause
"""What `qemu-args` prints is what a shell and QEMU make of it."""

import json
import os
import re
from pathlib import Path

from preswapd.cli.attach.disk import VIRTIO, Disk
from preswapd.cli.attach.qemu_args import as_shell, qemu_args_command, qemu_arguments
from tests.running import RunningServer, run

ROOT = Path(__file__).parents[3]
NASTY = Path("/run/a b/it's $HOME/nbd.sock")


def blockdev(arguments: list[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(arguments[arguments.index("-blockdev") + 1])
    return found


def test_requests_wait_for_a_restarted_server() -> None:
    assert blockdev(qemu_arguments(Disk("g1", NASTY)))["reconnect-delay"] == 300


def test_discards_are_passed_on() -> None:
    assert blockdev(qemu_arguments(Disk("g1", NASTY)))["discard"] == "unmap"


def test_disk_does_not_rotate() -> None:
    assert "rotation_rate=1" in qemu_arguments(Disk("g1", NASTY))[-1]


def test_virtio_disk_has_no_controller_and_no_rate() -> None:
    arguments = qemu_arguments(Disk("g1", NASTY, VIRTIO))
    assert arguments[2:] == [
        "-device",
        "virtio-blk-pci,id=preswap-g1,drive=preswap-g1,serial=preswap-g1,werror=stop,rerror=stop",
    ]


def test_names_join_the_parts() -> None:
    arguments = qemu_arguments(Disk("g1", NASTY))
    node, bus = blockdev(arguments)["node-name"], arguments[3].partition("id=")[2]
    assert f"drive={node}," in arguments[-1]
    assert f"bus={bus}.0," in arguments[-1]


def test_two_devices_do_not_clash() -> None:
    assert not set(qemu_arguments(Disk("g1", NASTY))) & set(qemu_arguments(Disk("g2", NASTY))) - {
        "-blockdev",
        "-device",
    }


def words(text: str) -> list[str]:
    """As a shell takes them."""
    done = run(["/bin/sh", "-c", f"printf '%s\\0' {text}"])
    return done.stdout.split("\0")[:-1]


def test_shell_reads_the_same() -> None:
    arguments = qemu_arguments(Disk("g1", NASTY))
    assert words(as_shell(arguments)) == arguments


def test_line_of_the_help_leaves_other_arguments_as_they_are(tmp_path: Path) -> None:
    """QEMU and preswapctl are stand-ins: one prints what it gets, the other these options."""
    assert qemu_args_command.help is not None
    (line,) = re.findall(r"^ +(\w+=\$.* && eval .*)", qemu_args_command.help, re.MULTILINE)
    assert line in (ROOT / "README.md").read_text()
    arguments = qemu_arguments(Disk("g1", NASTY))
    for name, script in {
        "qemu-system-x86_64": "printf '%s\\0' \"$@\"",
        "preswapctl": f"cat {tmp_path}/printed",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "printed").write_text(as_shell(arguments) + "\n")
    line = line.replace(" ... ", " -append 'a  b $HOME' ")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    got = run(["/bin/sh", "-c", line], env={"PATH": path}).stdout.split("\0")[:-1]
    assert got == ["-m", "1G", "-append", "a  b $HOME", *arguments]
    # No guest without its disk.
    (tmp_path / "printed").unlink()
    failed = run(["/bin/sh", "-c", line], env={"PATH": path})
    assert (failed.returncode, failed.stdout) == (1, "")


def test_of_a_running_server(module_server: RunningServer) -> None:
    text = module_server.ctl("qemu-args", "g1").stdout
    server = blockdev(words(text))["server"]
    assert server == {"type": "unix", "path": str(module_server.nbd_socket)}


def test_json_is_the_list_of_arguments(module_server: RunningServer) -> None:
    as_list = json.loads(module_server.ctl("--json", "qemu-args", "g1").stdout)
    assert as_list == words(module_server.ctl("qemu-args", "g1").stdout)


def test_unknown_device(module_server: RunningServer) -> None:
    done = module_server.ctl("qemu-args", "g9", check=False)
    assert (done.returncode, done.stdout) == (2, "")
