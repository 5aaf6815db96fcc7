# SPDX-License-Identifier: BSD-3-Clause
"""`attach` and `detach`: give a running guest its disk, and take it away."""

import signal
from pathlib import Path

import click

from preswapd.api.figures import DeviceAnswer, ImageFigures
from preswapd.api.messages import AWAITED
from preswapd.cli.attach.disk import SCSI, Disk, bus_option
from preswapd.cli.attach.hotplug import Hotplug
from preswapd.cli.attach.image_disk import ImageDisk
from preswapd.cli.instances import RunningInstance
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.monitor import QMP_HELP, monitor_at
from preswapd.cli.output import print_json
from preswapd.cli.steer.asking import confirm, yes_option
from preswapd.cli.steer.in_use import RECENT_SECONDS, kept_pages, recent_io
from preswapd.commandline import EXPORT, FILE, SECONDS
from preswapd.errors import PartialError, RefusedError, UsageError
from preswapd.paths import runtime_root
from preswapd.units import format_pages

DETACH_SECONDS = 30.0
OTHERWISE = "for a guest of libvirt use libvirt-xml and virsh attach-device"

qmp_option = click.option(
    "--qmp",
    type=FILE,
    required=True,
    metavar="SOCK",
    help=QMP_HELP,
)


@click.command("attach")
@click.argument("dev", type=EXPORT)
@qmp_option
@bus_option
@click.option("--controller", metavar="ID", help="The id of a virtio-scsi controller to use.")
@yes_option
@pass_invocation
def attach_command(
    invocation: Invocation, dev: str, qmp: Path, bus: str, controller: str | None, yes: bool
) -> None:
    """Give DEV, or an image, to a running guest of QEMU, with the settings of qemu-args.

    Adds a virtio-scsi controller for it, unless --controller names one. When a step fails, what
    was added is removed again. Asks when a client is connected to DEV: two guests on one device
    destroy each other's pages. For a guest of libvirt, which keeps the socket to itself, use
    libvirt-xml and virsh attach-device instead. An image becomes a read-only disk, and a writable
    one the disk of this guest alone: refused while another client is connected. One with an overlay
    is given to a guest when it starts, with qemu-args --overlay.

    \b
    Examples:
      preswapctl attach debian --qmp /run/vm1.qmp
      preswapctl attach swap0 --qmp /run/vm1.qmp
    then, in the guest:
      swapon --discard LABEL=swap0
    """
    if controller is not None and bus != SCSI:
        raise UsageError("--controller goes with --bus scsi only")
    instance, image = invocation.instances.exporting(dev)
    disk = disk_of(instance, image, dev, bus)
    with monitor_at(qmp, OTHERWISE) as monitor:
        hotplug = Hotplug(monitor, disk)
        if hotplug.device() is not None:
            raise RefusedError(f"{dev} of {instance.name} is attached to this guest already")
        if image is None and not yes:
            check_alone(instance, dev)
        if image is not None and is_own(disk):
            check_own(instance, image, hotplug)
        namesakes = hotplug.namesakes()
        hotplug.plug(controller)
        # It is attached by now: Ctrl-C would only keep that from being said.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        device = hotplug.device()
    if invocation.json:
        print_json({"name": dev, "bus": bus, "serial": disk.serial, "device": device})
    elif is_own(disk):
        click.echo(f"attached {dev}; in the guest: {disk.path_in_guest}")
    elif image is not None:
        click.echo(f"attached {dev}, which cannot be written; in the guest: {disk.path_in_guest}")
    elif namesakes:
        whose = ", ".join(map(owner, namesakes))
        click.echo(
            f"attached {dev}; the guest has that of {whose} too, with the same label;"
            f" in the guest: swapon --discard {disk.path_in_guest}"
        )
    else:
        click.echo(f"attached {dev}; in the guest: swapon --discard LABEL={dev}")


