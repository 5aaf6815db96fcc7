# SPDX-License-Identifier: BSD-3-Clause
"""What a start finds, and what it does with each device; or why it must not start.

Changes nothing, so that `preswapd serve` can refuse before it becomes nbdkit.  Serving zeros, or
another disk file, for pages that a guest still needs would corrupt it: whatever does not fit
together is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from preswapd.errors import RefusedError
from preswapd.paths import InstancePaths
from preswapd.preswap.device._table import Entry
from preswapd.preswap.files.disk_file import check_disk_file, check_unclaimed
from preswapd.preswap.files.identity import Identity, identity_of
from preswapd.preswap.files.maps import check_map
from preswapd.preswap.files.saved_map import holds
from preswapd.preswap.files.sidecar import Sidecar, read_all
from preswapd.preswap.settings import (
    MOST_DEVICES,
    DeviceSpec,
    Settings,
    check_number_of_devices,
)
from preswapd.units import PAGE_SIZE, exact_size

# The name of an entry that is no device's.  Releases before the saved maps take it for an adoption
# that a kill has interrupted, and free it at their start: where it is gone, one of them has served.
WITNESS = "-"
DISCARD_HINT = "--discard-state starts empty, if no guest needs its pages any more"


class Found(NamedTuple):
    """What shared memory holds: the arena's identity and its table."""

    arena: str
    boot_id: str
    entries: Sequence[Entry]


class Judged(NamedTuple):
    """A sidecar, and what the disk file beside it looks like.

    `holds`: the saved map is that of a clean stop.  `was_touched`: the disk file has changed since.
    `is_accepted`: it is not as the sidecar has it, and to be believed all the same.
    `was_handed_back`: an older release may have served it since its sidecar was written.
    """

    sidecar: Sidecar
    identity: Identity
    holds: bool
    was_touched: bool
    is_accepted: bool
    was_handed_back: bool = False

    @property
    def is_believed(self) -> bool:
        return self.holds and (self.is_accepted or not self.was_touched)


@dataclass
class Plan:
    """What becomes of each device."""

    # Served when the process before this one ended, on the same boot.
    keep: list[tuple[Entry, Judged]] = field(default_factory=list)
    finish: list[Entry] = field(default_factory=list)  # what a kill interrupted
    adopt: list[Judged] = field(default_factory=list)  # known on disk, not in shared memory
    create: list[DeviceSpec] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    has_witness: bool = False

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
        plan.has_witness = any(entry.name == WITNESS for entry in found.entries)
        for entry in found.entries:
            if entry.state == "served":
                sidecar = sidecar_of(paths, found.arena, entry, sidecars)
                one = judged(settings, sidecar, sidecars, plan.complaints)
                plan.keep.append((entry, one._replace(was_handed_back=not plan.has_witness)))
            elif entry.name != WITNESS:
                plan.finish.append(entry)
    served = {entry.name for entry, _ in plan.keep}
    # Finishing a creation or removal takes the files on disk with it.
    doomed = {entry.name for entry in plan.finish if entry.state != "adopting"}
    for name, sidecar in sidecars.items():
        if name not in served | doomed:
            check_adoptable(paths, found, sidecar, boot_id)
            plan.adopt.append(judged(settings, sidecar, sidecars, plan.complaints))
    present = {s.name: s.size for s in sidecars.values() if s.name not in doomed}
    plan.create += missing(settings, present)
    plan.complaints += check_sizes(settings, present)
    if plan.is_first:
        # Else only the device itself is not served, see opening.create_new().
        for spec in plan.create:
            if spec.name not in doomed:
                check_unclaimed(paths.disk_file(spec.name), spec.size)
    return plan


# --- one device ---


def sidecar_of(
    paths: InstancePaths, arena: str, entry: Entry, sidecars: dict[str, Sidecar]
) -> Sidecar:
    """Of a device in shared memory."""
    path = paths.sidecar(entry.name)
    sidecar = sidecars.get(entry.name)
    if sidecar is None:
        raise RefusedError(
            f"{path} is missing, although shared memory holds the device {entry.name}:"
            f" {DISCARD_HINT}"
        )
    if (sidecar.type, sidecar.size, sidecar.arena) != (entry.type, entry.size, arena):
        raise RefusedError(
            f"{path} does not belong to the device {entry.name} in shared memory: {DISCARD_HINT}"
        )
    check_map(paths.map(entry.name), entry.size)
    # A kill in the middle of a mark leaves the arena one token behind.
    known = {sidecar.token} if sidecar.clean else {sidecar.token, sidecar.prev}
    if not sidecar.is_of_older_release and entry.token not in known:
        raise RefusedError(
            f"{path} is older than the device {entry.name} in shared memory: put the newer one"
            f" back; {DISCARD_HINT}"
        )
    return sidecar


def check_adoptable(
    paths: InstancePaths, found: Found | None, sidecar: Sidecar, boot_id: str
) -> None:
    """Its pages in memory must have gone with a reboot of the host, not otherwise."""
    is_dirty = sidecar.tmem_dirty and not sidecar.clean
    is_elsewhere = found is None or sidecar.arena != found.arena
    if is_dirty and sidecar.boot_id == boot_id and is_elsewhere:
        what = "is missing" if found is None else "is another arena"
        raise RefusedError(
            f"the pages of {sidecar.name} that were in shared memory are gone ({paths.arena}"
            f" {what}): {DISCARD_HINT}"
        )


def judged(
    settings: Settings, sidecar: Sidecar, sidecars: dict[str, Sidecar], complaints: list[str]
) -> Judged:
    """Rules K5 and K6 of docs/concurrency.md."""
    paths = settings.paths
    path = paths.disk_file(sidecar.name)
    found = look_at(path, sidecar.size)
    if sidecar.is_of_older_release:
        return Judged(sidecar, found, holds=False, was_touched=False, is_accepted=False)
    known = {sidecar.token, None} if sidecar.clean else {sidecar.token, sidecar.prev, None}
    is_another = found.inode != sidecar.inode or found.token not in known
    for other in sidecars.values():
        if other is not sidecar and found.token and found.token in (other.token, other.prev):
            raise RefusedError(
                f"{path} is the disk file of {other.name}, not that of {sidecar.name}: put it back"
            )
    if is_another and not settings.accept_moved:
        raise RefusedError(
            f"{path} is not the disk file that {sidecar.name} had: put that one back; after a move"
            " on purpose, --accept-moved takes this one"
        )
    was_touched = sidecar.clean and found.ctime != sidecar.ctime
    is_accepted = settings.accept_moved and (is_another or was_touched)
    is_evident = found.tells_changes or is_accepted
    is_whole = sidecar.clean and has_map(paths, sidecar, complaints)
    return Judged(sidecar, found, is_whole and is_evident, was_touched, is_accepted)


def look_at(path: Path, size: int) -> Identity:
    check_disk_file(path, size)
    try:
        return identity_of(path, size)
    except OSError as error:
        raise RefusedError(f"the disk file {path} cannot be read: {error.strerror}") from None


def has_map(paths: InstancePaths, sidecar: Sidecar, complaints: list[str]) -> bool:
    path = paths.saved_map(sidecar.name)
    if holds(path, sidecar.size // PAGE_SIZE, sidecar.map):
        return True
    complaints.append(
        f"{path} is damaged or missing: after a reboot of the host, reads of the pages of"
        f" {sidecar.name} fail until they are written or trimmed"
    )
    return False


# --- what the configuration adds ---


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
