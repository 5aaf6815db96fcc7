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
DEPENDS = re.compile("^Depends: (.*)", re.MULTILINE)
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
    """The kernel in what was unpacked into the cache."""
    kernel = kernel_in(folder)
    if kernel is None:
        raise SetupError(f"{folder} holds no kernel: remove it to fetch one again")
    return kernel


def kernel_in(folder: Path) -> Kernel | None:
    """The modules lie under usr/ from Debian 13 on, the image beside them from 14 on."""
    images = [*folder.glob("boot/vmlinuz-*"), *folder.glob("usr/lib/modules/*/vmlinuz")]
    modules = [*folder.glob("lib/modules/*/kernel"), *folder.glob("usr/lib/modules/*/kernel")]
    if not images or not modules:
        return None
    return Kernel(max(images), max(modules).parent)


def fetch(cache: Path) -> Kernel:
    """Downloads the package that the meta package depends on, and unpacks it into the cache."""
    check_host()
    name = package_name()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=cache) as scratch:
        tree = Path(scratch) / "tree"
        unpack([name, *parts(name)], Path(scratch), tree)
        # What is in the cache is never fetched again: no kernel may be missing there.
        if kernel_in(tree) is None:
            raise SetupError(f"{name} holds no kernel: name one with --kernel and --modules")
        # Of two fetches at once the second one's rename fails on what the first one left.
        with suppress(OSError):
            tree.rename(cache / name)
    return unpacked(cache / name)


def unpack(names: list[str], scratch: Path, tree: Path) -> None:
    """Downloads these packages, and unpacks them all into one tree."""
    command(["apt-get", "--quiet", "download", *names], f"cannot download {names[0]}", scratch)
    for archive in sorted(scratch.glob("*.deb")):
        unpacking = ["dpkg-deb", "--extract", str(archive), str(tree)]
        command(unpacking, f"cannot unpack {archive.name}")


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


def parts(name: str) -> list[str]:
    """The packages that hold this kernel where its own one is empty, as from Debian 14 on."""
    complaint = f"the package lists do not have {name}: run apt-get update first"
    shown = command(["apt-cache", "show", "--no-all-versions", name], complaint)
    depends = DEPENDS.search(shown)
    version = re.escape(name.removeprefix("linux-image-"))
    part = re.compile(rf"\blinux-(?:base|binary|modules)-{version}(?![\w.+-])")
    return [] if depends is None else part.findall(depends[1])


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
