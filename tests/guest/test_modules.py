# SPDX-License-Identifier: BSD-3-Clause
"""What a module needs is loaded before it, and nothing twice."""

import lzma
import subprocess
from pathlib import Path

import pytest

from preswapd.guest.faults import SetupError
from preswapd.guest.modules import ModuleTree, module_name, needs


def module(*needed: str) -> bytes:
    return b"\x7fELF...license=GPL\0depends=" + ",".join(needed).encode() + b"\0retpoline=Y\0"


def in_zstd(content: bytes) -> bytes:
    done = subprocess.run(["zstd", "-qc"], input=content, capture_output=True, check=True)
    return done.stdout


@pytest.fixture
def tree(tmp_path: Path) -> ModuleTree:
    kernel = tmp_path / "kernel"
    kernel.mkdir()
    (kernel / "virtio.ko").write_bytes(module())
    (kernel / "virtio_ring.ko.xz").write_bytes(lzma.compress(module("virtio")))
    (kernel / "zram.ko.zst").write_bytes(in_zstd(module("virtio")))
    (kernel / "virtio-pci.ko").write_bytes(module("virtio", "virtio-ring"))
    (kernel / "sd_mod.ko").write_bytes(module("scsi_common", "scsi_mod"))
    (kernel / "scsi_mod.ko").write_bytes(module("scsi_common"))
    (tmp_path / "modules.builtin").write_text("kernel/drivers/scsi/scsi-common.ko\n")
    return ModuleTree(tmp_path)


def names(tree: ModuleTree, *wanted: str) -> list[str]:
    return [name for name, _ in tree.load_order(wanted)]


def test_load_order_puts_needs_first(tree: ModuleTree) -> None:
    assert names(tree, "virtio_pci") == ["virtio", "virtio_ring", "virtio_pci"]


def test_load_order_names_each_module_once(tree: ModuleTree) -> None:
    assert names(tree, "virtio_ring", "virtio_pci", "virtio") == [
        "virtio",
        "virtio_ring",
        "virtio_pci",
    ]


def test_load_order_leaves_out_what_is_built_in(tree: ModuleTree) -> None:
    assert names(tree, "sd_mod") == ["scsi_mod", "sd_mod"]


@pytest.mark.parametrize("name", ["virtio_ring", "zram"])
def test_load_order_unpacks_modules(tree: ModuleTree, name: str) -> None:
    assert dict(tree.load_order([name]))[name] == module("virtio")


def test_module_that_was_cut_short_is_named(tree: ModuleTree) -> None:
    path = tree.folder / "kernel/zram.ko.zst"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(SetupError, match=f"cannot unpack {path}: .*premature end"):
        tree.load_order(["zram"])


def test_load_order_names_what_is_missing(tree: ModuleTree) -> None:
    with pytest.raises(SetupError, match="lack virtio_scsi"):
        tree.load_order(["virtio_scsi"])


def test_needs_of_a_module_without_any() -> None:
    assert needs(module()) == []


def test_module_name_is_the_same_for_both_spellings() -> None:
    assert module_name(Path("a/virtio-pci.ko.xz")) == module_name(Path("virtio_pci.ko"))
