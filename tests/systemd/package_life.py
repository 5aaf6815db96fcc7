# SPDX-License-Identifier: BSD-3-Clause
"""The life of the Debian package, told step by step, in a system of its own with a real systemd.

Usage: python -m tests.systemd.package_life SYSTEM, for tools/try-package, which makes SYSTEM: a
folder with a system, in it /srv/this.deb, /srv/broken.deb, whose server does not start,
/srv/next.deb, and all that they depend on in apt's cache.  It is installed, serves, is upgraded
under a client that goes on, removed and purged.
"""

import json
import random
import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nbd

from preswapd.guest.kernel import default_cache, find_kernel
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE
from tests.guest.swapping import SwappingGuest
from tests.running import GUEST_PATIENCE, PATIENCE, wait_for
from tests.systemd.booted import Booted

CONFIG = """\
pool-size = "24M"
[device.swap0]
size = "64M"
[device.swap1]
size = "256M"
"""
UNIT = "preswapd@vm1"
SECOND = "preswapd@vm2"
PAGES = 2048
APT_SECONDS = 300
# Of what apt says; the rest is about other packages.
OURS = "preswapd|^E:|^W:"
APT = ("apt-get", "-y", "-qq", "-o", "Dpkg::Use-Pty=0")


class Client:
    """What a guest does with its swap disk, over one connection that is made again when it breaks,
    as QEMU does: it writes pages, and reads them back."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.requests = self.connections = 0
        self.wrong: list[str] = []
        self.written: dict[int, bytes] = {}
        self.client: Any = None
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self.work)

    def work(self) -> None:
        choice = random.Random(1)
        # With pauses: the guest wants the processor too.
        while not self.ends.wait(0.001) and not self.wrong:
            page = choice.randrange(PAGES)
            if page in self.written:
                self.compare(page)
            # Half of it is noise.
            text = b"%d %d " % (page, self.requests)
            data = choice.randbytes(PAGE // 2) + text * (PAGE // 2 // len(text))
            data = data.ljust(PAGE, b"\0")
            self.until_answered("pwrite", data, self.place(page))
            self.written[page] = data

    def compare(self, page: int) -> None:
        found = self.until_answered("pread", PAGE, self.place(page))
        if bytes(found) != self.written[page]:
            self.wrong.append(f"page {page} is another one")

    def place(self, page: int) -> int:
        return BEHIND_ZONE + page * PAGE

    def until_answered(self, request: str, *arguments: Any) -> Any:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if self.client is None:
                    self.connect()
                answer = getattr(self.client, request)(*arguments)
                self.requests += 1
                return answer
            except nbd.Error as error:
                is_connected = self.client is not None and self.client.aio_is_ready()
                if is_connected or time.monotonic() > deadline:
                    self.wrong.append(f"{request}: {error}")
                    return b""
                self.client = None
                time.sleep(0.05)

    def connect(self) -> None:
        client = nbd.NBD()
        client.set_export_name("swap0")
        client.connect_unix(str(self.socket))
        self.client = client
        self.connections += 1

    def goes_on(self) -> None:
        """It gets answers, and has got no wrong one."""
        before = self.requests
        wait_for(lambda: self.requests, lambda now: now > before + 100)
        assert not self.wrong, self.wrong[:10]

    def check_all(self) -> None:
        for page in self.written:
            self.compare(page)
        assert not self.wrong, self.wrong[:10]

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.ends.set()
        self.thread.join()


class Guest(SwappingGuest):
    """A real one, with the device swap1 as its swap disk; its load goes on until it is ended."""

    def __init__(self, host: "Host", socket: Path, folder: Path) -> None:
        cache = default_cache()
        arguments = host.run("preswapctl --instance vm1 --json qemu-args swap1")
        disks = json.loads(arguments.replace("/run/preswapd/vm1/", f"{socket.parent}/"))
        # It is asked for its disks alone, and they are given.
        server: Any = None
        super().__init__(server, find_kernel(cache), cache, folder, hardware=disks)

    def __enter__(self) -> Self:
        super().__enter__()
        self.swapon("swap1")
        self.fill()
        self.load = self.start_load()
        return self

    def swapped(self) -> int:
        return self.vmstat()["pswpin"] + self.vmstat()["pswpout"]

    def goes_on(self) -> None:
        before = self.swapped()
        wait_for(self.swapped, lambda now: now > before + 1000, GUEST_PATIENCE)

    def end(self) -> None:
        """CommandError if a byte was wrong."""
        self.stop_load(self.load)
        self.assert_saw_nothing()


class Host:
    """Commands in the system, shown with what they print."""

    def __init__(self, booted: Booted) -> None:
        self.booted = booted

    def run(self, command: str, *, fails: bool = False) -> str:
        script = f"cd /; export DEBIAN_FRONTEND=noninteractive; ({command}) 2>&1; echo $?"
        text = self.booted.run("sh", "-c", script, check=False, timeout=APT_SECONDS)
        lines = text.splitlines()
        status = int(lines.pop())
        shown = [line for line in lines if "apt-get" not in command or re.search(OURS, line)]
        print(f"# {command}", *(f"  {line}" for line in shown), sep="\n", flush=True)
        assert bool(status) == fails, f"exit status {status}"
        return "\n".join(lines)

    def is_there(self, path: str) -> bool:
        return self.booted.path(path).exists()

    def server(self, unit: str = UNIT) -> int:
        return int(self.booted.show(unit, "MainPID"))


def tell(text: str) -> None:
    print(f"\n== {text}", flush=True)


def live(booted: Booted) -> None:
    host = Host(booted)
    # The path from outside is longer than a socket's name may be.
    short = booted.root.with_suffix(".run")
    try:
        install(host)
        fail(host)
        short.symlink_to(booted.path("/run/preswapd/vm1"))
        client = Client(short / "nbd.sock")
        with client:
            with (
                tempfile.TemporaryDirectory() as folder,
                Guest(host, short / "nbd.sock", Path(folder)) as guest,
            ):
                upgrade(host, client, guest)
            refuse(host, client)
        leave(host, client)
        come_back(host, client)
        stand_aside(host)
        go(host)
    finally:
        short.unlink(missing_ok=True)


def install(host: Host) -> None:
    tell("installed: nothing runs, and nothing is enabled")
    host.run(f"{' '.join(APT)} install /srv/this.deb")
    assert not host.run("systemctl list-units --plain --no-legend 'preswapd*'")
    assert not host.run("ls /etc/systemd/system/*.wants | grep preswapd || true")
    host.run("getent passwd preswapd; stat -c '%A %U %n' /etc/preswapd /var/lib/preswapd")
    host.run("preswapd --version && preswapctl --version")
    tell("an instance for vm1 serves")
    host.booted.path("/etc/preswapd/vm1.toml").write_text(CONFIG)
    host.run(f"systemctl enable --now {UNIT} 2>&1 | sed 's/^Created symlink/enabled:/'")
    host.run("preswapctl --instance vm1 list")


def fail(host: Host) -> None:
    tell("upgraded to a version that does not start: the second server goes on, and nothing spins")
    host.booted.path("/etc/preswapd/vm2.toml").write_text(CONFIG)
    host.run(f"systemctl start {SECOND}")
    before = host.server(SECOND)
    text = host.run(f"{' '.join(APT)} install /srv/broken.deb")
    assert f"systemctl restart {SECOND}.service" in text
    restarts = int(host.booted.show(UNIT, "NRestarts"))
    time.sleep(6)
    restarts = int(host.booted.show(UNIT, "NRestarts")) - restarts
    print(f"  {UNIT}: {restarts} more attempts in 6 s")
    assert 0 < restarts <= 3
    assert host.server(SECOND) == before
    tell("back to the version before: both serve")
    host.run(f"{' '.join(APT)} --allow-downgrades install /srv/this.deb")
    assert host.server(SECOND) not in {0, before}
    host.run("preswapctl --instance vm1 list && preswapctl --instance vm2 list")
    host.run(f"systemctl stop {SECOND}.socket {SECOND}.service preswapd-sync@vm2.service")
    host.run("rm -r /etc/preswapd/vm2.toml /var/lib/preswapd/vm2 /dev/shm/preswapd-vm2")


def upgrade(host: Host, client: Client, guest: Guest) -> None:
    tell("upgraded while a client writes and a guest swaps: the server is another one, they go on")
    client.goes_on()
    guest.goes_on()
    before = host.server()
    host.run(f"{' '.join(APT)} install /srv/next.deb")
    host.run("dpkg-query --show preswapd")
    assert host.server() not in {0, before}
    client.goes_on()
    guest.goes_on()
    guest.end()
    print(
        f"  {client.requests} requests, {client.connections} connections, no page wrong, no error"
    )
    assert client.connections == 2
    print(f"  guest: {guest.swapped()} pages in and out, every file whole, no error")


def refuse(host: Host, client: Client) -> None:
    tell("a removal is refused while it serves")
    before = host.server()
    text = host.run(f"{' '.join(APT)} remove preswapd", fails=True)
    assert f"systemctl stop {UNIT}" in text
    assert host.server() == before
    host.run("dpkg-query --show --showformat '${Status}\\n' preswapd")
    client.goes_on()


def leave(host: Host, client: Client) -> None:
    tell("with the guest gone, what it says is done, and the package goes; pages stay")
    client.client = None
    text = host.run(f"{' '.join(APT)} remove preswapd", fails=True)
    for command in (line for line in text.splitlines() if line.startswith("  systemctl ")):
        host.run(command.strip())
    host.run(f"{' '.join(APT)} remove preswapd")
    assert not host.is_there("/usr/lib/preswapd")
    host.run("ls /var/lib/preswapd/vm1 /dev/shm/preswapd-vm1 /etc/preswapd")
    tell("a purge keeps them too, and says how to delete them")
    text = host.run("dpkg --purge preswapd")
    assert "rm -r /dev/shm/preswapd-* /etc/preswapd /var/lib/preswapd/*" in text
    assert host.is_there("/etc/preswapd/vm1.toml")


def come_back(host: Host, client: Client) -> None:
    tell("installed again, every page is there")
    host.run(f"{' '.join(APT)} install /srv/next.deb")
    host.run(f"systemctl start {UNIT}.socket {UNIT}.service")
    client.check_all()
    client.client = None
    print(f"  {len(client.written)} pages read, all as they were written")


# The units and the program, as `make install` has them.
OTHER = """\
cp -a /usr/lib/preswapd /opt/preswapd
sed -i s,/usr/lib/preswapd,/opt/preswapd,g /opt/preswapd/bin/preswapd /opt/preswapd/bin/preswapctl
mkdir -p /usr/local/lib/systemd/system
for unit in /usr/lib/systemd/system/preswapd*; do
  sed s,/usr/lib/preswapd/,/opt/preswapd/,g $unit >/usr/local/lib/systemd/system/${unit##*/}
done
systemctl daemon-reload"""


def stand_aside(host: Host) -> None:
    tell("beside what make install brings: it goes on, and keeps its configuration")
    host.run(f"systemctl enable {UNIT} 2>&1 | sed 's/^Created symlink/enabled:/'")
    host.run(OTHER)
    host.run(f"systemctl restart {UNIT}")
    before = host.server()
    host.run(f"{' '.join(APT)} install --reinstall /srv/next.deb")
    host.run(f"{' '.join(APT)} purge preswapd")
    assert host.server() == before
    assert host.is_there("/etc/preswapd/vm1.toml")
    host.run(f"systemctl restart {UNIT} && systemctl is-enabled {UNIT}")
    host.run("/opt/preswapd/bin/preswapctl --instance vm1 list")
    host.run("rm -r /opt/preswapd /usr/local/lib/systemd/system/preswapd*")
    host.run(f"{' '.join(APT)} install /srv/next.deb")


def go(host: Host) -> None:
    tell("its disk removed, and its unit disabled: nothing is left after a purge")
    host.run("preswapctl --instance vm1 remove --yes swap0")
    host.run("preswapctl --instance vm1 remove --yes swap1")
    host.run(f"systemctl disable --now {UNIT}.socket {UNIT}.service")
    host.run("systemctl stop preswapd-sync@vm1.service")
    host.run("rm -r /dev/shm/preswapd-vm1")
    host.run(f"{' '.join(APT)} purge preswapd")
    left = host.run(
        "find / -xdev -name '*preswapd*' -not -path '/proc/*' -not -path '/srv/*'"
        " -not -path '/var/lib/apt/*' -not -path '/var/log/*'"
    )
    assert not left


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with Booted(Path(sys.argv[1]).resolve()) as booted:
        live(booted)
    print("\nThe package lived as it should.")


if __name__ == "__main__":
    main()
