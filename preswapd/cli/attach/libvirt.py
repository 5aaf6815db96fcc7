# SPDX-License-Identifier: BSD-3-Clause
"""`libvirt-xml`: what to paste into the definition of a guest of libvirt."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import click

from preswapd.api.kinds import PSK
from preswapd.cli.attach.disk import RECONNECT_SECONDS, SCSI, VIRTIO, Disk, bus_option
from preswapd.cli.attach.exported import exported_disk
from preswapd.cli.attach.image_disk import ImageDisk
from preswapd.cli.attach.overlay import overlay_option
from preswapd.cli.attach.qemu_args import as_json, qemu_options
from preswapd.cli.attach.remote import Way, remote_options
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.commandline import EXPORT, Reader
from preswapd.errors import UsageError
from preswapd.host.versions import (
    LIBVIRT_RECONNECTS,
    LIBVIRTS,
    Version,
    first_version,
    version_text,
)

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"

# Names so late in the alphabet that they are seldom taken.
TARGETS = {SCSI: "sdo", VIRTIO: "vdz"}
DISK, CONTROLLER = "disk", "controller"


def parse_version(text: str) -> Version:
    found = re.fullmatch(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if not found:
        raise ValueError(f"{text!r} is not a version such as 9.2.0")
    return tuple(int(number or 0) for number in found.groups())


VERSION = Reader("version", parse_version)


def parse_target(text: str) -> str:
    if not re.fullmatch("[sv]d[a-h]?[a-z]", text):
        raise ValueError(f"{text!r} is not a disk's name such as sdb")
    return text


TARGET = Reader("name", parse_target)


@click.command("libvirt-xml")
@click.argument("dev", type=EXPORT)
@bus_option
@overlay_option
@remote_options
@click.option(
    "--libvirt", type=VERSION, help="The version of libvirt. Default: the one installed here."
)
@click.option("--target", type=TARGET, help="The disk's <target dev>. Default: sdo or vdz.")
@click.option(
    "--only",
    type=click.Choice((CONTROLLER, DISK)),
    help="Print this one element, for virsh attach-device.",
)
@pass_invocation
def libvirt_xml_command(
    invocation: Invocation,
    /,
    dev: str,
    bus: str,
    overlay: Path | None,
    libvirt: Version | None,
    target: str | None,
    only: str | None,
    **way: Any,
) -> None:
    """Print the XML that gives DEV, or an image, to a guest of libvirt, for virsh edit.

    libvirt before 9.2.0 cannot make QEMU reconnect to a restarted server: there the XML hands
    options to QEMU's command line, and the disk comes and goes only while the guest is shut down.

    An image is a read-only disk, and a writable one the guest's own; with --overlay a read-only one
    is the backing store of FILE, as in qemu-args.

    With --tcp the guest runs on another host, whose libvirt has its certificates where
    nbd_tls_x509_cert_dir in its qemu.conf says; before 9.2.0, where --keys-dir says.

    \b
    Examples:
      preswapctl libvirt-xml swap0                      then: virsh edit vm1
      preswapctl libvirt-xml debian --overlay /var/lib/libvirt/images/vm1.qcow2
      preswapctl libvirt-xml swap0 --only disk | virsh attach-device vm1 /dev/stdin --persistent
    """
    version = libvirt or first_version(LIBVIRTS)
    check_only(only, bus, version)
    disk = exported_disk(invocation.instances, dev, bus, overlay, Way(**way))
    if version is None:
        click.echo(
            "preswapctl: libvirt is not installed here, so this is for"
            f" {version_text(LIBVIRT_RECONNECTS)} or newer (--libvirt names another version)",
            err=True,
        )
    if version is None or version >= LIBVIRT_RECONNECTS:
        check_keys(disk, Way(**way))
        text = device_xml(disk, target or TARGETS[bus], only)
    else:
        text = command_line_xml(disk)
    if invocation.json:
        print_json({"name": dev, "bus": bus, "xml": text})
    else:
        click.echo(text)


def check_keys(disk: Disk, way: Way) -> None:
    """What libvirt takes from its own settings, and what it cannot have at all."""
    if disk.remote is None:
        return
    if disk.remote.tls == PSK:
        raise UsageError(
            "libvirt gives QEMU certificates and no keys: serve with mode x509, or give the guest"
            " its disk with the options of qemu-args"
        )
    if way.keys_dir is not None:
        raise UsageError(
            "libvirt has the directory of certificates in its own /etc/libvirt/qemu.conf, as"
            " nbd_tls_x509_cert_dir: leave --keys-dir out"
        )


def check_only(only: str | None, bus: str, version: Version | None) -> None:
    """Before an overlay is made."""
    if only is not None and version is not None and version < LIBVIRT_RECONNECTS:
        raise UsageError(
            f"libvirt {version_text(version)} cannot make QEMU reconnect,"
            f" {version_text(LIBVIRT_RECONNECTS)} can: paste all of it, without --only"
        )
    if only == CONTROLLER and bus == VIRTIO:
        raise UsageError("a disk on --bus virtio has no controller")


# --- the elements ---


def device_xml(disk: Disk, target: str, only: str | None = None) -> str:
    """What belongs into <devices>."""
    parts = {DISK: as_text(disk_element(disk, target))}
    if disk.bus == SCSI:
        parts = {CONTROLLER: as_text(controller_element())} | parts
    if only is not None:
        return parts[only]
    hint = IMAGE_HINT if isinstance(disk, ImageDisk) else HINTS[disk.bus]
    return "\n".join([hint, *parts.values()])


# No names in them: a comment of XML must not hold two dashes.
HINTS = {
    SCSI: """\
