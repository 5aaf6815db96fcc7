# SPDX-License-Identifier: BSD-3-Clause
"""A kernel for the guest: Debian's cloud kernel, unpacked into a cache and never installed."""

import os
import platform
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from preswapd.guest.faults import SetupError

META_PACKAGE = "linux-image-cloud-amd64"
PACKAGE = re.compile(r"linux-image-[0-9][\w.+-]*-cloud-amd64")
DOWNLOAD_SECONDS = 300


@dataclass(frozen=True)
class Kernel:
    """What QEMU boots, and the folder of its modules (as /lib/modules/VERSION)."""

    image: Path
    modules: Path


def default_cache() -> Path:
    """The folder for what costs time to get and can be got again."""
    given = os.environ.get("XDG_CACHE_HOME")
    base = Path(given) if given and Path(given).is_absolute() else Path.home() / ".cache"
    return base / "preswapd"


def given_kernel(image: Path, modules: Path) -> Kernel:
    """A kernel that the user names."""
    if not image.is_file():
        raise SetupError(f"there is no kernel image {image}")
    if not (modules / "kernel").is_dir():
        raise SetupError(f"{modules} is not a folder of kernel modules, like /lib/modules/VERSION")
    return Kernel(image, modules)


def find_kernel(cache: Path) -> Kernel:
    """The kernel in the cache, else the one that Debian's package lists offer now."""
    return newest_cached(cache) or fetch(cache)


def newest_cached(cache: Path) -> Kernel | None:
    found = [folder for folder in cache.glob("linux-image-*") if PACKAGE.fullmatch(folder.name)]
    newest = max(found, key=version, default=None)
    return None if newest is None else unpacked(newest)


def version(folder: Path) -> list[int]:
    return [int(number) for number in re.findall("[0-9]+", folder.name)]


def unpacked(folder: Path) -> Kernel:
    """The kernel in an unpacked package; the modules lie under usr/ from Debian 13 on."""
    images = sorted(folder.glob("boot/vmlinuz-*"))
    modules = sorted([*folder.glob("lib/modules/*"), *folder.glob("usr/lib/modules/*")])
    if not images or not modules:
        raise SetupError(f"{folder} holds no kernel: remove it to fetch one again")
    return given_kernel(images[-1], modules[-1])


def fetch(cache: Path) -> Kernel:
    """Downloads the package that the meta package depends on, and unpacks it into the cache."""
    check_host()
    name = package_name()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=cache) as scratch:
        command(["apt-get", "--quiet", "download", name], f"cannot download {name}", Path(scratch))
        archive = next(Path(scratch).glob("*.deb"))
        tree = Path(scratch) / "tree"
        command(["dpkg-deb", "--extract", str(archive), str(tree)], f"cannot unpack {name}")
        # Of two fetches at once the second one's rename fails on what the first one left.
        with suppress(OSError):
            tree.rename(cache / name)
    return unpacked(cache / name)


def check_host() -> None:
    if platform.machine() != "x86_64":
        raise SetupError(
            f"a guest's kernel is fetched for x86-64 only and this is {platform.machine()}:"
            " name one with --kernel and --modules"
        )
    for tool in ("apt-cache", "apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise SetupError(
                f"{tool} is not here to fetch Debian's cloud kernel: name a kernel with --kernel"
                " and --modules"
            )


def package_name() -> str:
    """The package of the newest cloud kernel, by the package lists of this host."""
    complaint = (
        f"the package lists do not have {META_PACKAGE}: run apt-get update first (on Debian),"
        " or name a kernel with --kernel and --modules"
    )
    shown = command(["apt-cache", "show", "--no-all-versions", META_PACKAGE], complaint)
    match = PACKAGE.search(shown.partition("Depends:")[2])
    if match is None:
        raise SetupError(complaint)
    return match[0]


def command(arguments: list[str], complaint: str, folder: Path | None = None) -> str:
    try:
        done = subprocess.run(
            arguments,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SetupError(f"{complaint}: no end after {DOWNLOAD_SECONDS} s") from None
    if done.returncode:
        reason = next(
            (line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg-deb: err"))),
            "",
        )
        raise SetupError(complaint + (f" ({reason})" if reason else ""))
    return done.stdout
