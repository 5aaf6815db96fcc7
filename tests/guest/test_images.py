# SPDX-License-Identifier: BSD-3-Clause
"""A guest with a writable image as its own disk: what it has written is there, in the guest and in
the file, whenever the server was killed."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from preswapd.guest.kernel import Kernel
from preswapd.guest.machine import Guest, Hardware, Software
from preswapd.guest.memory import memory_leaving
from tests.running import GUEST_PATIENCE, RunningServer, wait_until

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(500)]

MIB = 1 << 20
SIZE = 24 * MIB
# Not at the ends of pages.
ROUND, FIRST = 4 * MIB, 1 * MIB + 512
ROUNDS = 4
KILLS = 3
AVAILABLE = 100 * MIB
DISK = "/dev/vdb"

# Each round goes to its own place, is synced, and counted as written only then; over and over, as
# long as the server is killed.
WRITER = f"""
turn=0
while [ ! -e /run/stop ]; do
  for n in $(seq 0 {ROUNDS - 1}); do
    from=$(( (n + turn) % {ROUNDS} ))
    dd if=/dev/vda of={DISK} bs=512 count={ROUND // 512} skip=$(( from * {ROUND // 512} )) \
      seek=$(( {FIRST // 512} + n * {ROUND // 512} )) conv=notrunc,fsync 2>/dev/null || exit 1
    echo $(( turn * {ROUNDS} + n + 1 )) >/run/written.new && mv /run/written.new /run/written
  done
  turn=$(( turn + 1 ))
done
echo $turn >/run/turns
"""


def pattern(seed: int) -> bytes:
    """Every other page does not compress."""
    made = random.Random(seed)
    return b"".join(
        made.randbytes(4096) if page % 2 else made.randbytes(64) * 64 for page in range(ROUND >> 12)
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "disk.raw"
    made.write_bytes(random.Random(9).randbytes(SIZE))
    return made


@pytest.fixture
def server(tmp_path: Path, path: Path) -> Iterator[RunningServer]:
    options = [f"--image=disk={path}", "--writable=disk"]
    with RunningServer(tmp_path, {}, "16M", options) as made:
        yield made


def wait_for_more(written: Callable[[], int]) -> None:
    seen = written()
    wait_until(lambda: written() > seen, "the guest to write")


def test_server_is_killed_while_its_guest_writes(
    server: RunningServer, path: Path, kernel: Kernel, guest_cache: Path, tmp_path: Path
) -> None:
    rounds = [pattern(number) for number in range(ROUNDS)]
    material = tmp_path / "material"
    material.write_bytes(b"".join(rounds))
    before = path.read_bytes()
    disk = json.loads(server.ctl("--json", "qemu-args", "--bus=virtio", "disk").stdout)
    hardware = Hardware(
        memory_leaving(AVAILABLE, kernel, guest_cache), disks=disk, material=material
    )
    with Guest(hardware, Software(kernel), guest_cache, life=400) as guest:

        def written() -> int:
            found = guest.run("cat /run/written", check=False)
            return int(found.output or 0) if found.status == 0 else 0

        writer = guest.start("writer", WRITER)
        for _ in range(KILLS):
            wait_for_more(written)
            server.kill()
            server.start()
        wait_for_more(written)
        guest.run("touch /run/stop")
        writer.wait(GUEST_PATIENCE)
        turns = int(guest.read("/run/turns"))
        last = [rounds[(number + turns - 1) % ROUNDS] for number in range(ROUNDS)]
        right = before[:FIRST] + b"".join(last) + before[FIRST + ROUNDS * ROUND :]
        # Not from the guest's own memory.
        guest.run("sync; echo 3 >/proc/sys/vm/drop_caches")
        found = guest.run(f"sha256sum {DISK}", GUEST_PATIENCE).output.split()[0]
        assert found == hashlib.sha256(right).hexdigest()
        assert guest.troubles() == []
        assert guest.stops() == []
        assert server.json_stats()["tmem"]["checksum_errors"] == 0
    assert server.stop() == 0
    assert path.read_bytes() == right
