# SPDX-License-Identifier: BSD-3-Clause
"""A kernel for the guest: the distribution's for virtual machines, unpacked into a cache and never
installed.
"""

import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from preswapd.guest.faults import SetupError

# Debian's, and Ubuntu's.
META_PACKAGES = ("linux-image-cloud-amd64", "linux-image-virtual")
PACKAGE = re.compile(r"linux-image-[0-9][\w.+-]*-(?:cloud-amd64|generic)")
DEPENDS = re.compile("^Depends: (.*)", re.MULTILINE)
SIZE = re.compile("^Size: ([0-9]+)", re.MULTILINE)
COMMAND_SECONDS = 300
# 100 MiB at 60 KiB a second.
DOWNLOAD_SECONDS = 1800
LOOK_SECONDS = 0.5

# Told what goes on, again and again.
Tell = Callable[[str], None]


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
    check_machine()
    if not image.is_file():
        raise SetupError(f"there is no kernel image {image}")
    # QEMU reads it as this user.
    if not os.access(image, os.R_OK):
        raise SetupError(f"the kernel image {image} is not readable for you: give a copy that is")
    if not (modules / "kernel").is_dir():
        raise SetupError(f"{modules} is not a folder of kernel modules, like /lib/modules/VERSION")
    return Kernel(image, modules)


def find_kernel(cache: Path, tell: Tell = lambda _: None) -> Kernel:
    """The kernel in the cache, else the one that the host's package lists offer now."""
    check_machine()
    return newest_cached(cache) or fetch(cache, tell)


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


def fetch(cache: Path, tell: Tell) -> Kernel:
    """Downloads the package that the meta package depends on, and unpacks it into the cache."""
    check_tools()
    name = package_name()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=cache) as scratch:
        tree = Path(scratch) / "tree"
        download([name, *parts(name)], Path(scratch), tell)
        unpack(Path(scratch), tree)
        # What is in the cache is never fetched again: no kernel may be missing there.
        if kernel_in(tree) is None:
            raise SetupError(f"{name} holds no kernel: name one with --kernel and --modules")
        # Of two fetches at once the second one's rename fails on what the first one left.
        with suppress(OSError):
            tree.rename(cache / name)
    return unpacked(cache / name)


def download(names: list[str], scratch: Path, tell: Tell) -> None:
    """Downloads these packages into `scratch`."""
    size = sum(int(found) for name in names for found in SIZE.findall(shown(name)))

    def look() -> None:
        here = sum(file.stat().st_size for file in scratch.iterdir() if file.is_file())
        tell(f"fetching {names[0]}: {here >> 20} of {size >> 20} MiB")

    arguments = ["apt-get", "--quiet", "download", *names]
    complaint = f"cannot download {names[0]}"
    try:
        command(arguments, complaint, scratch, seconds=DOWNLOAD_SECONDS, look=look)
    except SetupError as error:
        raise SetupError(
            f"{error}: if the archive has another one by now, apt-get update helps; a kernel can"
            " also be named with --kernel and --modules"
        ) from None


def unpack(scratch: Path, tree: Path) -> None:
    """Unpacks all packages in `scratch` into one tree."""
    for archive in sorted(scratch.glob("*.deb")):
        unpacking = ["dpkg-deb", "--extract", str(archive), str(tree)]
        command(unpacking, f"cannot unpack {archive.name}")


def check_machine() -> None:
    if platform.machine() != "x86_64":
        raise SetupError(
            "guests are started on x86-64 only, with programs of this host, and this is"
            f" {platform.machine()}"
        )


def check_tools() -> None:
    for tool in ("apt-cache", "apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise SetupError(
                f"{tool} is not here to fetch a kernel of Debian or Ubuntu: name a kernel with"
                " --kernel and --modules"
            )


def package_name() -> str:
    """The package of the newest kernel for virtual machines, by the package lists of this host."""
    for meta_package in META_PACKAGES:
        match = PACKAGE.search(depends(shown(meta_package)))
        if match is not None:
            return match[0]
    raise SetupError(
        f"the package lists have neither {' nor '.join(META_PACKAGES)}: run apt-get update first"
        " (on Debian and Ubuntu), or name a kernel with --kernel and --modules"
    )


def parts(name: str) -> list[str]:
    """The packages that hold this kernel beside its own one, which is empty from Debian 14 on and
    has no modules on Ubuntu."""
    text = shown(name)
    if not text:
        raise SetupError(f"the package lists do not have {name}: run apt-get update first")
    version = re.escape(name.removeprefix("linux-image-"))
    part = re.compile(rf"\blinux-(?:base|binary|modules)-{version}(?![\w.+-])")
    return part.findall(depends(text))


def shown(package: str) -> str:
    """What the package lists say of its newest version; nothing where they do not have it."""
    try:
        return command(
            ["apt-cache", "show", "--no-all-versions", package], "cannot read the package lists"
        )
    except SetupError as error:
        if "No packages found" in str(error):
            return ""
        raise


def depends(text: str) -> str:
    match = DEPENDS.search(text)
    return "" if match is None else match[1]


def command(
    arguments: list[str],
    complaint: str,
    folder: Path | None = None,
    *,
    seconds: float = COMMAND_SECONDS,
    look: Callable[[], None] = lambda: None,
) -> str:
    """What it says; `look` is called all the while."""
    deadline = time.monotonic() + seconds
    with subprocess.Popen(
        arguments,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            while (said := said_within(process, LOOK_SECONDS)) is None:
                if time.monotonic() > deadline:
                    raise SetupError(f"{complaint}: no end after {seconds:.0f} s")
                look()
        except BaseException:
            process.kill()
            raise
    output, errors = said
    if process.returncode:
        reason = next(
            (line for line in errors.splitlines() if line.startswith(("E:", "dpkg-deb: err"))), ""
        )
        raise SetupError(complaint + (f" ({reason})" if reason else ""))
    return output


def said_within(process: subprocess.Popen[str], seconds: float) -> tuple[str, str] | None:
    """Its output and errors when it has ended; None while it goes on."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
