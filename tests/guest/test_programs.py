# SPDX-License-Identifier: BSD-3-Clause
"""Programs of this host and what they need to run elsewhere."""

from pathlib import Path

import pytest

from preswapd.guest.faults import SetupError
from preswapd.guest.programs import find, libraries, static_busybox, with_libraries


def test_find_names_the_package() -> None:
    with pytest.raises(SetupError, match="install Debian's package no-such-package"):
        find("no-such-program", "no-such-package")


def test_find_looks_where_root_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert find("mkswap", "util-linux").name == "mkswap"


def test_libraries_of_a_dynamic_program_include_its_loader() -> None:
    names = [path.name for path in libraries(find("xz", "xz-utils"))]
    assert "libc.so.6" in names
    assert any(name.startswith("ld-linux") for name in names)


def test_libraries_of_a_static_program() -> None:
    assert libraries(static_busybox()) == []


def test_with_libraries_names_each_file_once() -> None:
    programs = [find("xz", "xz-utils"), find("sort", "coreutils")]
    files = list(with_libraries(programs))
    assert len(files) == len(set(files))
    assert set(programs) <= set(files)
    assert all(path.is_file() for path in files)


def test_static_busybox_is_no_dynamic_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "busybox").symlink_to(find("xz", "xz-utils"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin")
    with pytest.raises(SetupError, match="busybox-static"):
        static_busybox()
