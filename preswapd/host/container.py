# SPDX-License-Identifier: BSD-3-Clause
"""Whether this process runs in a container, and which file systems end with that."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")
OWN = ROOT / "proc/self"
SHARED_MEMORY = Path("/dev/shm")
# linux/proc_ns.h: the namespaces that a host begins with.
HOSTS = {"pid": "pid:[4026531836]", "ipc": "ipc:[4026531839]"}
# What engines leave for those who ask; an image that became a virtual machine may have it too.
MARKS = {"run/.containerenv": "podman", ".dockerenv": "docker"}
SYSTEMDS = "run/systemd/container"
OVERLAY, TMPFS = "overlay", "tmpfs"


def engine(root: Path = ROOT, environment: Mapping[str, str] = os.environ) -> str:
    """What made the container that we are in, as far as it says so; "" on a host."""
    own = root / "proc/self"
    if is_hosts("pid", own) and is_hosts("ipc", own):
        return ""
    if "KUBERNETES_SERVICE_HOST" in environment:
        return "Kubernetes"
    for mark, name in MARKS.items():
        if (root / mark).exists():
            return name
    told = environment.get("container") or text_of(root / SYSTEMDS) or of_first(root)
    return told or "namespaces"


def of_first(root: Path) -> str:
    """What the first process was told: commands that are run beside it are not."""
    words = text_of(root / "proc/1/environ").split("\0")
    told = (word.removeprefix("container=") for word in words if word.startswith("container="))
    return next(told, "")


def text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def is_hosts(kind: str, own: Path = OWN) -> bool:
    """Also where nobody can tell."""
    try:
        return os.readlink(own / "ns" / kind) == HOSTS[kind]
    except OSError:
        return True


class Mount(NamedTuple):
    """What is mounted where; `part` of the file system, which is / for all of it."""

    place: Path
    part: str
    kind: str


def mount_of(path: Path, own: Path = OWN) -> Mount | None:
    """The one that the path, or the closest directory above it that is there, is on."""
    path = path.resolve()
    found = [mount for mount in mounts(own) if mount.place in (path, *path.parents)]
    # Of those on one place the last is on top.
    return max(reversed(found), key=lambda mount: len(mount.place.parts), default=None)


def mounts(own: Path) -> list[Mount]:
    """NUMBER PARENT DEVICE PART PLACE OPTIONS ... - KIND SOURCE OPTIONS: proc(5)."""
    try:
        lines = (own / "mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    halves = (line.split(" - ", 1) for line in lines)
    fields = ((before.split(), after.split()) for before, after in halves)
    return [Mount(Path(plain(head[4])), plain(head[3]), tail[0]) for head, tail in fields]


def plain(text: str) -> str:
    r"""A space is \040 there."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def ends_with_us(mount: Mount, own: Path = OWN) -> bool:
    """Whether what is there goes with the container: the layer that it writes to, and a tmpfs.

    A directory that is mounted from elsewhere stays, and so does the host's shared memory.  A whole
    tmpfs of the host's, mounted here, cannot be told from one of the container's.
    """
    if mount.kind == TMPFS:
        is_shared = mount.place == SHARED_MEMORY and is_hosts("ipc", own)
        return mount.part == "/" and not is_shared
    # Without root it may be fuse.fuse-overlayfs.
    return OVERLAY in mount.kind
