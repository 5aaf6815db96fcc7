# SPDX-License-Identifier: BSD-3-Clause
"""doctor's checks of the container that it runs in, if it does: what goes with it, its limits."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from preswapd.cli.doctor.finding import NOTE, OK, Finding
from preswapd.host.cgroups import Files, memory_files
from preswapd.host.container import ROOT, TMPFS, Mount, ends_with_us, engine, mount_of
from preswapd.host.filesystems import total_bytes
from preswapd.units import format_size

SUBJECT = "container"
SERVER = "nbdkit"
# No limit is a number that no memory has, or a word: by the version of the hierarchy.
MOST = 1 << 60


def check_container(root: Path = ROOT) -> Iterator[Finding]:
    """Nothing on a host."""
    name = engine(root)
    if not name:
        return
    yield Finding(OK, SUBJECT, f"this is one ({name}); docs/guides/containers.md is about them")
    yield check_limit(memory_files())
    yield from check_first(root)


def check_limit(groups: Iterable[Files]) -> Finding:
    """What its pool takes counts, and so do the pages that it writes to a tmpfs."""
    found = [(limit, group) for group in groups if (limit := number(group.limit)) is not None]
    if not found:
        text = "no memory limit can be seen: its cgroup is not mounted here, and may have one"
        return Finding(NOTE, SUBJECT, text, "let it see /sys/fs/cgroup")
    limit, group = min(found, key=lambda pair: pair[0])
    if limit >= MOST:
        return Finding(OK, SUBJECT, "it has no memory limit")
    used = number(group.usage) or 0
    text = f"its memory limit is {format_size(limit)}, {format_size(used)} of it in use"
    return Finding(OK, SUBJECT, f"{text}; pages in shared memory count")


def number(path: str) -> int | None:
    try:
        text = Path(path).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else MOST


def check_first(root: Path) -> Iterator[Finding]:
    """Of all processes it is the one that gets those which have lost their parent."""
    try:
        name = (root / "proc/1/comm").read_text().strip()
    except OSError:
        return
    if name == SERVER:
        yield Finding(
            NOTE,
            SUBJECT,
            "the server is process 1: it ends in order when told to, but leaves as zombies what"
            " others have started there",
            "start it with --init",
        )
    else:
        yield Finding(OK, SUBJECT, f"process 1 is {name}")


# --- of an instance ---


def check_places(name: str, places: dict[str, Path], root: Path = ROOT) -> Iterator[Finding]:
    """Of each of its directories whether it goes with the container; `places` by what is there."""
    if not engine(root):
        return
    for what, path in places.items():
        mount = mount_of(path)
        if mount is None:
            continue
        if ends_with_us(mount):
            yield Finding(
                NOTE,
                f"{name}, container",
                f"{path}, with {what}, goes with the container: it is {own(mount)}",
                f"mount a directory of the host there: -v {path}:{path}",
            )
        else:
            text = f"{path}, with {what}, stays when the container goes"
            yield Finding(OK, f"{name}, container", text)


def own(mount: Mount) -> str:
    """An engine gives 64 MiB of shared memory, if it is told nothing."""
    if mount.kind == TMPFS:
        return f"on a tmpfs of its own, of {format_size(total_bytes(mount.place))}"
    return "in the container's own layer"
