# SPDX-License-Identifier: BSD-3-Clause
"""A disk of its own for an image: a loop device past the page cache, with the read-ahead that hosts
have as a rule, and where wanted of so many requests a second, whoever reads.

It needs root, and the limit the blkio controller of cgroup v1: that of v2 has none in its root.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from preswapd.guest.faults import SetupError

THROTTLE = "/sys/fs/cgroup/blkio/blkio.throttle"
READS = Path(f"{THROTTLE}.read_iops_device")
WRITES = Path(f"{THROTTLE}.write_bps_device")
SLACK = 64 << 20
# What Linux reads ahead on a disk that says nothing else; some virtual ones have it at 8 MiB.
READ_AHEAD_KIB = 128


@contextmanager
def disk_of_its_own(
    size: int, folder: Path, requests: int | None = None, written: int | None = None
) -> Iterator[Path]:
    """The folder of a file system there, with room for files of `size`, while the block lasts.

    It answers so many reads a second, and takes so many bytes, at most.
    """
    if os.geteuid() != 0:
        raise SetupError("a disk of its own takes root")
    limits = [(READS, requests), (WRITES, written)]
    if any(most and not limit.exists() for limit, most in limits):
        raise SetupError(f"no disk can be limited here: there is no {READS}")
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        image, mounted = place / "disk", place / "mounted"
        mounted.mkdir()
        with image.open("wb") as file:
            file.truncate(size + size // 16 + SLACK)
        command("mke2fs", "-q", "-t", "ext4", "-F", str(image))
        # Past the page cache, or the host would keep what it reads below the file system.
        loop = command("losetup", "--find", "--show", "--direct-io=on", str(image))
        stack.callback(command, "losetup", "--detach", loop)
        device = Path("/sys/class/block") / Path(loop).name
        (device / "queue/read_ahead_kb").write_text(str(READ_AHEAD_KIB))
        command("mount", "-o", "noatime", loop, str(mounted))
        stack.callback(command, "umount", str(mounted))
        number = (device / "dev").read_text().strip()
        for limit, most in limits:
            if most:
                limit.write_text(f"{number} {most}")
                stack.callback(limit.write_text, f"{number} 0")
        yield mounted


@contextmanager
def disk_or_folder(size: int, folder: Path) -> Iterator[tuple[Path, bool]]:
    """Whether it is a disk of its own; where there can be none, the folder on whatever disk."""
    with ExitStack() as stack:
        try:
            found = stack.enter_context(disk_of_its_own(size, folder))
        except SetupError:
            yield folder, False
        else:
            yield found, True


def command(*arguments: str) -> str:
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SetupError(f"{arguments[0]} is not installed") from None
    if done.returncode:
        raise SetupError(f"{arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()
