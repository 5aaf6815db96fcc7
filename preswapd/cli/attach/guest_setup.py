# SPDX-License-Identifier: BSD-3-Clause
"""`guest-setup`: how a guest makes its disk a swap area."""

import re

import click

from preswapd.cli.attach.disk import VIRTIO, Disk, bus_option
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.commandline import DEVICE, Reader

# Before the guest's areas on disks, whose priorities are negative unless somebody chose them.
PRIORITY = 100
MOST = 32767
FSTAB = "{area} none swap discard,nofail,pri={priority} 0 0"

# The rule does not name the device: QEMU cuts the serial number of a virtio disk to 20 bytes, and
# qemu-storage-daemon gives all its disks one of its own.
RULES_FILE = "/etc/udev/rules.d/60-preswapd.rules"
RULE = (
    'ACTION=="add|change", SUBSYSTEM=="block", KERNEL=="vd*",'
    ' ATTR{serial}=="preswap-*|vhost_user_blk", ATTR{queue/rotational}="0"'
)

UDEV_BLOCK = """\
# A virtio disk says that it rotates, and on such a disk the guest would not discard freed swap.
cat >{file} <<'END'
{rule}
END
udevadm control --reload
udevadm trigger --settle --subsystem-match=block
"""

BY_LABEL = "findfs {area}"
BY_ID = "readlink -e {area}"
DISK_BLOCK = """\
disk=$({find}) || exit 1
"""

# Pages go to areas of one priority in turns, to zram and disk, say.
CHOSEN_BLOCK = """\
# The guest swaps to it before its other disks, and after a zram, which is in its own memory.
priority={priority}
while read -r area kind size used other; do
  case $area in
    /dev/zram*) [ "$other" -lt 1 ] || [ "$other" -gt "$priority" ] || priority=$((other - 1)) ;;
  esac
done </proc/swaps
echo "The priority of {dev} is $priority; the guest's other areas:"
grep -v "^$disk " /proc/swaps
"""

GIVEN_BLOCK = """\
priority={priority}
"""

# systemd hibernates to the area that /sys/power/resume names (the initramfs sets it by RESUME=, the
# kernel by resume=), and else to that of the highest priority.
HIBERNATION_BLOCK = """\
# The guest must not hibernate to it: the image would not outlive the host's next restart. Where
# update-initramfs may choose (no RESUME=), it takes the largest area; now it keeps what it has.
initramfs=/etc/initramfs-tools
if [ -d $initramfs/conf.d ] && ! grep -qs '^RESUME=' $initramfs/initramfs.conf $initramfs/conf.d/*
then
  area=$(grep '^/dev/' /proc/swaps | grep -v -e '^/dev/zram' -e "^$disk " |
    sort -rnk 3 | head -n 1 | cut -d ' ' -f 1)
  uuid=$([ -z "$area" ] || blkid -s UUID -o value "$area" || true)
  echo "RESUME=${{uuid:+UUID=}}${{uuid:-none}}" | tee $initramfs/conf.d/resume
fi
if grep -qsw disk /sys/power/state; then
  case $(cat /sys/power/resume) in
    0:0) echo "Before this guest hibernates, name another area than {dev} on its kernel's command" \
      "line (resume=): without that systemd takes the one of the highest priority." ;;
    "$(cat "/sys/class/block/${{disk##*/}}/dev")")
      echo "Do not hibernate this guest: {dev} is where RESUME= (initramfs-tools) or resume= (on" \
        "its kernel's command line) says. Name another area there." ;;
    *) echo "This guest hibernates to another area, as before." ;;
  esac
fi
"""

SWAP_BLOCK = """\
# Swap to it now and after each boot; the guest also boots without it.
# An fstab whose last line has no end gets one first: ours would be glued to that line.
grep -q '^{pattern}[[:space:]]' /etc/fstab || {{
  [ -z "$(tail -c 1 /etc/fstab)" ] || echo >>/etc/fstab
  echo "{fstab}" >>/etc/fstab
}}
swapon --all
dmesg | grep 'swap on' | tail -n 1        # SSDsc: swap that the guest frees goes back to the host
"""


def parse_priority(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > MOST:
        raise ValueError(f"{text!r} is not a priority: 0 to {MOST}")
    return int(text)


@click.command("guest-setup")
@click.argument("dev", type=DEVICE)
@bus_option
@click.option(
    "--priority",
    type=Reader("n", parse_priority),
    help=f"Of the swap area. Default: {PRIORITY}, or one less than that of the guest's zram.",
)
@click.option(
    "--by-id",
    is_flag=True,
    help="Name the disk by its serial number: where another one has the same label.",
)
@pass_invocation
def guest_setup_command(
    invocation: Invocation, dev: str, bus: str, priority: int | None, by_id: bool
) -> None:
    """Print a shell script that root of the guest runs, to swap to its disk DEV.

    The guest swaps to it before its own disks and after its zram, if it has one, and does not
    hibernate to it; the script says what it has found and chosen.

    \b
    Examples:
      preswapctl guest-setup swap0
      preswapctl guest-setup swap0 | ssh root@guest sh -eux
    """
    disk = Disk.of(invocation.instances.serving(dev), dev, bus)
    area = disk.path_in_guest if by_id else f"LABEL={dev}"
    chosen = PRIORITY if priority is None else priority
    if invocation.json:
        rule = RULE if bus == VIRTIO else None
        fstab = FSTAB.format(area=area, priority=chosen)
        print_json({"name": dev, "bus": bus, "fstab": fstab, "udev_rule": rule})
        return
    udev = [UDEV_BLOCK.format(file=RULES_FILE, rule=RULE)] if bus == VIRTIO else []
    choice = CHOSEN_BLOCK if priority is None else GIVEN_BLOCK
    # A dot would stand for any character, and so for another device's name.
    pattern = area.replace(".", "[.]")
    fstab = FSTAB.format(area=area, priority="$priority")
    find = (BY_ID if by_id else BY_LABEL).format(area=area)
    swap = [
        DISK_BLOCK.format(find=find),
        choice.format(dev=dev, priority=chosen),
        HIBERNATION_BLOCK.format(dev=dev),
        SWAP_BLOCK.format(pattern=pattern, fstab=fstab),
    ]
    click.echo("\n".join([*udev, *swap]), nl=False)
