# SPDX-License-Identifier: BSD-3-Clause
"""Which kernel is taken, and what is said when there is none."""

from pathlib import Path

import pytest

from preswapd.guest import kernel
from preswapd.guest.faults import SetupError
from preswapd.guest.kernel import find_kernel, given_kernel, newest_cached, package_name

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


def test_fetch_on_another_machine_names_the_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(SetupError, match="--kernel and --modules"):
        find_kernel(tmp_path)
