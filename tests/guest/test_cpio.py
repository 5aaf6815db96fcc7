# SPDX-License-Identifier: BSD-3-Clause
"""The archive is one that other programs unpack."""

import subprocess
from pathlib import Path

from preswapd.guest.cpio import Archive
from preswapd.guest.programs import static_busybox


def unpacked(archive: Archive, folder: Path) -> Path:
    folder.mkdir()
    subprocess.run(
        [str(static_busybox()), "cpio", "-i", "-d", "--quiet"],
        input=archive.to_bytes(),
        cwd=folder,
        check=True,
        timeout=20,
    )
    return folder


def test_archive_file_keeps_content_and_mode(tmp_path: Path) -> None:
    archive = Archive()
    archive.file("/bin/tool", b"12345", 0o755)
    tool = unpacked(archive, tmp_path / "there") / "bin/tool"
    assert tool.read_bytes() == b"12345"
    assert tool.stat().st_mode & 0o777 == 0o755


def test_archive_link_points_where_it_was_told(tmp_path: Path) -> None:
    archive = Archive()
    archive.link("/lib64", "usr/lib64")
    assert (unpacked(archive, tmp_path / "there") / "lib64").readlink() == Path("usr/lib64")


def test_archive_makes_directories_on_the_way_once() -> None:
    archive = Archive()
    archive.file("/a/b/one", b"")
    archive.file("/a/b/two", b"")
    assert "/a/b" in archive
    assert archive.to_bytes().count(b"0a/b\0") == 1


def test_archive_entries_lie_on_multiples_of_four() -> None:
    archive = Archive()
    for length in range(5):
        archive.file(f"/{'f' * (length + 1)}", b"x" * length)
    data = archive.to_bytes()
    starts = [at for at in range(len(data)) if data.startswith(b"070701", at)]
    assert len(starts) == 6  # the trailer too
    assert all(at % 4 == 0 for at in starts)
