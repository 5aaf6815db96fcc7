# SPDX-License-Identifier: BSD-3-Clause
"""Which kernel is taken, and what is said when there is none."""

import os
import re
from pathlib import Path

import pytest

from preswapd.guest import kernel
from preswapd.guest.faults import SetupError
from preswapd.guest.kernel import find_kernel, given_kernel, newest_cached, package_name, parts

SHOWN = """\
Package: linux-image-cloud-amd64
Source: linux-signed-amd64 (6.1.176+1)
Depends: linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)
Description: Linux for x86-64 cloud (meta-package)
"""
SHOWN_WITH_CHOICE = """\
Package: linux-image-cloud-amd64
Provides: linux-image-0-cloud-amd64
Depends: linux-base (>= 4.12), linux-image-6.12.43+deb13-cloud-amd64 (= 6.12.43-1)
"""

IN_ONE = "linux-image-6.12.43+deb13-cloud-amd64"
SPLIT = "linux-image-7.2.12+deb14-cloud-amd64"
# Beside its parts it names packages that are none of them.
SPLIT_DEPENDS = """\
Pre-Depends: linux-base (>= 4.17~)
Depends: dracut | initramfs-tools (>= 0.120), linux-base-7.2.12+deb14-cloud-amd64 (= 7.2.12-1), \
linux-binary-7.2.12+deb14-cloud-amd64 (= 7.2.12-1), \
linux-modules-7.2.12+deb14-cloud-amd64 (= 7.2.12-1), \
linux-modules-7.2.12+deb14-cloud-amd64-more, linux-modules-7.2.1-cloud-amd64
Suggests: linux-doc-7.2, linux-modules-7.2.12+deb14-cloud-amd64
"""
# Of Ubuntu 24.04: the package of the image has no modules.
UBUNTUS = "linux-image-6.8.0-45-generic"
UBUNTUS_MODULES = "linux-modules-6.8.0-45-generic"
UBUNTUS_DEPENDS = f"""\
Depends: kmod, linux-base (>= 4.5ubuntu1~16.04.1), {UBUNTUS_MODULES}
Recommends: grub-pc | lilo, initramfs-tools | linux-initramfs-tool
Suggests: linux-doc-6.8.0 | linux-tools, linux-modules-extra-6.8.0-45-generic
"""
UBUNTUS_FILES = {
    UBUNTUS: ["boot/vmlinuz-6.8.0-45-generic"],
    UBUNTUS_MODULES: ["lib/modules/6.8.0-45-generic/kernel/zram.ko.zst"],
}
IN_ONE_DEPENDS = "Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120)\n"
SPLIT_MODULES = "usr/lib/modules/7.2.12+deb14-cloud-amd64"
SPLIT_FILES = {
    SPLIT: ["usr/share/doc/empty"],
    "linux-base-7.2.12+deb14-cloud-amd64": [f"{SPLIT_MODULES}/modules.builtin"],
    "linux-binary-7.2.12+deb14-cloud-amd64": [f"{SPLIT_MODULES}/vmlinuz"],
    "linux-modules-7.2.12+deb14-cloud-amd64": [f"{SPLIT_MODULES}/kernel/zram.ko.xz"],
}
IN_ONE_FILES = {IN_ONE: ["boot/vmlinuz-6.12.43", "usr/lib/modules/6.12.43/kernel/zram.ko.xz"]}
# Debian's tools, for packages that are lists of files.
TOOLS = {
    "apt-cache": """for name; do :; done
cat "{archive}/$name.shown" 2>/dev/null || {{ echo "E: No packages found" >&2; exit 100; }}""",
    "apt-get": """shift 2
for name; do
  cp "{archive}/$name.deb" . || {{ echo "E: Unable to locate package $name" >&2; exit 100; }}
done""",
    "dpkg-deb": """while read -r file; do
  mkdir -p "$3/${{file%/*}}" && echo >"$3/$file" || exit
done <"$2\"""",
}


