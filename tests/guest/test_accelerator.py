# SPDX-License-Identifier: BSD-3-Clause
"""KVM is used only where it was seen to boot, which is tried once after a start of the host."""

from pathlib import Path

import pytest

from preswapd.guest import accelerator
from preswapd.guest.accelerator import choose
from preswapd.guest.kernel import Kernel

QEMU = Path("/usr/bin/qemu-system-x86_64")
KERNEL = Kernel(Path("/boot/vmlinuz"), Path("/lib/modules/x"))


class Probe:
    """Stands in for the guest that only boots."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, boots: bool) -> None:
        self.tried = 0
        self.boots = boots
        kvm = tmp_path / "kvm"
        kvm.touch()
        monkeypatch.setattr(accelerator, "KVM", kvm)
        monkeypatch.setattr(accelerator, "boots_under_kvm", self)

    def __call__(self, qemu: Path, kernel: Kernel) -> bool:
        self.tried += 1
        return self.boots


@pytest.mark.parametrize(("boots", "chosen"), [(True, "kvm"), (False, "tcg")])
def test_choose_believes_the_probe_and_remembers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, boots: bool, chosen: str
) -> None:
    probe = Probe(monkeypatch, tmp_path, boots)
    assert [choose(QEMU, KERNEL, tmp_path / "cache") for _ in range(2)] == [chosen] * 2
    assert probe.tried == 1


def test_choose_tries_again_after_a_reboot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    probe = Probe(monkeypatch, tmp_path, boots=True)
    choose(QEMU, KERNEL, tmp_path)
    monkeypatch.setattr(accelerator, "boot_id", lambda: "another")
    choose(QEMU, KERNEL, tmp_path)
    assert probe.tried == 2


def test_choose_without_kvm_tries_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    probe = Probe(monkeypatch, tmp_path, boots=True)
    monkeypatch.setattr(accelerator, "KVM", tmp_path / "none")
    assert choose(QEMU, KERNEL, tmp_path) == "tcg"
    assert probe.tried == 0


def test_choose_ignores_a_damaged_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Probe(monkeypatch, tmp_path, boots=True)
    (tmp_path / "accelerator.json").write_text("[")
    assert choose(QEMU, KERNEL, tmp_path) == "kvm"
