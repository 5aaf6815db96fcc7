# SPDX-License-Identifier: BSD-3-Clause
"""What is no image is refused, with what helps."""

import errno
import fcntl
import os
import struct
from pathlib import Path

import pytest

from preswapd.errors import RefusedError
from preswapd.host import disk_locks
from preswapd.precache.images import check
from preswapd.precache.opening import open_image, why_not_opened
from preswapd.precache.settings import ImageSpec
from preswapd.tmem import Host
from tests.precache.running import MIB
from tests.running import as_nobody_special, run, typed


def refusal(path: Path) -> str:
    with pytest.raises(RefusedError) as caught:
        open_image(path).close()
    return str(caught.value)


def test_missing(tmp_path: Path) -> None:
    path = tmp_path / "no ne"
    text = refusal(path)
    assert text.startswith(f"{path} is missing: ")
    # As it can be typed, with a file in the place of FILE.
    given = tmp_path / "given.qcow2"
    assert run(["qemu-img", "create", "-f", "qcow2", str(given), "1M"]).returncode == 0
    command = text.partition(" is made by ")[2].replace("FILE", f"{given}")
    assert typed(command).returncode == 0
    open_image(path).close()


def test_directory(tmp_path: Path) -> None:
    assert "neither a file nor a block device" in refusal(tmp_path)


def test_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "neither a file nor a block device" in refusal(tmp_path / "pipe")


def test_not_readable(tmp_path: Path) -> None:
    path = tmp_path / "secret.raw"
    path.write_bytes(bytes(4096))
    path.chmod(0)
    tmp_path.chmod(0o755)
    with as_nobody_special():
        text = refusal(path)
    assert f"{path} cannot be read: Permission denied: " in text
    assert text.endswith(" keeps user nobody out")
    command = text.partition("denied: ")[2].partition(" shows")[0]
    assert "secret.raw" in typed(command).stdout


def test_not_writable_names_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "base.raw"
    path.write_bytes(bytes(4096))
    path.chmod(0o444)
    tmp_path.chmod(0o755)
    with as_nobody_special(), pytest.raises(RefusedError) as caught:
        open_image(path, writable=True)
    assert f"{path} cannot be written to: Permission denied: namei -l" in str(caught.value)
    read_only = OSError(errno.EROFS, os.strerror(errno.EROFS))
    assert f"ReadWritePaths={path} lets it" in why_not_opened(path, True, read_only)


def test_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.raw"
    path.touch()
    assert "is empty" in refusal(path)


def test_no_multiple_of_512_names_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "odd one.raw"
    path.write_bytes(bytes(4097))
    text = refusal(path)
    command = text.partition(" as disks are: ")[2].partition(" makes it")[0]
    assert typed(command).returncode == 0
    open_image(path).close()
    assert path.stat().st_size == 4608


@pytest.mark.parametrize("kind", ["qcow2", "qed", "vmdk", "vdi", "vhdx", "vpc"])
def test_other_formats_name_the_way_out(tmp_path: Path, kind: str) -> None:
    raw, path = tmp_path / "a.raw", tmp_path / f"an image.{kind}"
    raw.write_bytes(os.urandom(1 << 20))
    made = run(["qemu-img", "convert", "-O", kind, "-f", "raw", str(raw), str(path)])
    if made.returncode:
        pytest.skip(f"this qemu-img makes no {kind}: {made.stderr}")
    if kind == "vpc" and not path.read_bytes().startswith(b"conectix"):
        pytest.skip("this qemu-img makes a fixed vpc image, which begins with the disk's own bytes")
    text = refusal(path)
    assert f"is a {kind} image" in text
    command = text.partition(" are served: ")[2].partition(", and give")[0]
    assert typed(command).returncode == 0
    open_image(Path(f"{path}.raw")).close()


def test_arena_is_no_image(shm: Path) -> None:
    """Its clients would read, or write, what all guests of an instance have swapped."""
    Host(shm / "arena", 4 * MIB, create=True).close()
    assert f"{shm / 'arena'} holds the pages of an instance's guests" in refusal(shm / "arena")


def test_writer_of_qemu_keeps_it_out(tmp_path: Path) -> None:
    """Its lock "I write" is byte 101."""
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(4096))
    with open(path, "r+b") as other:
        mine = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 101, 1, 0)
        fcntl.fcntl(other, fcntl.F_OFD_SETLK, mine)
        assert f"{path} is in use by a program that may write to it: fuser -v" in refusal(path)
    open_image(path).close()


def test_readers_do_not_keep_each_other_out(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(1 << 20))
    one, two = open_image(path), open_image(path)
    assert run(["qemu-img", "info", str(path)]).returncode == 0
    write = ["qemu-io", "-f", "raw", "-c", "write 0 512", str(path)]
    assert "lock" in run(write).stderr
    one.close()
    two.close()
    assert run(write).returncode == 0


def test_block_device_that_a_writer_has_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other images and devices would wait with it; it is tried again anyway."""
    (tmp_path / "backing").write_bytes(bytes(MIB))
    made = run(["losetup", "--find", "--show", str(tmp_path / "backing")])
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    device = Path(made.stdout.strip())
    monkeypatch.setattr(disk_locks, "PATIENCE_SECONDS", 1e9)
    try:
        with open(device, "rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            assert f"{device} is in use by a program that may write to it" in refusal(device)
            fcntl.flock(other, fcntl.LOCK_SH)  # as udev does
            open_image(device).close()
    finally:
        run(["losetup", "--detach", str(device)])


def test_locks_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a file system answers, it is that image that is not served."""

    def fails(descriptor: int, kind: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "base.raw"
    path.write_bytes(bytes(4096))
    monkeypatch.setattr(fcntl, "flock", fails)
    before = len(os.listdir("/proc/self/fd"))
    assert refusal(path) == f"{path} cannot be used: {os.strerror(errno.EIO)}"
    assert len(os.listdir("/proc/self/fd")) == before


def test_on_tmpfs(shm: Path) -> None:
    path = shm / "a.raw"
    path.write_bytes(bytes(512))
    opened = open_image(path)
    assert opened.size == 512
    opened.close()


def test_check_says_which(tmp_path: Path) -> None:
    good = tmp_path / "a.raw"
    good.write_bytes(bytes(512))
    found = check([ImageSpec("a", good), ImageSpec("b", tmp_path / "b")])
    assert list(found) == ["b"]
    assert str(found["b"]).startswith(f"{tmp_path / 'b'} is missing")
