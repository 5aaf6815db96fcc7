# SPDX-License-Identifier: BSD-3-Clause
"""A guest gets what its kernel takes on top of what its programs are to have."""

from pathlib import Path

import pytest

from preswapd.guest import memory
from preswapd.guest.kernel import Kernel
from preswapd.guest.machine import Guest, Hardware, Software
from preswapd.guest.memory import memory_leaving

MIB = 1 << 20
TAKEN = 60 * MIB + 700


class Tried:
    """Stands in for the guest that shows what its kernel takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.times = 0
        qemu = folder / "qemu"
        qemu.touch()
        monkeypatch.setattr(memory, "find", lambda name, package: qemu)
        monkeypatch.setattr(memory, "measure", self)

    def __call__(self, kernel: Kernel, cache: Path) -> int:
        self.times += 1
        return TAKEN


def image(folder: Path, content: bytes = b"") -> Kernel:
    path = folder / "vmlinuz"
    path.write_bytes(content)
    return Kernel(path, folder)


def test_memory_is_what_the_kernel_takes_on_top(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Tried(monkeypatch, tmp_path)
    assert memory_leaving(19 * MIB, image(tmp_path), tmp_path / "cache") == 80 * MIB


def test_a_kernel_is_tried_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried, kernel = Tried(monkeypatch, tmp_path), image(tmp_path)
    for available in (19, 35):
        memory_leaving(available * MIB, kernel, tmp_path)
    assert tried.times == 1


def test_another_kernel_in_its_place_is_tried_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried = Tried(monkeypatch, tmp_path)
    for content in (b"6.1", b"6.12.1"):
        memory_leaving(MIB, image(tmp_path, content), tmp_path)
    assert tried.times == 2


@pytest.mark.guest
def test_a_guest_has_what_was_asked_for(kernel: Kernel, guest_cache: Path) -> None:
    hardware = Hardware(memory_leaving(19 * MIB, kernel, guest_cache))
    with Guest(hardware, Software(kernel), guest_cache, life=200) as guest:
        available = guest.available()
    # Counters of its processors are told late, its memory is rounded up to a MiB, and the kernel
    # takes less of less.
    assert abs(available - 19 * MIB) < 4 * MIB