@click.command("detach")
@click.argument("dev", type=EXPORT)
@qmp_option
@click.option(
    "--timeout",
    type=SECONDS,
    default=DETACH_SECONDS,
    show_default=True,
    help="How many seconds the guest has to let go of the disk.",
)
@yes_option
@click.option(
    "--force",
    is_flag=True,
    help="Do not ask, and detach even when the disk may be in use as swap.",
)
@pass_invocation
def detach_command(
    invocation: Invocation, dev: str, qmp: Path, timeout: float, yes: bool, force: bool
) -> None:
    """Take DEV, or an image, out of a running guest of QEMU, after the guest's own swapoff.

    A guest that still swaps to DEV would lose what it has swapped: after I/O in the last ten
    seconds this is refused, and when DEV holds pages it asks. Exit status 5: the guest has not let
    go of the disk in time; run the command again to go on. Unmount an image in the guest before: of
    a read-only one nothing is lost, and of a writable one, about which it asks, what the guest has
    not written yet.

    \b
    Example, after swapoff in the guest:
      preswapctl detach swap0 --qmp /run/vm1.qmp
    """
    # The server must run: QEMU flushes the disk before it closes it, and the guest would stand
    # still for as long as QEMU tries to connect.
    instance, image = invocation.instances.exporting(dev)
    disk = disk_of(instance, image, dev)
    with monitor_at(qmp, OTHERWISE) as monitor:
        hotplug = Hotplug(monitor, disk)
        device = hotplug.device()
        if device is None and not hotplug.own_nodes() and not hotplug.has_controller():
            raise RefusedError(not_attached(instance, dev, hotplug.namesakes(), qmp))
        if not force:
            check_running(hotplug)
            if image is None:
                check_unused(instance, dev, yes)
            elif is_own(disk) and device is not None and not yes:
                confirm_unmounted(instance, dev)
        try:
            clean = hotplug.unplug(device, timeout)
        except KeyboardInterrupt:
            raise PartialError("interrupted; run it again to go on") from None
    if not clean:
        click.echo(
            f"preswapctl: its controller {hotplug.disk.controller_name} was not removed", err=True
        )
    kept = kept_pages(instance.client.device(dev)) if image is None else 0
    if invocation.json:
        print_json({"name": dev, "kept_pages": kept})
    else:
        click.echo(f"detached {dev}")
        if kept:
            click.echo(
                f"the server keeps {format_pages(kept)}: preswapctl swapoff {dev} drops them"
            )


def disk_of(
    instance: RunningInstance, image: ImageFigures | None, name: str, bus: str = SCSI
) -> Disk:
    if image is None:
        return Disk.of(instance, name, bus)
    return ImageDisk.showing(image, instance, name, bus)


def is_own(disk: Disk) -> bool:
    """An image that this guest may write to."""
    return isinstance(disk, ImageDisk) and disk.is_own


def check_own(instance: RunningInstance, image: ImageFigures, hotplug: Hotplug) -> None:
    """RefusedError when another guest has it."""
    # An attach that was killed has left its connection, which this one takes back.
    mine = 1 if hotplug.own_nodes() else 0
    if image["connections"] > mine:
        raise RefusedError(
            f"{hotplug.disk.dev} of {instance.name}: a client is connected, and two guests on one"
            " disk destroy its file systems: take it from that one first (preswapctl detach)"
        )


def confirm_unmounted(instance: RunningInstance, name: str) -> None:
    """RefusedError unless somebody agrees: nobody can see from here what a guest has mounted."""
    confirm(
        f"{name} of {instance.name} is a disk that the guest writes to: where it is still mounted,"
        " the guest loses what it has not written yet",
        "Detach it?",
    )


def check_alone(instance: RunningInstance, dev: str) -> None:
    """Asks when another guest has it: RefusedError unless somebody agrees."""
    device = instance.client.device(dev)
    if device["connections"]:
        why = "a client is connected"
    elif device.get("awaited"):
        why = AWAITED
    else:
        return
    confirm(
        f"{dev} of {instance.name}: {why}; two guests on one device destroy each other's pages",
        "Attach it to this guest too?",
    )


def not_attached(instance: RunningInstance, dev: str, namesakes: list[Path], qmp: Path) -> str:
    text = f"{dev} of {instance.name} is not attached to this guest"
    if not namesakes:
        return text
    commands = [f"preswapctl {owner(socket)} detach {dev} --qmp {qmp}" for socket in namesakes]
    return f"{text}, that of another instance is: {' or '.join(commands)}"


def owner(socket: Path) -> str:
    """The server at a socket, as an option names it."""
    folder = socket.parent
    if folder.parent.resolve() == runtime_root().resolve():
        return f"--instance {folder.name}"
    return f"--runtime-dir {folder}"


def check_running(hotplug: Hotplug) -> None:
    state = hotplug.state()
    if state != "running":
        raise RefusedError(
            f"the guest is not running ({state}) and cannot let go of the disk"
            " (--force detaches it)"
        )


def check_unused(instance: RunningInstance, dev: str, yes: bool) -> None:
    answer = instance.client.device(dev)
    check_no_recent_io(answer)
    kept = kept_pages(answer)
    if kept and not yes:
        confirm(
            f"{dev} of {instance.name} holds {format_pages(kept)}, which the guest loses unless it"
            " has run swapoff",
            "Detach it?",
        )
        # A question may stand on a terminal for hours.
        check_no_recent_io(instance.client.device(dev))


def check_no_recent_io(device: DeviceAnswer) -> None:
    warning = recent_io(device)
    if warning:
        raise RefusedError(
            f"{warning} After swapoff in the guest, wait {RECENT_SECONDS:g} s (--force goes ahead)"
        )