class Debian:
    """A host with tools of Debian that offer these packages as the newest kernel."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, depends: str
    ) -> None:
        self.archive, self.cache = folder / "archive", folder / "cache"
        self.archive.mkdir()
        self.shown(kernel.META_PACKAGES["cloud" not in name], f"Depends: {name} (= 1)\n")
        self.shown(name, depends)
        tools = folder / "bin"
        tools.mkdir()
        for tool, script in TOOLS.items():
            (tools / tool).write_text("#!/bin/sh\n" + script.format(archive=self.archive) + "\n")
            (tools / tool).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr("platform.machine", lambda: "x86_64")

    def shown(self, name: str, depends: str) -> None:
        (self.archive / f"{name}.shown").write_text(f"Package: {name}\n{depends}Section: kernel\n")

    def offers(self, packages: dict[str, list[str]]) -> None:
        for name, files in packages.items():
            (self.archive / f"{name}.deb").write_text("".join(f"{file}\n" for file in files))

    def cached(self) -> list[str]:
        return [path.name for path in self.cache.iterdir()]


def says(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(kernel, "command", lambda *_: text)


def unpacked_package(cache: Path, name: str, modules: str = "lib/modules/x") -> Path:
    folder = cache / name
    (folder / "boot").mkdir(parents=True)
    (folder / "boot/vmlinuz-x").touch()
    (folder / modules / "kernel").mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        (SHOWN, "linux-image-6.1.0-50-cloud-amd64"),
        (SHOWN_WITH_CHOICE, "linux-image-6.12.43+deb13-cloud-amd64"),
    ],
)
def test_package_name_is_what_the_meta_package_needs(
    monkeypatch: pytest.MonkeyPatch, shown: str, name: str
) -> None:
    says(monkeypatch, shown)
    assert package_name() == name


def test_package_name_without_lists_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    says(monkeypatch, "")
    with pytest.raises(SetupError, match="apt-get update"):
        package_name()


@pytest.mark.parametrize(
    ("name", "depends", "named"),
    [
        (IN_ONE, IN_ONE_DEPENDS, []),
        (SPLIT, SPLIT_DEPENDS, [*SPLIT_FILES][1:]),
        (UBUNTUS, UBUNTUS_DEPENDS, [UBUNTUS_MODULES]),
    ],
)
def test_parts_are_of_the_same_kernel(
    monkeypatch: pytest.MonkeyPatch, name: str, depends: str, named: list[str]
) -> None:
    says(monkeypatch, f"Package: {name}\n{depends}")
    assert parts(name) == named


def test_newest_cached_compares_numbers(tmp_path: Path) -> None:
    unpacked_package(tmp_path, "linux-image-6.1.0-9-cloud-amd64")
    newer = unpacked_package(tmp_path, "linux-image-6.1.0-50-cloud-amd64")
    found = newest_cached(tmp_path)
    assert found is not None
    assert found.image.is_relative_to(newer)


def test_newest_cached_finds_modules_under_usr(tmp_path: Path) -> None:
    folder = unpacked_package(tmp_path, "linux-image-6.12.1-cloud-amd64", "usr/lib/modules/x")
    found = newest_cached(tmp_path)
    assert found is not None
    assert found.modules == folder / "usr/lib/modules/x"


def test_newest_cached_of_an_empty_cache(tmp_path: Path) -> None:
    assert newest_cached(tmp_path / "none") is None


def test_find_kernel_names_a_broken_cache(tmp_path: Path) -> None:
    (tmp_path / "linux-image-6.1.0-9-cloud-amd64").mkdir()
    with pytest.raises(SetupError, match="holds no kernel"):
        find_kernel(tmp_path)


def test_given_kernel_checks_both(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no kernel image"):
        given_kernel(tmp_path / "vmlinuz", tmp_path)
    (tmp_path / "vmlinuz").touch()
    with pytest.raises(SetupError, match="not a folder of kernel modules"):
        given_kernel(tmp_path / "vmlinuz", tmp_path)


def test_given_kernel_that_only_root_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As Ubuntu has them in /boot."""
    (tmp_path / "vmlinuz").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SetupError, match="vmlinuz is not readable for you"):
        given_kernel(tmp_path / "vmlinuz", tmp_path)


