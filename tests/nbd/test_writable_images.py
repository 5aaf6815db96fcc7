# SPDX-License-Identifier: BSD-3-Clause
"""Disks that guests write to: real nbdkit, real clients, the tools of QEMU."""

import fcntl
import json
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import nbd
import pytest

from preswapd.host.disk_locks import FLOCK, lock_of
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, Connect, connected, discard
from tests.precache.running import MIB, content
from tests.running import PRESWAPD, RunningServer, run, typed, wait_for

SIZE = 16 * MIB + 512
CONTENT = content(SIZE)
NEW = content(SIZE, seed=2)
FUA = nbd.CMD_FLAG_FUA


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "disk.raw"
    made.write_bytes(CONTENT)
    return made


def options(path: Path) -> list[str]:
    return [f"--image=disk={path}", "--writable=disk"]


@pytest.fixture
def server(tmp_path: Path, path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path, {"g1": "64M"}, "32M", options(path)) as made:
        wait_for(lambda: made.image("disk")["cached"], bool)
        yield made


def qemu_url(server: RunningServer, name: str = "disk") -> str:
    return f"nbd+unix:///{name}?socket={server.nbd_socket}"


def test_what_its_client_is_told(server: RunningServer, connect: Connect) -> None:
    client = connect(server, "disk")
    assert not client.is_read_only()
    asked = [client.can_flush, client.can_fua, client.can_trim, client.can_zero]
    assert all(ask() for ask in (*asked, client.can_fast_zero))
    assert not client.can_multi_conn()
    assert client.get_size() == SIZE
    assert server.image("disk")["writable"] is True


