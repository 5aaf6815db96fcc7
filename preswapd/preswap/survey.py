# SPDX-License-Identifier: BSD-3-Clause
"""What a start finds, and what it does with each device; or why it must not start.

Reads only, so that `preswapd serve` can refuse before it becomes nbdkit.  Serving zeros for pages
that a guest still needs would corrupt it: whatever does not fit together is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from preswapd.errors import RefusedError
from preswapd.paths import InstancePaths
from preswapd.preswap.device._table import Entry
from preswapd.preswap.files.disk_file import check_disk_file, check_unclaimed
from preswapd.preswap.files.maps import check_map
from preswapd.preswap.files.sidecar import Sidecar, read_all
from preswapd.preswap.settings import (
    MOST_DEVICES,
    DeviceSpec,
    Settings,
    check_number_of_devices,
)
from preswapd.units import exact_size

DISCARD_HINT = "--discard-state starts empty, if no guest needs its pages any more"


class Found(NamedTuple):
    """What shared memory holds: the arena's identity and its table."""

    arena: str
    boot_id: str
    entries: Sequence[Entry]


@dataclass
class Plan:
    """What becomes of each device."""

    keep: list[tuple[Entry, Sidecar]] = field(default_factory=list)
    finish: list[Entry] = field(default_factory=list)  # what a kill interrupted
    adopt: list[Sidecar] = field(default_factory=list)  # known on disk, not in shared memory
    create: list[DeviceSpec] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)  # of what differs from the configuration

    @property
    def is_first(self) -> bool:
        """No guest has a device here yet."""
        return not self.keep and not self.adopt


def survey(settings: Settings, found: Found | None, boot_id: str) -> Plan:
    """RefusedError when the state on disk and in shared memory must not be served."""
    paths = settings.paths
    sidecars = read_all(paths.state_dir)
    if found is not None and found.boot_id != boot_id:
        raise RefusedError(
            f"the arena {paths.arena} is from an earlier boot of this host: {DISCARD_HINT}"
        )
    plan = Plan()
    if found is not None:
        for entry in found.entries:
            if entry.state == "served":
                plan.keep.append((entry, kept(paths, found.arena, entry, sidecars)))
            else:
                plan.finish.append(entry)
    served = {entry.name for entry, _ in plan.keep}
    # Finishing a creation or removal takes the files on disk with it.
    doomed = {entry.name for entry in plan.finish if entry.state != "adopting"}
    for name, sidecar in sidecars.items():
        if name not in served | doomed:
            check_adoptable(paths, found, sidecar, boot_id)
            plan.adopt.append(sidecar)
    present = {s.name: s.size for s in sidecars.values() if s.name not in doomed}
    plan.create += missing(settings, present)
    plan.complaints += check_sizes(settings, present)
    if plan.is_first:
        # Else only the device itself is not served, see opening.create_new().
        for spec in plan.create:
            if spec.name not in doomed:
                check_unclaimed(paths.disk_file(spec.name), spec.size)
    return plan


def kept(paths: InstancePaths, arena: str, entry: Entry, sidecars: dict[str, Sidecar]) -> Sidecar:
    """A device that was served when the process before this one ended."""
    sidecar = sidecars.get(entry.name)
    if sidecar is None:
        raise RefusedError(
            f"{paths.sidecar(entry.name)} is missing, although shared memory holds the device"
            f" {entry.name}: {DISCARD_HINT}"
        )
    if (sidecar.type, sidecar.size, sidecar.arena) != (entry.type, entry.size, arena):
        raise RefusedError(
            f"{paths.sidecar(entry.name)} does not belong to the device {entry.name} in shared"
            f" memory: {DISCARD_HINT}"
        )
    check_map(paths.map(entry.name), entry.size)
    check_disk_file(paths.disk_file(entry.name), entry.size)
    return sidecar


def check_adoptable(
    paths: InstancePaths, found: Found | None, sidecar: Sidecar, boot_id: str
) -> None:
    if (
        sidecar.tmem_dirty
        and sidecar.boot_id == boot_id
        and (found is None or sidecar.arena != found.arena)
    ):
        what = "is missing" if found is None else "is another arena"
        raise RefusedError(
            f"the pages of {sidecar.name} that were in shared memory are gone ({paths.arena}"
            f" {what}): {DISCARD_HINT}"
        )
    check_disk_file(paths.disk_file(sidecar.name), sidecar.size)


def missing(settings: Settings, present: dict[str, int]) -> list[DeviceSpec]:
    """Configured devices that are not there yet, as many as there is room for."""
    wanted = [spec for spec in settings.devices if spec.name not in present]
    if not present:
        check_number_of_devices(len(wanted))
    return wanted[: max(0, MOST_DEVICES - len(present))]


def check_sizes(settings: Settings, present: dict[str, int]) -> list[str]:
    """Complaints of devices that are not served as they are configured: guests swap to them, and a
    mistake in a file must not keep them from their disks.  RefusedError where there are none."""
    operator = settings.operator
    complaints = [
        f"the device {spec.name} has {exact_size(size)} and is served with that, although the"
        f" configuration says {exact_size(spec.size)}: write {exact_size(size)} there, or swapoff"
        f" in the guest, detach the disk, `{operator} remove {spec.name}`, and `{operator}"
        f" create {spec.name} {exact_size(spec.size)}`"
        for spec in settings.devices
        for size in [present.get(spec.name, spec.size)]
        if size != spec.size
    ]
    more = [spec.name for spec in settings.devices if spec.name not in present]
    left_out = more[len(missing(settings, present)) :]
    if left_out:
        complaints.append(
            f"an instance can have at most {MOST_DEVICES} devices: {', '.join(left_out)}"
            f" {'is' if len(left_out) == 1 else 'are'} not served; take what is not needed out of"
            f" the configuration, or `{operator} remove` it"
        )
    return complaints
