# SPDX-License-Identifier: BSD-3-Clause
"""Real file systems that fill up, break and turn read-only under a running server."""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nbd
import pytest

from preswapd.cli.doctor.host import check_copy_on_write
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import Connect, connected
from tests.conftest import StartServer
from tests.faults.conftest import MIB, NOISE, error_of, mounted, page, place
from tests.running import RunningServer, run

pytestmark = [
    pytest.mark.xdist_group("faults-file-systems"),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root"),
    pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="there is no mkfs.ext4"),
]

FUA = nbd.CMD_FLAG_FUA
# linux/ext4.h: shut down at once, without writing the journal.
EXT4_IOC_SHUTDOWN = 2 << 30 | 4 << 16 | ord("X") << 8 | 125
NO_LOG_FLUSH = 2


@pytest.fixture
def ext4(stack: ExitStack, tmp_path: Path) -> Path:
    """A small one in a file, which turns read-only at its first error."""
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(32 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", str(disk)], check=True)
    mounted(stack, tmp_path / "state", "-o", "loop,errors=remount-ro", str(disk))
    (tmp_path / "state").chmod(0o700)
    (tmp_path / "state" / "lost+found").rmdir()
    return tmp_path / "state"


@pytest.fixture
def btrfs(stack: ExitStack, tmp_path: Path) -> Path:
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("there is no mkfs.btrfs")
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(160 * MIB)
    subprocess.run(["mkfs.btrfs", "--quiet", "--mixed", str(disk)], check=True)
    mounted(stack, tmp_path / "state", "-o", "loop", str(disk))
    (tmp_path / "state").chmod(0o700)
    return tmp_path / "state"


def test_full_file_system_that_copies_on_write(
    btrfs: Path, start_server: StartServer, connect: Connect
) -> None:
    """What is on disk is written over in place, as elsewhere."""
    server = start_server(tmp=btrfs.parent)
    server.ctl("freeze")
    client = connect(server)
    for number in range(12):
        client.pwrite(bytes([number + 1]) * MIB, place(0) + number * MIB)
    with (btrfs / "ballast").open("wb", buffering=0) as file:
        for piece in (MIB, 64 << 10, PAGE):
            try:
                while True:
                    file.write(os.urandom(piece))
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 - until it is full
    for number in range(12):
        client.pwrite(bytes([number + 101]) * MIB, place(0) + number * MIB)
    for number in range(12):
        found = bytes(client.pread(MIB, place(0) + number * MIB))
        assert found == bytes([number + 101]) * MIB
    assert "Btrfs writes" not in server.ctl("doctor", check=False).stdout
    client.shutdown()
    server.stop()
    server.start()
    found = bytes(connect(server).pread(MIB, place(0)))
    assert found == bytes([101]) * MIB


def test_doctor_names_disk_files_that_are_copied_on_write(btrfs: Path) -> None:
    (btrfs / "g1.img").write_bytes(b"x")
    (found,) = check_copy_on_write(btrfs, "disk files")
    assert str(btrfs / "g1.img") in found.text


@pytest.fixture
def on_ext4(ext4: Path, start_server: StartServer) -> RunningServer:
    return start_server(tmp=ext4.parent)


@pytest.fixture
def client(on_ext4: RunningServer, connect: Connect) -> Any:
    """Page 1 in tmem, page 2 on disk."""
    client = connect(on_ext4)
    client.pwrite(page(1), place(1))
    client.pwrite(page(2), place(2), flags=FUA)
    return client


def shut_down(mount: Path) -> None:
    """As when its disk is pulled out."""
    descriptor = os.open(mount, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    except OSError as error:
        pytest.skip(f"this kernel does not shut an ext4 down: {error}")
    finally:
        os.close(descriptor)


def turn_read_only(mount: Path) -> None:
    """As ext4 does where its disk has failed."""
    source = run(["findmnt", "-no", "SOURCE", str(mount)]).stdout.strip()
    trigger = Path("/sys/fs/ext4", Path(source).name, "trigger_fs_error")
    if not trigger.exists():
        pytest.skip("this kernel has no trigger for errors of an ext4")
    trigger.write_text("1\n")


def test_disk_that_is_gone_fails_and_tmem_serves_on(
    ext4: Path, on_ext4: RunningServer, client: Any
) -> None:
    shut_down(ext4)
    assert error_of(client.pwrite, page(9), place(9), flags=FUA) == errno.EIO
    assert error_of(client.pread, PAGE, place(2)) == errno.EIO
    client.pwrite(page(3), place(3))
    for number in (1, 3):
        assert bytes(client.pread(PAGE, place(number))) == page(number)
    on_ext4.wait_for_line("disk file of g1: Input/output error")


def test_disk_that_is_gone_stops_a_shrink_and_loses_nothing(
    ext4: Path, on_ext4: RunningServer, client: Any
) -> None:
    shut_down(ext4)
    done = on_ext4.ctl("shrink", "0", check=False)
    assert done.returncode == 5
    assert "g1: Input/output error" in done.stderr
    assert bytes(client.pread(PAGE, place(1))) == page(1)


def test_disk_that_is_gone_ends_no_server(ext4: Path, on_ext4: RunningServer, client: Any) -> None:
    shut_down(ext4)
    assert on_ext4.stop() == 0
    assert "Traceback" not in on_ext4.log


def test_disk_that_turned_read_only_refuses_new_pages_and_serves_the_old(
    ext4: Path, on_ext4: RunningServer, client: Any
) -> None:
    turn_read_only(ext4)
    assert error_of(client.pwrite, page(9), place(9), flags=FUA) == errno.EPERM
    for number in (1, 2):
        assert bytes(client.pread(PAGE, place(number))) == page(number)


def test_start_on_a_read_only_disk_is_refused(
    ext4: Path, on_ext4: RunningServer, client: Any
) -> None:
    on_ext4.kill()
    turn_read_only(ext4)
    done = run(on_ext4.command())
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert "Read-only file system" in done.stderr


# --- a runtime directory that is full ---


@pytest.fixture
def on_full(stack: ExitStack, start_server: StartServer) -> RunningServer:
    """A server whose runtime directory has no room left, and three pages in tmem."""
    server = start_server(start=False)
    mounted(stack, server.runtime_dir, "-t", "tmpfs", "-o", "size=64k,mode=0700", "none")
    server.start()
    connected(server).pwrite(NOISE[: 3 * PAGE], place(0))
    filler = server.runtime_dir / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(MIB))
    return server


@pytest.mark.parametrize(
    ("command", "key", "value"),
    [
        (["freeze"], "frozen", 1),
        (["sysctl", "preswap.default.pool_limit=4M"], "pool_limit", 4 * MIB),
        (["sysctl", "-w", "preswap.default.g1.quota=1"], "g1.quota", 1),
    ],
)
def test_setting_takes_force_and_is_kept_when_there_is_room(
    on_full: RunningServer, command: list[str], key: str, value: int
) -> None:
    done = on_full.ctl(*command, check=False)
    assert done.returncode == 5
    assert f"preswap.default.{key} is in force, but not kept for a restart" in done.stderr
    assert "tuning.json: No space left on device" in done.stderr
    assert done.stdout
    assert on_full.client.sysctl()[f"preswap.default.{key}"] == value
    if key == "g1.quota":
        assert on_full.client.preswap_pages() <= 1  # room is kept, too
    on_full.wait_for_line(f"preswap.default.{key} is in force, and not kept")
    (on_full.runtime_dir / "filler").unlink()
    on_full.wait_for_line("the settings are kept for the next start again")
    on_full.kill()
    on_full.start()
    assert on_full.client.sysctl()[f"preswap.default.{key}"] == value


def test_start_with_a_full_runtime_directory(on_full: RunningServer) -> None:
    on_full.restart()
    on_full.kill()
    on_full.start()
    assert on_full.client.preswap_pages() == 3