def test_writes_are_in_the_file_and_in_memory(
    server: RunningServer, connect: Connect, path: Path
) -> None:
    client = connect(server, "disk")
    client.pwrite(NEW, 0)
    client.flush()
    assert path.read_bytes() == NEW
    assert bytes(client.pread(SIZE, 0)) == NEW
    found = server.image("disk")
    assert found["disk_reads"] == 0
    assert found["writes"] == found["disk_writes"] == found["hits"] == -(-SIZE // PAGE)


def test_odd_requests(server: RunningServer, connect: Connect, path: Path) -> None:
    """Some of the pages cached, some not; another connection reads, too."""
    both = [connect(server, "disk") for _ in range(2)]
    rng, right = random.Random(3), bytearray(CONTENT)
    for _ in range(600):
        client = both[-1]
        offset = rng.randrange(SIZE)
        count = min(SIZE - offset, rng.choice([1, 511, 512, PAGE, 3 * PAGE + 1, 300_000]))
        flags = rng.choice([0, 0, FUA])
        what = rng.randrange(4)
        if what == 0:
            client.zero(count, offset, flags | rng.choice([0, nbd.CMD_FLAG_NO_HOLE]))
            right[offset : offset + count] = bytes(count)
        elif what == 1:
            client.trim(count, offset, flags)
            first, end = -(-offset // PAGE) * PAGE, offset + count
            last = max(first, end if end == SIZE else end // PAGE * PAGE)
            right[first:last] = bytes(last - first)
        elif what == 2:
            piece = rng.randbytes(count)
            client.pwrite(piece, offset, flags=flags)
            right[offset : offset + count] = piece
        else:
            found = bytes(rng.choice(both).pread(count, offset))
            assert found == right[offset : offset + count]
    assert len(right) == SIZE
    assert bytes(both[0].pread(SIZE, 0)) == right
    assert path.read_bytes() == right


def test_qemu_io_patterns(server: RunningServer, path: Path) -> None:
    """As its own tests of formats have them: written, overlapped, zeroed, discarded, verified."""
    commands = [
        *("write -P 1 0 1M", "write -P 2 512 512", "write -P 3 4000 200", "read -P 1 0 512"),
        *("read -P 2 512 512", "read -P 1 1024 2976", "read -P 3 4000 200", "flush"),
        *("write -z 64k 64k", "read -P 0 64k 64k", "write -z -u 200k 3000", "read -P 0 200k 3000"),
        *("discard 512k 256k", "read -P 0 512k 256k", "read -P 1 256k 256k"),
        *("write -f -P 4 768k 256k", "read -P 4 768k 256k", "aio_write -P 5 2M 1M"),
        *("aio_write -P 6 3M 1M", "aio_flush", "read -P 5 2M 1M", "read -P 6 3M 1M"),
        *("writev -P 7 8M 4096 512 1024", "read -P 7 8M 5632", f"write -P 8 {SIZE - 512} 512"),
        f"read -P 8 {SIZE - 512} 512",
    ]
    command = ["qemu-io", "-f", "raw", "-t", "none", qemu_url(server)]
    for _ in range(2):
        done = run([*command, *(word for each in commands for word in ("-c", each))])
        assert done.returncode == 0, done.stderr + done.stdout
        assert "Pattern verification failed" not in done.stdout
    raw = path.read_bytes()
    assert raw[: 64 << 10].count(1) > 60_000
    assert raw[-512:] == bytes([8]) * 512


def test_copied_onto_and_compared(server: RunningServer, tmp_path: Path, path: Path) -> None:
    source = tmp_path / "source.raw"
    source.write_bytes(NEW)
    done = run(
        ["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(source), qemu_url(server)]
    )
    assert done.returncode == 0, done.stderr
    same = ["qemu-img", "compare", "-f", "raw", "-F", "raw", str(source), qemu_url(server)]
    assert run(same).returncode == 0
    assert path.read_bytes() == NEW
    source.write_bytes(CONTENT)
    copied = run(["nbdcopy", "-C", "4", "--flush", str(source), server.nbd_uri("disk")])
    assert copied.returncode == 0, copied.stderr
    assert path.read_bytes() == CONTENT
    assert run(same).returncode == 0


def test_fio_verifies(server: RunningServer) -> None:
    engines = run(["fio", "--enghelp"]).stdout
    if "nbd" not in engines.split():
        pytest.skip("this fio has no nbd engine")
    uri = server.nbd_uri("disk")
    command = ["fio", "--name=verify", "--ioengine=nbd", f"--uri={uri}", "--rw=randrw"]
    command += [
        "--bsrange=512-64k",
        "--bs_unaligned=0",
        "--size=8m",
        "--iodepth=16",
        "--verify=crc32c",
    ]
    done = run(
        [*command, "--verify_backlog=64", "--verify_state_save=0", "--output-format=terse"],
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_kill_loses_nothing_that_was_answered(
    server: RunningServer, connect: Connect, path: Path
) -> None:
    client = connected(server, "disk")
    client.pwrite(NEW[: 2 * MIB], MIB)
    client.trim(MIB, 8 * MIB)
    right = bytearray(CONTENT)
    right[MIB : 3 * MIB] = NEW[: 2 * MIB]
    right[8 * MIB : 9 * MIB] = bytes(MIB)
    server.kill()
    assert path.read_bytes() == right
    server.start()
    assert bytes(connect(server, "disk").pread(SIZE, 0)) == right


def test_swap_takes_the_room(server: RunningServer, connect: Connect) -> None:
    client = connect(server, "disk")
    client.pwrite(NEW, 0)
    full = server.image("disk")["cached_pages"]
    guest = discard(connect(server, "g1"))
    noise = random.Random(7).randbytes(26 * MIB)
    for at in range(0, len(noise), MIB):
        guest.pwrite(noise[at : at + MIB], BEHIND_ZONE + at)
    stats = server.json_stats()
    assert stats["devices"]["g1"]["failed_stores"] == 0
    assert stats["devices"]["g1"]["written_back_pages"] == 0
    assert stats["images"]["disk"]["cached_pages"] < full
    assert bytes(client.pread(SIZE, 0)) == NEW
    assert bytes(guest.pread(len(noise), BEHIND_ZONE)) == noise


# --- who else has it ---


def test_nobody_else_may_use_it(server: RunningServer, tmp_path: Path, path: Path) -> None:
    """QEMU neither writes nor reads it, and no other instance has it, in whatever way."""
    for flags in ([], ["-r"]):
        done = run(["qemu-io", "-f", "raw", *flags, "-c", "read 0 512", str(path)])
        assert done.returncode
        assert "lock" in done.stderr
    for extra in ([], ["--writable=mine"]):
        command = [PRESWAPD, "serve", "--pool-size=32M", f"--image=mine={path}", *extra]
        command += [f"--{one}-dir={tmp_path / 'other' / one}" for one in ("runtime", "state")]
        done = run([*command, f"--shm-dir={server.base / 'other'}"])
        assert done.returncode == 4
        assert f"{path} is in use by a" in done.stderr
        assert f"fuser -v {path}" in done.stderr


@pytest.mark.parametrize("how", ["written", "read", "behind an overlay"])
def test_disk_of_a_vm_is_not_served(tmp_path: Path, path: Path, how: str) -> None:
    held = ["qemu-io", "-f", "raw", *(["-r"] if how == "read" else []), str(path)]
    if how == "behind an overlay":
        overlay = str(tmp_path / "overlay.qcow2")
        made = ["qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", str(path), overlay]
        assert run(made).returncode == 0
        held = ["qemu-io", "-f", "qcow2", overlay]
    with subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as qemu:
        wait_for(lambda: is_locked(path), bool)
        with RunningServer(tmp_path, {"g1": "64M"}, "32M", options(path)) as server:
            refused = server.json_stats()["refused_images"]["disk"]
            assert "has one user" in refused
            assert qemu.stdin
            qemu.stdin.close()
            qemu.wait()
            wait_for(lambda: server.json_stats()["images"], bool)
            connected(server, "disk").pwrite(b"ours", 0)
    assert path.read_bytes()[:4] == b"ours"


def is_locked(path: Path) -> bool:
    """By QEMU, whose lock "I read" is byte 100."""
    with path.open("rb+") as file:
        found = fcntl.fcntl(file, fcntl.F_OFD_GETLK, lock_of(fcntl.F_WRLCK, 100))
    return bool(FLOCK.unpack(found)[0] != fcntl.F_UNLCK)


def test_two_images_of_one_file(tmp_path: Path, path: Path) -> None:
    """Of one path: a bad configuration.  By a link: the second one is refused, by name."""
    command = [PRESWAPD, "serve", "--pool-size=32M", *options(path), f"--image=two={path}"]
    done = run(command)
    assert done.returncode == 2
    assert "a disk that is written to is one image" in done.stderr
    link = tmp_path / "link.raw"
    os.link(path, link)
    for writer in ("one", "two"):
        extra = [f"--image=one={path}", f"--image=two={link}", f"--writable={writer}"]
        with RunningServer(tmp_path / writer, {}, "32M", extra) as server:
            stats = server.json_stats()
            assert set(stats["images"]) == {"one"}
            refused = stats["refused_images"]["two"]
            assert f"{link} is the image one already, and {writer} is writable" in refused


def test_loop_device_over_a_writable_image(tmp_path: Path, path: Path) -> None:
    """Nothing would tell its readers of a write to the file."""
    os.truncate(path, 16 * MIB)
    made = run(["losetup", "--find", "--show", "--read-only", str(path)])
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr}")
    device = made.stdout.strip()
    try:
        extra = [*options(path), f"--image=loop={device}"]
        with RunningServer(tmp_path, {}, "32M", extra) as server:
            refused = server.json_stats()["refused_images"]["loop"]
            assert f"{device} is the image disk already, and disk is writable" in refused
        read_only = [f"--image=disk={path}", f"--image=loop={device}"]
        with RunningServer(tmp_path / "2", {}, "32M", read_only) as server:
            assert set(server.json_stats()["images"]) == {"disk", "loop"}
    finally:
        run(["losetup", "--detach", device])


def test_disk_file_of_a_device_is_no_image(tmp_path: Path) -> None:
    extra = options(tmp_path / "state" / "g1.img")
    with RunningServer(tmp_path, {"g1": "64M"}, "32M", extra) as server:
        assert "in use" in server.json_stats()["refused_images"]["disk"]


def test_replaced_under_its_name(server: RunningServer, connect: Connect, path: Path) -> None:
    client = connect(server, "disk")
    other = path.with_name("other")
    other.write_bytes(bytes(SIZE))
    other.rename(path)
    wait_for(lambda: server.image("disk")["replaced"], bool)
    client.pwrite(b"still the old one", 0)
    assert bytes(client.pread(17, 0)) == b"still the old one"
    assert not any(path.read_bytes())
    (line,) = (line for line in server.lines if "is not the file any more" in line)
    assert typed(line.partition("and then ")[2]).returncode == 0
    assert path.with_name("disk.raw.kept").read_bytes()[:17] == b"still the old one"


# --- how it is said ---


def test_in_a_file(tmp_path: Path, path: Path) -> None:
    config = tmp_path / "vm.toml"
    config.write_text(f'pool-size = "32M"\n[image.disk]\npath = "{path}"\nwritable = true\n')
    with RunningServer(tmp_path, {}, "32M", [f"--config={config}"]) as server:
        connected(server, "disk").pwrite(b"by a file", 0)
    assert path.read_bytes()[:9] == b"by a file"
    shown = run([PRESWAPD, "serve", f"--config={config}", "--show-config"])
    assert f"writable = true  # {config}:4\n" in shown.stdout


def test_said_wrong(tmp_path: Path, path: Path) -> None:
    config = tmp_path / "vm.toml"
    for value, text in [('"yes"', "true or false is expected"), ("1", "true or false is expected")]:
        config.write_text(f'pool-size = "32M"\n[image.disk]\npath = "{path}"\nwritable = {value}\n')
        done = run([PRESWAPD, "serve", f"--config={config}"])
        assert (done.returncode, f"{config}:4: writable: {text}" in done.stderr) == (2, True)
    done = run([PRESWAPD, "serve", "--pool-size=32M", "--writable=disk"])
    assert done.returncode == 2
    assert "give --image disk=PATH, too" in done.stderr


def test_shown_options(tmp_path: Path, path: Path) -> None:
    shown = run([PRESWAPD, "serve", "--pool-size=32M", *options(path), "--show-config"])
    assert f'path = "{path}"  # --image\nwritable = true  # --writable\n' in shown.stdout
    config = tmp_path / "vm.toml"
    config.write_text(f'pool-size = "32M"\n[image.disk]\npath = "{path}"\nwritable = false\n')
    shown = run([PRESWAPD, "serve", f"--config={config}", "--writable=disk", "--show-config"])
    assert f"writable = true  # --writable, over {config}:4\n" in shown.stdout
    without = run([PRESWAPD, "serve", "--pool-size=32M", f"--image=a={path}", "--show-config"])
    assert "writable" not in without.stdout


def test_file_that_may_not_be_written(tmp_path: Path, path: Path) -> None:
    made = run(["chattr", "+i", str(path)])
    if made.returncode:
        pytest.skip(f"no file can be made immutable here: {made.stderr}")
    try:
        with RunningServer(tmp_path, {"g1": "64M"}, "32M", options(path)) as server:
            refused = server.json_stats()["refused_images"]["disk"]
            assert f"{path} cannot be written to: " in refused
    finally:
        run(["chattr", "-i", str(path)])


def test_block_device_that_the_host_uses(tmp_path: Path) -> None:
    """Opened alone, as a file system on it would be written to behind its back."""
    backing = tmp_path / "backing"
    backing.write_bytes(CONTENT[: 16 * MIB])
    made = run(["losetup", "--find", "--show", str(backing)])
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr}")
    device = Path(made.stdout.strip())
    try:
        with RunningServer(tmp_path, {}, "32M", options(device)) as server:
            client = connected(server, "disk")
            assert client.get_size() == 16 * MIB
            client.pwrite(NEW[:MIB], 512)
            client.zero(MIB, 2 * MIB)
            client.trim(MIB, 4 * MIB)
            client.flush()
            right = bytearray(CONTENT[: 16 * MIB])
            right[512 : 512 + MIB] = NEW[:MIB]
            right[2 * MIB : 3 * MIB] = right[4 * MIB : 5 * MIB] = bytes(MIB)
            assert bytes(client.pread(16 * MIB, 0)) == right
            assert run(["mkfs.ext4", "-q", "-F", str(device)]).returncode
            client.shutdown()
        assert run(["mkfs.ext4", "-q", "-F", str(device)]).returncode == 0
        mount = tmp_path / "mnt"
        mount.mkdir()
        made = run(["mount", str(device), str(mount)])
        if made.returncode:
            pytest.skip(f"it cannot be mounted here: {made.stderr}")
        try:
            with RunningServer(tmp_path, {"g1": "64M"}, "32M", options(device)) as server:
                refused = server.json_stats()["refused_images"]["disk"]
                assert f"{device} is in use by this host" in refused
                assert f"lsblk {device}" in refused
        finally:
            run(["umount", str(mount)])
    finally:
        run(["losetup", "--detach", str(device)])


def test_versions_of_pages_under_pressure(server: RunningServer) -> None:
    """Through nbdkit; swap takes the cache's room and gives it back."""
    pages, rounds = 24, 60
    begun, done = [0] * pages, [0] * pages
    stop = threading.Event()
    wrong: list[str] = []

    def write() -> None:
        client = connected(server, "disk")
        for version in range(1, rounds):
            for page in range(pages):
                begun[page] = version
                client.pwrite(version.to_bytes(8, "little") * (PAGE // 8), page * PAGE)
                done[page] = version

    def look() -> None:
        client = connected(server, "disk")
        while not stop.is_set():
            least = list(done)
            got = bytes(client.pread(pages * PAGE, 0))
            for page in range(pages):
                version = int.from_bytes(got[page * PAGE : page * PAGE + 8], "little")
                if least[page] and not least[page] <= version <= begun[page]:
                    wrong.append(f"page {page}: {version}, {least[page]} was told")

    def press() -> None:
        guest = discard(connected(server, "g1"))
        noise = random.Random(1).randbytes(MIB)
        at = 0
        while not stop.is_set():
            guest.pwrite(noise, BEHIND_ZONE + at % 40 * MIB)
            at += 1
            if at % 40 == 0:
                discard(guest)

    writer = threading.Thread(target=write)
    others = [threading.Thread(target=one) for one in (look, look, press)]
    for thread in (writer, *others):
        thread.start()
    writer.join()
    stop.set()
    for thread in others:
        thread.join()
    assert not wrong


def test_extents_are_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "sparse.raw"
    with path.open("wb") as file:
        file.truncate(8 * MIB)
    with RunningServer(tmp_path, {}, "32M", options(path)) as server:
        facts = server.json_stats()["server"]
        if not facts["structured_replies"]:
            pytest.skip(f"no extents: {facts['structured_replies_reason']}")
        client = connected(server, "disk")
        client.pwrite(NEW[:MIB], 2 * MIB)
        client.trim(MIB // 2, 2 * MIB)
        client.shutdown()
        mapped = json.loads(run(["nbdinfo", "--map", "--json", server.nbd_uri("disk")]).stdout)
    assert [(one["offset"], one["length"], one["type"]) for one in mapped] == [
        (0, 5 * MIB // 2, 3),
        (5 * MIB // 2, MIB // 2, 0),
        (3 * MIB, 5 * MIB, 3),
    ]
