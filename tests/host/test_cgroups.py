# SPDX-License-Identifier: BSD-3-Clause
"""Which memory cgroups limit this process, by made-up hierarchies."""

from pathlib import Path

import pytest

from preswapd.host.cgroups import LEGACY, UNIFIED, Files, memory_files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


def add_group(folder: Path, names: Files = UNIFIED) -> Files:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name is not None:
            (folder / name).touch()
    return Files(*(name and str(folder / name) for name in names))  # type: ignore[arg-type]


def files_of(root: Path, membership: str) -> list[Files]:
    path = root.parent / "membership"
    path.write_text(membership)
    return memory_files(path, root)


def test_cgroup_and_those_above(root: Path) -> None:
    inner, outer = add_group(root / "a/b"), add_group(root / "a")
    root.mkdir(exist_ok=True)
    assert files_of(root, "0::/a/b\n") == [inner, outer]


def test_cgroup_root_has_no_limit_files(root: Path) -> None:
    root.mkdir()
    assert files_of(root, "0::/\n") == []


def test_cgroup_legacy_hierarchy(root: Path) -> None:
    group = add_group(root / "memory/a", LEGACY)
    assert files_of(root, "12:cpu,cpuacct:/b\n4:memory:/a\n1:name=systemd:/c\n") == [group]


def test_cgroup_hybrid_hierarchy(root: Path) -> None:
    group = add_group(root / "memory/a", LEGACY)
    assert files_of(root, "4:hugetlb,memory:/a\n0::/a\n") == [group]


def test_cgroup_outside_our_namespace(root: Path) -> None:
    top = add_group(root)
    assert files_of(root, "0::/../../other\n") == [top]


def test_cgroup_with_a_colon(root: Path) -> None:
    group = add_group(root / "a:b")
    assert files_of(root, "0::/a:b\n") == [group]


def test_cgroup_without_all_files(root: Path) -> None:
    add_group(root / "a")
    (root / "a" / UNIFIED[0]).unlink()
    assert files_of(root, "0::/a\n") == []


def test_cgroup_without_a_high_limit(root: Path) -> None:
    """Which it got later than the others (Linux 4.5), and the legacy hierarchy never."""
    group = add_group(root / "a")
    (root / "a" / "memory.high").unlink()
    assert files_of(root, "0::/a\n") == [group._replace(high=None)]


def test_cgroup_that_may_not_be_looked_at(root: Path) -> None:
    """As with a folder of another user, which root, who runs these tests, may always enter."""
    outer = add_group(root / "a")
    assert files_of(root, f"0::/a/{'b' * 300}\n") == [outer]


def test_cgroup_membership_missing(root: Path) -> None:
    assert memory_files(root / "nowhere", root) == []