def test_on_another_machine_no_option_is_of_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    told = r"on x86-64 only, .* and this is aarch64"
    with pytest.raises(SetupError, match=told):
        find_kernel(tmp_path)
    with pytest.raises(SetupError, match=told):
        given_kernel(tmp_path, tmp_path)


def test_lists_that_lack_the_kernel_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    debian = Debian(monkeypatch, tmp_path, IN_ONE, IN_ONE_DEPENDS)
    (debian.archive / f"{IN_ONE}.shown").unlink()
    with pytest.raises(SetupError, match=f"lists do not have {re.escape(IN_ONE)}: run apt-get"):
        find_kernel(debian.cache)


def test_lists_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    debian = Debian(monkeypatch, tmp_path, IN_ONE, IN_ONE_DEPENDS)
    broken = tmp_path / "bin/apt-cache"
    broken.write_text("#!/bin/sh\necho 'E: The package lists could not be parsed' >&2; exit 100\n")
    with pytest.raises(
        SetupError, match=r"cannot read .* \(E: The package lists could not be parsed"
    ):
        find_kernel(debian.cache)


def test_fetch_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    debian = Debian(monkeypatch, tmp_path, SPLIT, "Size: 3145728\n" + SPLIT_DEPENDS)
    for name in [*SPLIT_FILES][1:]:
        debian.shown(name, "Size: 1048576\n")
    debian.offers(SPLIT_FILES)
    slow = debian.archive / f"{[*SPLIT_FILES][1]}.deb"
    content = slow.read_text()
    slow.unlink()
    os.mkfifo(slow)
    told: list[str] = []

    def tell(text: str) -> None:
        if not told:
            slow.write_text(content)
        told.append(text)

    find_kernel(debian.cache, tell)
    assert told[0] == f"fetching {SPLIT}: 0 of 6 MiB"


@pytest.mark.parametrize(
    ("name", "depends", "files", "modules"),
    [
        (IN_ONE, IN_ONE_DEPENDS, IN_ONE_FILES, "usr/lib/modules/6.12.43"),
        (UBUNTUS, UBUNTUS_DEPENDS, UBUNTUS_FILES, "lib/modules/6.8.0-45-generic"),
    ],
)
def test_fetch_of_a_kernel_whose_image_is_in_boot(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    depends: str,
    files: dict[str, list[str]],
    modules: str,
) -> None:
    debian = Debian(monkeypatch, tmp_path, name, depends)
    debian.offers(files)
    found = find_kernel(debian.cache)
    assert found.image == debian.cache / name / files[name][0]
    assert found.modules == debian.cache / name / modules
    assert debian.cached() == [name]
    assert newest_cached(debian.cache) == found


def test_fetch_of_a_kernel_in_several_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    debian = Debian(monkeypatch, tmp_path, SPLIT, SPLIT_DEPENDS)
    debian.offers(SPLIT_FILES)
    found = find_kernel(debian.cache)
    assert found.modules == debian.cache / SPLIT / SPLIT_MODULES
    assert found.image == found.modules / "vmlinuz"
    # What is built in is not among the modules, and would be missed there.
    assert (found.modules / "modules.builtin").is_file()
    assert debian.cached() == [SPLIT]
    assert newest_cached(debian.cache) == found


def test_fetch_names_a_part_that_is_not_to_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    debian = Debian(monkeypatch, tmp_path, SPLIT, SPLIT_DEPENDS)
    debian.offers({name: files for name, files in SPLIT_FILES.items() if "binary" not in name})
    with pytest.raises(SetupError, match=f"{re.escape(SPLIT)} .*locate package linux-binary-7"):
        find_kernel(debian.cache)
    assert debian.cached() == []


@pytest.mark.parametrize("missing", ["binary", "modules"])
def test_fetch_keeps_nothing_that_no_guest_boots(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
) -> None:
    debian = Debian(monkeypatch, tmp_path, SPLIT, SPLIT_DEPENDS)
    debian.offers({name: [] if missing in name else files for name, files in SPLIT_FILES.items()})
    with pytest.raises(SetupError, match="holds no kernel: name one with --kernel"):
        find_kernel(debian.cache)
    assert debian.cached() == []
