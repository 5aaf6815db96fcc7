# SPDX-License-Identifier: BSD-3-Clause
"""What a device's disk is called: by the device, and by its instance."""

from itertools import product
from pathlib import Path

import pytest

from preswapd.cli.attach.disk import NAME_BYTES, SERIAL_BYTES, VIRTIO, Disk, Export

SOCKET = Path("/run/preswapd/vm1/nbd.sock")


def disk(dev: str, instance: str) -> Disk:
    return Disk(dev, SOCKET, instance=instance)


def test_name_has_device_and_instance() -> None:
    found = disk("swap0", "vm1")
    assert (found.name, found.controller_name) == ("preswap-swap0.vm1", "pss-swap0.vm1")
    assert found.serial == found.name


def test_default_instance_has_the_short_name() -> None:
    assert disk("swap0", "default").name == "preswap-swap0"


DEVICES = ("a", "a.b", "a-b", "swap0", "swap0.vm1", "abcdefghijklmno", "abcdefghijklmnp")
INSTANCES = ("default", "b", "b.c", "c", "vm1", "web-frontend-01", "web-frontend-02", "x" * 64)


def test_no_two_devices_share_a_name() -> None:
    disks = [disk(*pair) for pair in product(DEVICES, INSTANCES)]
    for names in (
        {found.name for found in disks},
        {found.controller_name for found in disks},
        {found.serial for found in disks},
    ):
        assert len(names) == len(disks)


@pytest.mark.parametrize("instance", INSTANCES)
@pytest.mark.parametrize("dev", DEVICES)
def test_names_fit(dev: str, instance: str) -> None:
    found = disk(dev, instance)
    assert len(found.name) <= NAME_BYTES
    assert len(found.controller_name) <= NAME_BYTES
    assert len(found.serial) <= SERIAL_BYTES
    # By this the guest's udev rule knows a virtio disk.
    assert found.serial.startswith("preswap-")


def test_path_in_the_guest() -> None:
    assert disk("swap0", "vm1").path_in_guest.endswith("_HARDDISK_preswap-swap0.vm1")
    virtio = Disk("swap0", SOCKET, VIRTIO, "vm1")
    assert virtio.path_in_guest == "/dev/disk/by-id/virtio-preswap-swap0.vm1"


@pytest.mark.parametrize(
    ("text", "export"),
    [
        ("nbd+unix:///swap0?socket=/run/a b/x?socket=y", ("swap0", "/run/a b/x?socket=y")),
        ("nbd+unix:///a.b?socket=nbd.sock", ("a.b", "nbd.sock")),
        ("nbd://127.0.0.1:10809/swap0", None),
        ("/var/lib/images/vm1.qcow2", None),
        ("json:{}", None),
        ("", None),
    ],
)
def test_export_of_a_node(text: str, export: tuple[str, str] | None) -> None:
    assert Export.parse(text) == (export and Export(export[0], Path(export[1])))