<!-- Into <devices>, with virsh edit. Leave the controller out where the guest has a virtio-scsi one
     already. Then, for the guest: preswapctl guest-setup -->""",
    VIRTIO: """\
<!-- Into <devices>, with virsh edit. The guest discards freed swap only with a udev rule for
     this disk: preswapctl guest-setup for the bus virtio -->""",
}
IMAGE_HINT = """\
<!-- Into <devices>, with virsh edit. Leave a controller out where the guest has a virtio-scsi one
     already. -->"""
COMMAND_LINE_HINT = """\
<!-- Directly into <domain>, with virsh edit, for a guest that is shut down: libvirt before 9.2.0
     cannot make QEMU reconnect. Then, for the guest: preswapctl guest-setup -->"""


def controller_element() -> ET.Element:
    return ET.Element(CONTROLLER, type="scsi", index="0", model="virtio-scsi")


def disk_element(disk: Disk, target: str) -> ET.Element:
    is_image = isinstance(disk, ImageDisk)
    is_read_only = isinstance(disk, ImageDisk) and disk.is_read_only
    overlay = disk.overlay if isinstance(disk, ImageDisk) else None
    element = ET.Element(DISK, type="network" if overlay is None else "file", device="disk")
    errors = {"error_policy": "stop", "rerror_policy": "stop"}
    if overlay is not None:
        driver = {"type": "qcow2", **errors, "discard": "unmap"}
    elif is_read_only:
        driver = {"type": "raw", "cache": "none", **errors}
    else:
        written = {"discard": "unmap", "detect_zeroes": "off"}
        driver = {"type": "raw", "cache": "none", **errors, **written}
    ET.SubElement(element, "driver", {"name": "qemu", **driver})
    if overlay is None:
        element.append(source_element(disk))
    else:
        ET.SubElement(element, "source", file=str(overlay))
        element.append(backing_element(disk))
    still = {"rotation_rate": "1"} if disk.bus == SCSI and not is_image else {}
    ET.SubElement(element, "target", {"dev": target, "bus": disk.bus} | still)
    if is_read_only:
        ET.SubElement(element, "readonly")
    ET.SubElement(element, "serial").text = disk.serial
    if disk.bus == SCSI:
        # By the name alone libvirt would put sdh and later ones on a second controller, and make
        # that one an LSI.
        place = {"controller": "0", "bus": "0", "target": str(letters(target)), "unit": "0"}
        ET.SubElement(element, "address", {"type": "drive"} | place)
    return element


def source_element(disk: Disk) -> ET.Element:
    source = ET.Element("source", protocol="nbd", name=disk.dev)
    if disk.remote is None:
        ET.SubElement(source, "host", transport="unix", socket=str(disk.socket))
    else:
        if disk.remote.tls:
            source.set("tls", "yes")
        ET.SubElement(source, "host", name=disk.remote.host, port=str(disk.remote.port))
    ET.SubElement(source, "reconnect", delay=str(RECONNECT_SECONDS))
    return source


def backing_element(disk: Disk) -> ET.Element:
    """The image below an overlay, and nothing below that: libvirt need not look."""
    element = ET.Element("backingStore", type="network")
    ET.SubElement(element, "format", type="raw")
    element.append(source_element(disk))
    ET.SubElement(element, "backingStore")
    return element


def letters(target: str) -> int:
    """The number of a disk by its name: 0 for sda, 26 for sdaa."""
    number = 0
    for letter in target[2:]:
        number = number * 26 + ord(letter) - ord("a") + 1
    return number - 1


def command_line_xml(disk: Disk) -> str:
    """QEMU's own options: libvirt passes them on and knows nothing of the disk.

    In JSON, as libvirt writes its own: QEMU makes all other devices before those, and ours would
    take a PCI slot that libvirt has given to one of its own.
    """
    ET.register_namespace("qemu", QEMU_NAMESPACE)
    element = ET.Element(f"{{{QEMU_NAMESPACE}}}commandline")
    for option, properties in qemu_options(disk):
        for value in (option, as_json(properties)):
            ET.SubElement(element, f"{{{QEMU_NAMESPACE}}}arg", value=value)
    return "\n".join([COMMAND_LINE_HINT, as_text(element)])


def as_text(element: ET.Element) -> str:
    ET.indent(element)
    return ET.tostring(element, encoding="unicode")
