# SPDX-License-Identifier: BSD-3-Clause
"""Disk images beside swap devices: real nbdkit, real clients, a file that others change."""

import json
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import nbd
import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, Connect, connected, discard
from tests.precache.running import MIB, content
from tests.running import PRESWAPD, RunningServer, run, wait_for

SIZE = 16 * MIB + 512
CONTENT = content(SIZE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "base.raw"
    made.write_bytes(CONTENT)
    return made


@pytest.fixture
def server(tmp_path: Path, path: Path) -> Iterator[RunningServer]:
    """A device and an image in one pool, the image cached."""
    with RunningServer(tmp_path, {"g1": "64M"}, "32M", [f"--image=base={path}"]) as made:
        wait_for(lambda: made.image("base")["cached"], bool)
        yield made


def test_reads_and_reads_again(server: RunningServer, connect: Connect) -> None:
    client = connect(server, "base")
    assert client.get_size() == SIZE
    assert client.is_read_only()
    assert client.can_multi_conn()
    assert bytes(client.pread(SIZE, 0)) == CONTENT
    before = server.image("base")
    assert bytes(client.pread(SIZE, 0)) == CONTENT
    after = server.image("base")
    assert after["disk_reads"] == before["disk_reads"] == -(-SIZE // PAGE)
    assert after["hits"] - before["hits"] == -(-SIZE // PAGE)
    assert after["connections"] == 1
    assert after["cached_pages"] == -(-SIZE // PAGE)
    assert after["latency"]["read"]["count"] == after["read_requests"]


def test_never_the_default_export(server: RunningServer, connect: Connect) -> None:
    assert connect(server).get_size() == 64 * MIB
    listed = json.loads(run(["nbdinfo", "--list", "--json", server.nbd_uri()]).stdout)
    assert {one["export-name"] for one in listed["exports"]} == {"base", "g1"}


def test_image_alone_is_no_default(tmp_path: Path, path: Path) -> None:
    with RunningServer(tmp_path, {}, "32M", [f"--image=base={path}"]) as server:
        with pytest.raises(nbd.Error):
            connected(server)
        assert bytes(connected(server, "base").pread(PAGE, 0)) == CONTENT[:PAGE]


def test_odd_requests(server: RunningServer, connect: Connect) -> None:
    client = connect(server, "base")
    rng = random.Random(3)
    for _ in range(300):
        offset = rng.randrange(SIZE)
        count = min(SIZE - offset, rng.choice([1, 511, 512, PAGE, 3 * PAGE + 1, 300_000]))
        assert bytes(client.pread(count, offset)) == CONTENT[offset : offset + count]


def test_writes_are_refused(server: RunningServer, connect: Connect, path: Path) -> None:
    client = connect(server, "base")
    client.set_strict_mode(0)
    changes: list[Callable[[], object]] = [
        lambda: client.pwrite(bytes(512), 0),
        lambda: client.trim(PAGE, 0),
        lambda: client.zero(PAGE, 0),
    ]
    for change in changes:
        with pytest.raises(nbd.Error):
            change()
    assert path.read_bytes() == CONTENT


def test_prefetch_fills_the_cache(server: RunningServer, connect: Connect) -> None:
    client = connect(server, "base")
    assert client.can_cache()
    client.cache(MIB, 0)
    before = server.image("base")["disk_reads"]
    assert before >= MIB // PAGE
    assert bytes(client.pread(MIB, 0)) == CONTENT[:MIB]
    assert server.image("base")["disk_reads"] == before


def test_prefetch_may_be_longer_than_a_read(server: RunningServer, connect: Connect) -> None:
    client = connect(server, "base")
    client.cache(SIZE - 100, 100)
    before = server.image("base")["disk_reads"]
    assert bytes(client.pread(SIZE, 0)) == CONTENT
    assert server.image("base")["disk_reads"] == before == -(-SIZE // PAGE)


def test_copies_are_exact(server: RunningServer, tmp_path: Path) -> None:
    """By several connections at once."""
    copy = tmp_path / "copy"
    for _ in range(2):
        assert run(["nbdcopy", "-C", "4", server.nbd_uri("base"), str(copy)]).returncode == 0
        assert copy.read_bytes() == CONTENT
        copy.unlink()
    options = f"driver=nbd,server.type=unix,server.path={server.nbd_socket},export=base"
    done = run(["qemu-img", "convert", "-O", "raw", "--image-opts", options, str(copy)])
    assert done.returncode == 0, done.stderr
    assert copy.read_bytes() == CONTENT


def test_holes_are_told(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse.raw"
    with open(sparse, "wb") as file:
        file.truncate(8 * MIB)
        file.seek(2 * MIB)
        file.write(os.urandom(MIB))
    with RunningServer(tmp_path, {}, "32M", [f"--image=sparse={sparse}"]) as server:
        facts = server.json_stats()["server"]
        if not facts["structured_replies"]:
            pytest.skip(f"no extents: {facts['structured_replies_reason']}")
        mapped = json.loads(run(["nbdinfo", "--map", "--json", server.nbd_uri("sparse")]).stdout)
    assert [(one["offset"], one["length"], one["type"]) for one in mapped] == [
        (0, 2 * MIB, 3),
        (2 * MIB, MIB, 0),
        (3 * MIB, 5 * MIB, 3),
    ]


def test_change_is_seen(server: RunningServer, connect: Connect, path: Path) -> None:
    client = connect(server, "base")
    client.pread(SIZE, 0)
    with open(path, "r+b") as file:
        file.write(b"changed")
    assert bytes(client.pread(7, 0)) == b"changed"
    wait_for(lambda: server.image("base")["cached_pages"], lambda pages: pages == 0)
    wait_for(lambda: server.image("base")["cached"], bool)
    assert bytes(client.pread(7, 0)) == b"changed"
    assert server.log.count("was changed") == 1


def test_swap_takes_the_room(server: RunningServer, connect: Connect, tmp_path: Path) -> None:
    """Not one page is rejected or moved to disk while the image has any."""
    server.ctl("sysctl", f"preswap.{server.json_stats()['instance']}.pool_limit=24M")
    client = connect(server, "base")
    client.pread(SIZE, 0)
    full = server.image("base")["cached_pages"]
    guest = discard(connect(server, "g1"))
    noise = random.Random(7).randbytes(18 * MIB)
    for at in range(0, len(noise), MIB):
        guest.pwrite(noise[at : at + MIB], BEHIND_ZONE + at)
    stats = server.json_stats()
    assert stats["devices"]["g1"]["failed_stores"] == 0
    assert stats["devices"]["g1"]["written_back_pages"] == 0
    assert stats["images"]["base"]["cached_pages"] < full
    assert stats["images"]["base"]["evicted"] > 0
    assert bytes(guest.pread(len(noise), BEHIND_ZONE)) == noise
    assert bytes(client.pread(SIZE, 0)) == CONTENT


def test_frozen(server: RunningServer, connect: Connect) -> None:
    name = server.json_stats()["instance"]
    server.ctl("sysctl", f"preswap.{name}.frozen=1")
    client = connect(server, "base")

    def cached_more() -> bool:
        before = server.image("base")["cached_pages"]
        client.pread(PAGE, random.randrange(SIZE // PAGE) * PAGE)
        return bool(server.image("base")["cached_pages"] > before)

    wait_for(cached_more, lambda more: not more)


def test_restart_finds_nothing_stale(server: RunningServer, path: Path) -> None:
    client = connected(server, "base")
    client.pread(SIZE, 0)
    server.kill()
    with open(path, "r+b") as file:
        file.write(b"while it was away")
    server.start()
    assert bytes(connected(server, "base").pread(17, 0)) == b"while it was away"


def test_missing_image_leaves_the_devices_served(tmp_path: Path) -> None:
    path = tmp_path / "late.raw"
    with RunningServer(tmp_path, {"g1": "64M"}, "32M", [f"--image=late={path}"]) as server:
        why = server.json_stats()["refused_images"]["late"]
        assert why.startswith(f"{path} is missing: ")
        assert "the image late is not served" in server.log
        with pytest.raises(nbd.Error):
            connected(server, "late")
        assert connected(server, "g1").get_size() == 64 * MIB
        path.write_bytes(CONTENT)
        wait_for(lambda: server.json_stats()["images"], bool)
        assert bytes(connected(server, "late").pread(512, 0)) == CONTENT[:512]


def test_only_an_image_and_that_is_no_raw_one(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    assert run(["qemu-img", "create", "-f", "qcow2", str(path), "1M"]).returncode == 0
    command = [PRESWAPD, "serve", "--pool-size=32M", f"--image=disk={path}"]
    command += [f"--{one}-dir={tmp_path / one}" for one in ("runtime", "state")]
    with TemporaryDirectory(prefix="preswapd-test-", dir="/dev/shm") as memory:
        done = run([*command, f"--shm-dir={memory}/shm"])
    assert done.returncode == 4
    assert "qemu-img convert -O raw" in done.stderr


def test_names_are_one_space(server: RunningServer, tmp_path: Path, path: Path) -> None:
    made = server.ctl("create", "base", "64M", check=False)
    assert made.returncode == 4
    assert "image's name" in made.stderr
    command = [PRESWAPD, "serve", "--pool-size=32M", "--device=base=64M", f"--image=base={path}"]
    done = run(command)
    assert done.returncode == 2
    assert "base is a device and an image" in done.stderr


def test_device_that_was_made_before_keeps_its_name(tmp_path: Path, path: Path) -> None:
    """Its guest must never get an image's bytes."""
    with RunningServer(tmp_path, {"g1": "64M"}, "32M") as server:
        server.stop()
        server.devices = {}
        server.extra = [f"--image=g1={path}"]
        server.start()
        assert connected(server, "g1").get_size() == 64 * MIB
        assert "a swap device has that name" in server.json_stats()["refused_images"]["g1"]


def test_clients_while_the_file_changes_and_swap_presses(server: RunningServer, path: Path) -> None:
    """Each page of the file holds its version throughout; no reader may see it go back."""
    pages, rounds = 64, 60
    stop = threading.Event()
    wrong: list[str] = []
    written = 0

    def stamp(version: int) -> bytes:
        return version.to_bytes(8, "little") * (pages * PAGE // 8)

    with open(path, "r+b") as file:
        file.write(stamp(0))

    def look() -> None:
        client = connected(server, "base")
        seen = [0] * pages
        while not stop.is_set():
            least = written
            for page in random.sample(range(pages), 8):
                got = bytes(client.pread(PAGE, page * PAGE))
                version = int.from_bytes(got[:8], "little")
                if version < max(seen[page], least):
                    wrong.append(f"page {page}: {version} after {seen[page]}, {least} written")
                seen[page] = max(seen[page], version)

    def press() -> None:
        guest = discard(connected(server, "g1"))
        noise = random.Random(1).randbytes(MIB)
        at = 0
        while not stop.is_set():
            guest.pwrite(noise, BEHIND_ZONE + at % 48 * MIB)
            at += 1

    threads = [threading.Thread(target=one) for one in (look, look, look, press)]
    for thread in threads:
        thread.start()
    rng = random.Random(5)
    for version in range(1, rounds):
        with open(path, "r+b") as file:
            file.write(stamp(version))
        written = version
        stop.wait(rng.choice([0, 0.01, 0.05, 0.3 if version % 20 else 2.5]))
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


# --- cache and admit ---


def said(tmp_path: Path, path: Path, *lines: str) -> Path:
    config = tmp_path / "vm.toml"
    table = [f'[image.base]\npath = "{path}"', *lines]
    config.write_text('pool-size = "32M"\n' + "\n".join(table) + "\n")
    return config


def test_cache_is_the_most(tmp_path: Path, path: Path, connect: Connect) -> None:
    config = said(tmp_path, path, 'cache = "2M"')
    with RunningServer(tmp_path, {"g1": "64M"}, "32M", [f"--config={config}"]) as server:
        wait_for(lambda: server.image("base")["cached"], bool)
        client = connect(server, "base")
        for _ in range(2):
            assert bytes(client.pread(SIZE, 0)) == CONTENT
            found = server.image("base")
            assert 2 * MIB - 2 * PAGE < found["cached_bytes"] <= found["cache"] == 2 * MIB
        assert found["evicted"] == found["evicted_by_itself"] > 1000


def test_admitted_at_the_second_read(tmp_path: Path, path: Path, connect: Connect) -> None:
    config = said(tmp_path, path, 'admit = "second"')
    with RunningServer(tmp_path, {"g1": "64M"}, "32M", [f"--config={config}"]) as server:
        wait_for(lambda: server.image("base")["cached"], bool)
        client = connect(server, "base")
        cached = []
        for _ in range(3):
            assert bytes(client.pread(MIB, 0)) == CONTENT[:MIB]
            cached.append(server.image("base")["cached_pages"])
        assert cached == [0, 256, 256]
        assert server.image("base")["hits"] == 256
        assert server.image("base")["admit"] == "second"


def test_cache_and_admit_are_shown(tmp_path: Path, path: Path) -> None:
    config = said(tmp_path, path, 'cache = "2M"', 'admit = "second"')
    shown = run([PRESWAPD, "serve", f"--config={config}", "--show-config"])
    assert f'cache = "2M"  # {config}:4\nadmit = "second"  # {config}:5\n' in shown.stdout
    config = said(tmp_path, path)
    shown = run([PRESWAPD, "serve", f"--config={config}", "--show-config"])
    assert "cache = " not in shown.stdout
    assert "admit = " not in shown.stdout


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('cache = "64K"', "cache: a cache must be at least 1M"),
        ("cache = true", 'cache: a size is expected, like "512M"'),
        ('cache = "much"', "cache: 'much' is not a size"),
        ('admit = "third"', "admit: 'third' is no such read: the choices are first, second"),
        ("admit = 2", "admit: a string in quotes is expected"),
    ],
)
def test_cache_and_admit_said_wrong(tmp_path: Path, path: Path, line: str, why: str) -> None:
    config = said(tmp_path, path, line)
    done = run([PRESWAPD, "serve", f"--config={config}"])
    assert (done.returncode, f"{config}:4: {why}" in done.stderr) == (2, True)
