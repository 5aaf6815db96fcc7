# SPDX-License-Identifier: BSD-3-Clause
"""What is no image is refused, with what helps."""

import fcntl
import os
import struct
from pathlib import Path

import pytest

from preswapd.errors import RefusedError
from preswapd.precache.images import check
from preswapd.precache.opening import open_image
from preswapd.precache.settings import ImageSpec
from tests.running import as_nobody_special, run


def refusal(path: Path) -> str:
    with pytest.raises(RefusedError) as caught:
        open_image(path).close()
    return str(caught.value)


def test_missing(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == f"{tmp_path / 'none'} is missing"


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
        assert "cannot be read" in refusal(path)


def test_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.raw"
    path.touch()
    assert "is empty" in refusal(path)


def test_no_multiple_of_512_names_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "odd one.raw"
    path.write_bytes(bytes(4097))
    text = refusal(path)
    command = text.partition(" as disks are: ")[2].partition(" makes it")[0]
    assert run(["sh", "-c", command]).returncode == 0
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
        pytest.skip("a fixed one, which begins with the disk's own bytes")
    text = refusal(path)
    assert f"is a {kind} image" in text
    command = text.partition(" are served: ")[2].partition(", and give")[0]
    assert run(["sh", "-c", command]).returncode == 0
    open_image(Path(f"{path}.raw")).close()


def test_writer_of_qemu_keeps_it_out(tmp_path: Path) -> None:
    """Its lock "I write" is byte 101."""
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(4096))
    with open(path, "r+b") as other:
        mine = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 101, 1, 0)
        fcntl.fcntl(other, fcntl.F_OFD_SETLK, mine)
        assert "in use" in refusal(path)
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
    assert {name: str(error) for name, error in found.items()} == {
        "b": f"{tmp_path / 'b'} is missing"
    }
