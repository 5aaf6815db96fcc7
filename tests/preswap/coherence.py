# SPDX-License-Identifier: BSD-3-Clause
"""All that says where the pages are must say the same."""

from preswapd.preswap.device._device import Device
from preswapd.preswap.instance import Instance

HOLE, DISK, TMEM, LOST = 0x00, 0x0F, 0xF0, 0xFF


def check_device(device: Device) -> None:
    states = device.state_bytes()
    counts = device.stats()
    assert set(states) <= {HOLE, DISK, TMEM, LOST}
    assert [state == TMEM for state in states] == [bool(bit) for bit in device.preswap_map]
    assert device.preswap_pages == counts["preswap_pages"] == states.count(TMEM)
    assert device.disk_pages == counts["disk_pages"] == states.count(DISK)
    assert counts["lost_pages"] == states.count(LOST)
    assert 0 <= int(counts["stale_pages"]) <= device.pages


def check_coherence(instance: Instance) -> None:
    """When nothing is in flight."""
    for device in instance.devices.values():
        check_device(device)
    assert instance.host.stats()["stored_pages"] == instance.pages_in_tmem()
