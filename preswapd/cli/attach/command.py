# SPDX-License-Identifier: BSD-3-Clause
"""`attach` and `detach`: give a running guest its disk, and take it away."""

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click

from preswapd.api.figures import DeviceAnswer
from preswapd.cli.attach.disk import SCSI, Disk, bus_option
from preswapd.cli.attach.hotplug import Hotplug
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.cli.steer.in_use import RECENT_SECONDS, in_use
from preswapd.commandline import DEVICE, FILE, SECONDS
from preswapd.errors import PartialError, RefusedError, UsageError
from preswapd.qmp import Monitor, MonitorBusyError
from preswapd.units import format_pages

DETACH_SECONDS = 30.0

qmp_option = click.option(
    "--qmp",
    type=FILE,
    required=True,
    metavar="SOCK",
    help="The Unix socket of QEMU's option -qmp unix:SOCK,server=on,wait=off.",
)


@click.command("attach")
@click.argument("dev", type=DEVICE)
@qmp_option
@bus_option
@click.option("--controller", metavar="ID", help="The id of a virtio-scsi controller to use.")
@click.option("--yes", is_flag=True, help="Attach even when a client is connected to DEV.")
@pass_invocation
def attach_command(
    invocation: Invocation, dev: str, qmp: Path, bus: str, controller: str | None, yes: bool
) -> None:
    """Give DEV to a running guest of QEMU, as a disk with the settings of qemu-args.

    Adds a virtio-scsi controller for it, unless --controller names one. When a step fails, what
    was added is removed again. For a guest of libvirt, which keeps the socket to itself, use
    libvirt-xml and virsh attach-device instead.

    \b
    Example:
      preswapctl attach swap0 --qmp /run/vm1.qmp
    then, in the guest:
      swapon --discard LABEL=swap0
    """
    if controller is not None and bus != SCSI:
        raise UsageError("--controller goes with --bus scsi only")
    instance = invocation.instances.serving(dev)
    disk = Disk(dev, instance.nbd_socket, bus)
    with monitor_at(qmp) as monitor:
        hotplug = Hotplug(monitor, disk)
        if hotplug.device() is not None:
            raise RefusedError(f"{dev} is attached to this guest already")
        if instance.client.device(dev)["connections"] and not yes:
            raise RefusedError(
                f"a client is connected to {dev}: two guests on one device destroy each other's"
                " pages (--yes goes ahead)"
            )
        hotplug.plug(controller)
        # It is attached by now: Ctrl-C would only keep that from being said.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        device = hotplug.device()
    if invocation.json:
        print_json({"name": dev, "bus": bus, "serial": disk.name, "device": device})
    else:
        click.echo(f"attached {dev}; in the guest: swapon --discard LABEL={dev}")


@click.command("detach")
@click.argument("dev", type=DEVICE)
@qmp_option
@click.option(
    "--timeout",
    type=SECONDS,
    default=DETACH_SECONDS,
    show_default=True,
    help="How many seconds the guest has to let go of the disk.",
)
@click.option("--force", is_flag=True, help="Detach even when the disk may be in use as swap.")
@pass_invocation
def detach_command(
    invocation: Invocation, dev: str, qmp: Path, timeout: float, force: bool
) -> None:
    """Take DEV out of a running guest of QEMU, after the guest's own swapoff.

    A guest that still swaps to DEV would lose what it has swapped: after I/O in the last ten
    seconds this is refused. Exit status 5: the guest has not let go of the disk in time; run the
    command again to go on.

    \b
    Example, after swapoff in the guest:
      preswapctl detach swap0 --qmp /run/vm1.qmp
    """
    # The server must run: QEMU flushes the disk before it closes it, and the guest would stand
    # still for as long as QEMU tries to connect.
    instance = invocation.instances.serving(dev)
    with monitor_at(qmp) as monitor:
        hotplug = Hotplug(monitor, Disk(dev, instance.nbd_socket))
        device = hotplug.device()
        if device is None and not hotplug.has_node() and not hotplug.has_controller():
            raise RefusedError(f"{dev} is not attached to this guest")
        if not force:
            check_unused(hotplug, instance.client.device(dev))
        try:
            clean = hotplug.unplug(device, timeout)
        except KeyboardInterrupt:
            raise PartialError("interrupted; run it again to go on") from None
    if not clean:
        click.echo(
            f"preswapctl: its controller {hotplug.disk.controller_name} was not removed", err=True
        )
    kept = kept_pages(instance.client.device(dev))
    if invocation.json:
        print_json({"name": dev, "kept_pages": kept})
    else:
        click.echo(f"detached {dev}")
        if kept:
            click.echo(
                f"the server keeps {format_pages(kept)}: preswapctl swapoff {dev} drops them"
            )


@contextmanager
def monitor_at(path: Path) -> Iterator[Monitor]:
    try:
        monitor = Monitor.at(path)
    except MonitorBusyError as error:
        raise MonitorBusyError(
            f"{error}; for a guest of libvirt use libvirt-xml and virsh attach-device"
        ) from None
    with closing(monitor):
        yield monitor


def check_unused(hotplug: Hotplug, answer: DeviceAnswer) -> None:
    state = hotplug.state()
    if state != "running":
        raise RefusedError(
            f"the guest is not running ({state}) and cannot let go of the disk"
            " (--force detaches it)"
        )
    warning = in_use(answer)
    if warning:
        raise RefusedError(
            f"{warning} After swapoff in the guest, wait {RECENT_SECONDS:g} s (--force goes ahead)"
        )


def kept_pages(answer: DeviceAnswer) -> int:
    """All but the swap header."""
    return max(0, answer["preswap_pages"] + answer["disk_pages"] - 1)
