# SPDX-License-Identifier: BSD-3-Clause
"""qemu-storage-daemon, which makes a vhost-user-blk disk of a server's device.

For virtual machine monitors without an NBD client; QEMU stands in for them.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from preswapd.guest.programs import find
from preswapd.host.children import Child
from tests.guest.swapping import disks
from tests.running import PATIENCE, RunningServer

# Such a disk says that it rotates, and then no discards come: as the udev rule of guest-setup.
STILL = (
    "for disk in /sys/block/vd*; do case $(cat $disk/serial) in"
    " vhost_user_blk) echo 0 >$disk/queue/rotational ;; esac; done"
)


class StorageDaemon:
    """The daemon of a server of one device; `seconds`: how long requests wait for that server."""

    def __init__(self, server: RunningServer, seconds: int) -> None:
        self.socket = server.base / "vhost-user.sock"
        self.log = server.base / "storage-daemon.log"
        # As the guide has it: of what qemu-args prints, the node.
        self.node = {**json.loads(disks(server)[1]), "reconnect-delay": seconds}
        self.child = self._start()

    def _start(self) -> Child:
        name = self.node["node-name"]
        address = f"addr.type=unix,addr.path={self.socket}"
        export = f"type=vhost-user-blk,id=export,node-name={name},{address},writable=on"
        daemon = str(find("qemu-storage-daemon", "qemu-system-common"))
        options = ["--blockdev", json.dumps(self.node), "--export", export]
        child = Child([daemon, *options], self.log)
        child.watch(lambda: self.socket.exists() or None, PATIENCE)
        return child

    def hardware(self, memory: int, *, reconnect: bool = False) -> list[str]:
        """QEMU's options for a guest of so much memory, which the daemon reads and writes."""
        again = ",reconnect=1" if reconnect else ""
        return [
            *("-object", f"memory-backend-memfd,id=shared,size={memory >> 20}M,share=on"),
            *("-machine", "memory-backend=shared"),
            *("-chardev", f"socket,id=disk,path={self.socket}{again}"),
            # The daemon has one queue, QEMU wants one for each processor.
            *("-device", "vhost-user-blk-pci,chardev=disk,num-queues=1"),
        ]

    def kill(self) -> None:
        """It leaves its socket behind."""
        self.child.kill()
        self.socket.unlink(missing_ok=True)

    def start(self) -> None:
        self.child = self._start()


@contextmanager
def storage_daemon(server: RunningServer, seconds: int = 300) -> Iterator[StorageDaemon]:
    daemon = StorageDaemon(server, seconds)
    try:
        yield daemon
    finally:
        daemon.kill()
