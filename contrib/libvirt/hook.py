#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""A hook of libvirt: no guest is migrated to this host whose swap cannot come with it.

On each host that guests are migrated to, as root, once; libvirt looks for hooks when it starts:
    install -D contrib/libvirt/hook.py /etc/libvirt/hooks/qemu.d/preswapd
    systemctl restart libvirtd            # where libvirt is one daemon for each driver: virtqemud

libvirt calls it with NAME OPERATION SUBOPERATION EXTRA, the guest's XML on standard input, and a
status other than 0 stops what it is about to do, with our words in its own message:
- "migrate begin", at the destination before anything else: refused, unless each swap device of the
  guest was made here by `preswapctl create DEV SIZE --from URI` and waits for it. The source then
  goes on as if nothing had been tried.
- "prepare begin", before any start: refused where another host has taken a swap device of the
  guest, which runs there then.
It changes nothing: neither the XML nor any device. A disk that comes over TCP stays where it is,
and images are no swap; both pass.
"""

import json
import socket
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple

ARGUMENT = "{http://libvirt.org/schemas/domain/qemu/1.0}arg"
RUN = Path("/run/preswapd")
# What preswapctl calls its disks: a serial number, or a node of QEMU.
SWAP, IMAGES = "preswap-", ("image-", "base-")
ANSWER_SECONDS = 20


class Disk(NamedTuple):
    """One that comes over a Unix socket; without an export's name, from the server's default."""

    export: str
    socket: Path
    name: str

    @property
    def is_swap(self) -> bool:
        """As far as it can be told without the server, which may not be there."""
        if self.name.startswith(IMAGES):
            return False
        folder = self.socket.parent
        ours = folder.is_relative_to(RUN) or (folder / "control.sock").exists()
        return self.name.startswith(SWAP) or ours

    @property
    def server(self) -> str:
        """As an option of preswapctl."""
        folder = self.socket.parent
        return f"--instance={folder.name}" if folder.parent == RUN else f"--runtime-dir={folder}"


class RefusedError(Exception):
    """Why libvirt must not do it."""


def disks(domain: ET.Element) -> Iterator[Disk]:
    for disk in domain.iterfind("devices/disk"):
        source, host = disk.find("source[@protocol='nbd']"), disk.find("source/host")
        if source is not None and host is not None and host.get("transport") == "unix":
            name = disk.findtext("serial", "")
            yield Disk(source.get("name", ""), Path(host.get("socket", "")), name)
    for argument in domain.iter(ARGUMENT):
        try:
            node = json.loads(argument.get("value", ""))
        except ValueError:
            continue
        if isinstance(node, dict) and node.get("driver") == "nbd":
            server = node.get("server")
            if isinstance(server, dict) and server.get("type") == "unix":
                path, name = Path(server.get("path", "")), node.get("node-name", "")
                yield Disk(node.get("export", ""), path, name)


class Control(HTTPConnection):
    """To a server's control socket, without preswapctl: where AppArmor confines libvirt, its hooks
    may start few programs."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_SECONDS)
        self.sock.connect(str(self.path))


def devices(disk: Disk) -> dict[str, dict[str, Any]]:
    """What its server says of it; nothing, if it is an image."""
    control = disk.socket.with_name("control.sock")
    try:
        with closing(Control(control)) as connection:
            connection.request("GET", "/v1/stats")
            stats = json.loads(connection.getresponse().read())
        served: dict[str, dict[str, Any]] = stats["devices"]
    except (OSError, HTTPException, ValueError, KeyError) as error:
        raise RefusedError(
            f"no server of its swap {disk.export} answers at {control} ({error});"
            f" start it, then {announced(disk, disk.export)}"
        ) from None
    if why := stats.get("refused", {}).get(disk.export):
        raise RefusedError(f"its swap {disk.export} is not served here: {why}")
    if not disk.export:
        return served
    if disk.export in served:
        return {disk.export: served[disk.export]}
    if disk.export in stats.get("images", {}):
        return {}
    raise RefusedError(f"its swap {disk.export} is not here; {announced(disk, disk.export)}")


def announced(disk: Disk, device: str) -> str:
    return (
        "make it before the guest comes:"
        f" preswapctl {disk.server} create {device} SIZE --from URI-OF-THE-DEVICE-THAT-IT-HAS-NOW"
    )


def check_announced(disk: Disk) -> None:
    for name, figures in devices(disk).items():
        if figures.get("guest") != "coming":
            raise RefusedError(
                f"its swap {name} here does not wait for it, and reads of what it has swapped would"
                f" be I/O errors; {announced(disk, name)}"
            )


def check_not_gone(disk: Disk) -> None:
    try:
        found = devices(disk)
    except RefusedError:
        return  # one that does not answer may be one that its socket starts
    for name, figures in found.items():
        if figures.get("guest") == "gone":
            raise RefusedError(
                f"another host has taken its swap {name}, so the guest runs there; if that host"
                f" will never come back: preswapctl {disk.server} swapoff {name}"
            )


CHECKS = {("migrate", "begin"): check_announced, ("prepare", "begin"): check_not_gone}


def main() -> int:
    name, operation, stage = sys.argv[1:4]
    check = CHECKS.get((operation, stage))
    if check is None:
        return 0
    try:
        for disk in disks(ET.parse(sys.stdin).getroot()):
            if disk.is_swap:
                check(disk)
    except RefusedError as error:
        print(f"preswapd: {name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
