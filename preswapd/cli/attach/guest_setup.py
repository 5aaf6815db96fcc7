# SPDX-License-Identifier: BSD-3-Clause
"""`guest-setup`: how a guest makes its disk a swap area."""

import click

from preswapd.cli.attach.disk import VIRTIO, bus_option
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.commandline import DEVICE

# Before the guest's other swap areas, whose priorities are negative unless somebody chose them.
FSTAB = "LABEL={dev} none swap discard,nofail,pri=100 0 0"

# The rule does not name the device: QEMU cuts the serial number of a virtio disk to 20 bytes.
RULES_FILE = "/etc/udev/rules.d/60-preswapd.rules"
RULE = (
    'ACTION=="add|change", SUBSYSTEM=="block", KERNEL=="vd*", ATTR{serial}=="preswap-*",'
    ' ATTR{queue/rotational}="0"'
)

UDEV_BLOCK = """\
# A virtio disk says that it rotates, and on such a disk the guest would not discard freed swap.
cat >{file} <<'END'
{rule}
END
udevadm control --reload
udevadm trigger --settle --subsystem-match=block
"""

SWAP_BLOCK = """\
# Swap to it now and after each boot; the guest also boots without it.
grep -q '^LABEL={pattern}[[:space:]]' /etc/fstab || echo '{fstab}' >>/etc/fstab
swapon --all
dmesg | grep 'swap on' | tail -n 1        # SSDsc: swap that the guest frees goes back to the host
"""

NBD_BLOCK = """\
# Instead of a disk of QEMU's, the guest's own NBD client will do. There is no TLS yet: this is for
# a guest that reaches the host's loopback address (10.0.2.2 on QEMU's user network) and for a
# server that runs with --listen 127.0.0.1:10809.
#   modprobe nbd
#   nbd-client 10.0.2.2 10809 /dev/nbd0 -swap -persist -block-size 4096 -name {dev}
#   echo 1280 >/sys/block/nbd0/queue/max_sectors_kb     # the server refuses requests above 2 MiB
#   swapon --discard --priority 100 /dev/nbd0
"""


@click.command("guest-setup")
@click.argument("dev", type=DEVICE)
@bus_option
@pass_invocation
def guest_setup_command(invocation: Invocation, dev: str, bus: str) -> None:
    """Print a shell script that root of the guest runs, to swap to its disk DEV.

    \b
    Examples:
      preswapctl guest-setup swap0
      preswapctl guest-setup swap0 | ssh root@guest sh -eux
    """
    invocation.instances.serving(dev)
    fstab = FSTAB.format(dev=dev)
    if invocation.json:
        rule = RULE if bus == VIRTIO else None
        print_json({"name": dev, "bus": bus, "fstab": fstab, "udev_rule": rule})
        return
    # A dot would stand for any character, and so for another device's name.
    pattern = dev.replace(".", "[.]")
    udev = [UDEV_BLOCK.format(file=RULES_FILE, rule=RULE)] if bus == VIRTIO else []
    swap = [SWAP_BLOCK.format(pattern=pattern, fstab=fstab), NBD_BLOCK.format(dev=dev)]
    click.echo("\n".join([*udev, *swap]), nl=False)
