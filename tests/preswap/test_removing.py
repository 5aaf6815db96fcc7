# SPDX-License-Identifier: BSD-3-Clause
"""A removal that a power cut interrupts is finished by the next start, and nothing else is."""

from dataclasses import replace
from pathlib import Path

import pytest

from preswapd.preswap.files import removing
from preswapd.preswap.opening import check
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.disk_model import page_of
from tests.preswap.running import MIB, Running, pages_read, read

STEPS = ["remove_disk_file", "remove_file", "sync_directory"]


class PowerCutError(BaseException):
    """Here the host goes down."""


def cut_at(running: Running, monkeypatch: pytest.MonkeyPatch, step: str, number: int) -> bool:
    """Removes g1; the power is cut before this call, the NUMBERth of its kind, if there is one."""
    done, left = getattr(removing, step), [number]

    def cut(path: Path) -> None:
        if left[0] == 0:
            raise PowerCutError
        left[0] -= 1
        done(path)

    with monkeypatch.context() as patched:
        patched.setattr(removing, step, cut)
        try:
            running.instance.remove("g1")
        except PowerCutError:
            running.reboot()
            return True
    running.reboot()
    return False


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("step", STEPS)
def test_power_cut_in_a_removal(
    running: Running, monkeypatch: pytest.MonkeyPatch, step: str, others: int
) -> None:
    """Configured, the device is there anew; what was in it is gone for good."""
    specs = [DeviceSpec("g1", MIB), *[DeviceSpec("g2", MIB)] * others]
    for number in range(4):
        running.open(*specs)
        running.connect().pwrite(page_of(1), 200 * PAGE)
        assert running.instance.begin_sync().wait().complete
        was_cut = cut_at(running, monkeypatch, step, number)
        check(running.settings)
        running.open(known=False)
        assert set(running.instance.devices) == {spec.name for spec in specs}
        assert pages_read(running.connect())[200] is None
        running.stop()
        if not was_cut:
            break
    else:
        pytest.fail("there is no end of it")


def test_device_that_is_not_configured_is_gone(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.open(DeviceSpec("g1", MIB), DeviceSpec("g2", MIB))
    assert cut_at(running, monkeypatch, "remove_file", 0)
    running.open(DeviceSpec("g2", MIB))
    assert set(running.instance.devices) == {"g2"}
    assert not [path for path in running.snapshot() if path.name.startswith("g1.")]


def test_removal_that_failed_is_finished_by_a_discard(running: Running) -> None:
    running.open(DeviceSpec("g1", MIB), DeviceSpec("g2", MIB))
    running.stop()
    replace(running.sidecar(), removed=True).write(running.paths.sidecar("g1"))
    running.reboot()
    running.open(DeviceSpec("g2", MIB), discard=True)
    assert set(running.instance.devices) == {"g2"}


def test_device_that_is_served_is_never_finished(running: Running) -> None:
    """Shared memory says that it is: whatever its sidecar says came from hands."""
    running.open()
    running.connect().pwrite(page_of(1), PAGE)
    running.kill()
    replace(running.sidecar(), removed=True).write(running.paths.sidecar("g1"))
    running.open()
    assert read(running.connect(), PAGE, PAGE) == page_of(1)
