# SPDX-License-Identifier: BSD-3-Clause
"""All that says where the pages are must say the same."""

from preswapd.preswap.device._device import Device
from preswapd.preswap.files.maps import DISK, HOLE, LOST, PENDING, TMEM, UNKNOWN
from preswapd.preswap.files.zone import zone
from preswapd.preswap.instance import Instance


def check_device(device: Device) -> None:
    states = device.state_bytes()
    counts = device.stats()
    assert set(states) <= {HOLE, DISK, TMEM, LOST, UNKNOWN, PENDING}
    assert [state == TMEM for state in states] == [bool(bit) for bit in device.preswap_map]
    assert device.preswap_pages == counts["preswap_pages"] == states.count(TMEM)
    # Of the zone only the swap header counts.
    behind = [states[page] for part in zone(device.pages) for page in part if page]
    assert set(behind) <= {DISK, LOST, PENDING}
    assert device.disk_pages == counts["disk_pages"] == states.count(DISK) - behind.count(DISK)
    assert counts["lost_pages"] == states.count(LOST)
    assert counts["pending_pages"] == states.count(PENDING)
    assert counts["unknown_pages"] == states.count(UNKNOWN)
    assert 0 <= int(counts["stale_pages"]) <= device.pages


def check_coherence(instance: Instance) -> None:
    """When nothing is in flight."""
    for device in instance.devices.values():
        check_device(device)
    assert instance.host.stats()["stored_pages"] == instance.pages_in_tmem()
