# SPDX-License-Identifier: BSD-3-Clause
"""The disk file fails: the guest gets the error, nothing else is touched, nothing is lost."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from preswapd.preswap.device._device import FLAG_FUA
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.disk_model import page_of, pages_of
from tests.preswap.running import MIB, Running, read

SMALL_DISK = 256 << 10
PAGES = 100


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB, on which a device of 1 MiB is sparse."""
    path = tmp_path / "small"
    path.mkdir()
    options = f"size={SMALL_DISK}"
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.fixture
def full(small_disk: Path) -> Iterator[Running]:
    """100 pages in tmem, and a disk that has no room for them."""
    with Running(small_disk, [DeviceSpec("g1", MIB)]) as running:
        running.open()
        running.connect().pwrite(pages_of(1, PAGES * PAGE), PAGE)
        (small_disk / "filler").write_bytes(bytes(SMALL_DISK - 16 * PAGE))
        yield running


@pytest.fixture
def truncated(running: Running) -> Running:
    """Page 1 in tmem; the disk file has lost what lay behind page 0."""
    running.open()
    running.connect().pwrite(page_of(1), PAGE)
    running.connect().pwrite(page_of(2), 2 * PAGE, FLAG_FUA)
    os.truncate(running.paths.disk_file("g1"), PAGE)
    return running


def expect(number: int, running: Running, data: bytes, offset: int, flags: int = 0) -> None:
    connection = running.connect()
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        connection.pwrite(data, offset, flags)
    assert error.value.errno == number


def fill_disk(running: Running) -> None:
    filler = running.paths.state_dir.parent / "filler2"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(PAGE))


def test_full_disk_rejected_page_is_enospc(full: Running) -> None:
    fill_disk(full)
    full.device.max_pages = 0
    expect(errno.ENOSPC, full, page_of(9), 200 * PAGE)
    assert full.device.last_disk_error == errno.ENOSPC
    assert read(full.connect(), 200 * PAGE, PAGE) == bytes(PAGE)


def test_full_disk_rejected_put_keeps_the_old_page(full: Running) -> None:
    fill_disk(full)
    full.instance.host.limit = 0
    expect(errno.ENOSPC, full, page_of(9), PAGE)
    assert read(full.connect(), PAGE, PAGE) == page_of(1)
    check_coherence(full.instance)


def test_full_disk_part_of_a_page_keeps_the_old_page(full: Running) -> None:
    fill_disk(full)
    full.instance.host.limit = 0
    expect(errno.ENOSPC, full, b"part", PAGE + 10)
    assert read(full.connect(), PAGE, PAGE) == page_of(1)


def test_full_disk_pages_before_stay_written(full: Running) -> None:
    """A request is atomic for each page."""
    fill_disk(full)
    expect(errno.ENOSPC, full, page_of(7) + page_of(8), PAGE, FLAG_FUA)
    disk = read(full.connect(), PAGE, PAGES * PAGE)
    assert disk == pages_of(1, PAGES * PAGE)


def test_full_disk_trim_makes_room(full: Running) -> None:
    full.device.max_pages = 0
    connection = full.connect()
    connection.pwrite(page_of(1), 200 * PAGE)
    fill_disk(full)
    connection.trim(PAGE, 200 * PAGE, FLAG_FUA)
    connection.pwrite(page_of(2), 201 * PAGE)
    assert read(connection, 201 * PAGE, PAGE) == page_of(2)


def test_full_disk_shrink_stops_and_goes_on(full: Running) -> None:
    result = full.instance.shrink(0)
    assert not result.complete
    assert result.reason == "g1: No space left on device"
    assert read(full.connect(), PAGE, PAGES * PAGE) == pages_of(1, PAGES * PAGE)
    check_coherence(full.instance)
    (full.paths.state_dir.parent / "filler").unlink()
    full.device.max_pages = 1 << 40
    full.instance.host.maintain()
    trim_to_fit(full)
    assert full.instance.shrink(0).complete
    assert read(full.connect(), PAGE, 40 * PAGE) == pages_of(1, 40 * PAGE)


def trim_to_fit(running: Running) -> None:
    """The whole file system holds fewer pages than were written."""
    running.connect().trim(MIB - 41 * PAGE, 41 * PAGE)
    running.instance.maintain()


def test_full_disk_is_told_once(full: Running) -> None:
    """By a limit below what is stored it would be told of the fit, too."""
    full.device.max_pages = 0
    fill_disk(full)
    for page in range(3):
        expect(errno.ENOSPC, full, page_of(9), (200 + page) * PAGE)
        full.instance.maintain()
    assert full.log == ["disk file of g1: No space left on device (1 errors)"]
    assert full.device.stats()["disk_errors"] == 3


def test_limited_file_size_is_efbig(running: Running) -> None:
    """A disk error that needs no root to make: the disk file lies beyond what may be written."""
    script = (
        "import resource, signal, sys; sys.path.insert(0, '.');"
        "from tests.preswap.running import *; from pathlib import Path;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "r = Running.small_at(Path(sys.argv[1])); r.open(); c = r.connect();"
        "c.pwrite(b'a' * 4096, 40960); r.instance.host.limit = 0;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: c.pwrite(b'b' * 4096, 40960)\n"
        "except OSError as error: print(error.errno, bytes(read(c, 40960, 2)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, running.base / "limited"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{errno.EFBIG} b'aa'\n"


def test_truncated_image_read_is_eio(truncated: Running) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        read(truncated.connect(), 2 * PAGE, PAGE)
    assert truncated.device.disk_errors == 1


def test_truncated_image_part_is_eio(truncated: Running) -> None:
    expect(errno.EIO, truncated, b"part", 2 * PAGE)


def test_truncated_image_tmem_still_serves(truncated: Running) -> None:
    assert read(truncated.connect(), PAGE, PAGE) == page_of(1)


def test_truncated_image_is_not_made_longer_by_a_write(truncated: Running) -> None:
    """What lies between would read as zeros."""
    expect(errno.EIO, truncated, page_of(5), 9 * PAGE, FLAG_FUA)
    assert truncated.paths.disk_file("g1").stat().st_size == PAGE


def test_truncated_image_is_mended_and_its_pages_are_lost(truncated: Running) -> None:
    truncated.instance.maintain()
    assert truncated.log[0] == "disk file of g1 was cut off: 1 pages are lost"
    assert truncated.paths.disk_file("g1").stat().st_size == MIB
    with pytest.raises(OSError, match="Input/output error"):
        read(truncated.connect(), 2 * PAGE, PAGE)
    assert truncated.device.stats()["lost_pages"] == 1
    check_coherence(truncated.instance)


def test_truncated_image_mended_takes_writes(truncated: Running) -> None:
    truncated.instance.maintain()
    connection = truncated.connect()
    connection.pwrite(page_of(5), 2 * PAGE, FLAG_FUA)
    assert read(connection, 2 * PAGE, PAGE) == page_of(5)
    assert truncated.device.stats()["lost_pages"] == 0


def test_truncated_image_lost_pages_stay_lost_after_a_kill(truncated: Running) -> None:
    truncated.instance.maintain()
    truncated.kill()
    truncated.open()
    with pytest.raises(OSError, match="Input/output error"):
        read(truncated.connect(), 2 * PAGE, PAGE)
    assert read(truncated.connect(), PAGE, PAGE) == page_of(1)
