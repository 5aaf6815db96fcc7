# SPDX-License-Identifier: BSD-3-Clause
"""What a start finds, and what it does with each device; or why it must not start.

Changes nothing, so that `preswapd serve` can refuse before it becomes nbdkit.  Serving zeros, or
another disk file, for pages that a guest still needs would corrupt it: a device whose files do not
fit together is not served.  The others are; where there are none, the start is refused.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from preswapd.errors import RefusedError
from preswapd.paths import InstancePaths
from preswapd.preswap.device._table import Entry
from preswapd.preswap.files.disk_file import check_disk_file, check_unclaimed
from preswapd.preswap.files.identity import Identity, identity_of
from preswapd.preswap.files.maps import check_map
from preswapd.preswap.files.saved_map import holds
from preswapd.preswap.files.sidecar import Sidecar, Sidecars, read_all
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
DISCARD_HINT = "--discard-state starts empty with all devices, if no guest needs its pages any more"


class MemoryGoneError(RefusedError):
    """Not one device is at fault, but the memory of all."""


class Found(NamedTuple):
    """What shared memory holds: the arena's identity and its table."""

    arena: str
    boot_id: str
    entries: Sequence[Entry]


class Judged(NamedTuple):
    """A sidecar, and what the disk file beside it looks like.

    `holds`: the saved map is that of a clean stop.  `was_touched`: the disk file has changed since.
    `is_accepted`: it is not as the sidecar has it, and to be believed all the same.
    `lost_map`: that file should hold the map, and does not.
    `was_handed_back`: an older release may have served it since its sidecar was written.
    """

    sidecar: Sidecar
    identity: Identity
    holds: bool = False
    was_touched: bool = False
    is_accepted: bool = False
    lost_map: bool = False
    was_handed_back: bool = False

    @property
    def pages(self) -> int:
        return self.sidecar.size // PAGE_SIZE

    @property
    def is_believed(self) -> bool:
        return self.holds and (self.is_accepted or not self.was_touched)

    @property
    def is_evident(self) -> bool:
        """Another disk file would have been noticed, or it is the right one by an operator's
        word."""
        return self.identity.tells_changes or self.is_accepted


@dataclass
class Plan:
    """What becomes of each device."""

    # Served when the process before this one ended, on the same boot.
    keep: list[tuple[Entry, Judged]] = field(default_factory=list)
    finish: list[Entry] = field(default_factory=list)  # what a kill interrupted
    removed: list[str] = field(default_factory=list)  # what a power cut interrupted
    adopt: list[Judged] = field(default_factory=list)  # known on disk, not in shared memory
    create: list[DeviceSpec] = field(default_factory=list)
    refused: dict[str, RefusedError] = field(default_factory=dict)
    refused_in_memory: list[Entry] = field(default_factory=list)  # their pages stay there
    complaints: list[str] = field(default_factory=list)
    has_witness: bool = False

    @property
    def is_first(self) -> bool:
        """No guest has a device here yet."""
        return not self.keep and not self.adopt


def survey(settings: Settings, found: Found | None, boot_id: str) -> Plan:
    """RefusedError when the state on disk and in shared memory must not be served."""
    sidecars = read_all(settings.paths.state_dir)
    if found is not None and found.boot_id != boot_id:
        raise RefusedError(
            f"the arena {settings.paths.arena} is from an earlier boot of this host: if the files"
            f" of {settings.paths.arena.parent} are removed, as a reboot does, what was synced is"
            f" served; {DISCARD_HINT}"
        )
    plan = Plan()
    if found is not None:
        look_at_memory(plan, settings, found, sidecars)
    # Finishing a creation or removal takes the files on disk with it.
    doomed = {entry.name for entry in plan.finish if entry.state != "adopting"}
    look_at_disk(plan, settings, found, boot_id, sidecars, doomed)
    if plan.refused and plan.is_first:
        raise next(iter(plan.refused.values()))
    present = {judged.sidecar.name: judged.sidecar.size for judged in judged_of(plan)}
    taken = {*present, *plan.refused}
    plan.create += missing(settings, taken)
    plan.complaints += [
        f"{settings.paths.saved_map(judged.sidecar.name)} is damaged or missing: after a reboot of"
        f" the host, reads of the pages of {judged.sidecar.name} fail until they are written or"
        " trimmed"
        for judged in judged_of(plan)
        if judged.lost_map
    ]
    plan.complaints += other_sizes(settings, present) + left_out(settings, taken)
    if plan.is_first:
        # Else only the device itself is not served, see opening.create_new().
        for spec in plan.create:
            if spec.name not in doomed | set(plan.removed):
                check_unclaimed(settings.paths.disk_file(spec.name), spec.size)
    return plan


def look_at_memory(plan: Plan, settings: Settings, found: Found, sidecars: Sidecars) -> None:
    plan.has_witness = any(entry.name == WITNESS for entry in found.entries)
    for entry in found.entries:
        if entry.state == "served":
            try:
                sidecar = sidecar_of(settings.paths, found.arena, entry, sidecars)
                one = judged(settings, sidecar, sidecars)
                if settings.refuse_touched and one.was_touched and not one.is_accepted:
                    raise touched(settings, sidecar)
            except RefusedError as error:
                plan.refused[entry.name] = error
                plan.refused_in_memory.append(entry)
            else:
                plan.keep.append((entry, one._replace(was_handed_back=not plan.has_witness)))
        elif entry.name != WITNESS:
            plan.finish.append(entry)


def look_at_disk(
    plan: Plan,
    settings: Settings,
    found: Found | None,
    boot_id: str,
    sidecars: Sidecars,
    doomed: set[str],
) -> None:
    """What shared memory does not know."""
    known = {entry.name for entry, _ in plan.keep} | set(plan.refused) | doomed
    for name, error in sidecars.refused.items():
        if name not in known:
            plan.refused[name] = error
    for name, sidecar in sidecars.read.items():
        if name in known:
            continue
        if sidecar.removed:
            plan.removed.append(name)
            continue
        try:
            check_adoptable(settings.paths, found, sidecar, boot_id)
            plan.adopt.append(judged(settings, sidecar, sidecars))
        except MemoryGoneError:
            raise
        except RefusedError as error:
            plan.refused[name] = error


def judged_of(plan: Plan) -> list[Judged]:
    return [*(judged for _, judged in plan.keep), *plan.adopt]


# --- one device ---


def sidecar_of(paths: InstancePaths, arena: str, entry: Entry, sidecars: Sidecars) -> Sidecar:
    """Of a device in shared memory."""
    path = paths.sidecar(entry.name)
    if entry.name in sidecars.refused:
        raise sidecars.refused[entry.name]
    sidecar = sidecars.read.get(entry.name)
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
    # A removal changes its entry first: whatever says so here came from hands.
    return replace(sidecar, removed=False)


def check_adoptable(
    paths: InstancePaths, found: Found | None, sidecar: Sidecar, boot_id: str
) -> None:
    """Its pages in memory must have gone with a reboot of the host, not otherwise."""
    is_dirty = sidecar.tmem_dirty and not sidecar.clean
    is_elsewhere = found is None or sidecar.arena != found.arena
    if is_dirty and sidecar.boot_id == boot_id and is_elsewhere:
        what = "is missing" if found is None else "is another arena"
        kind = MemoryGoneError if found is None else RefusedError
        raise kind(
            f"the pages of {sidecar.name} that were in shared memory are gone ({paths.arena}"
            f" {what}): {DISCARD_HINT}"
        )


def judged(settings: Settings, sidecar: Sidecar, sidecars: Sidecars) -> Judged:
    """Rules K5 and K6 of docs/concurrency.md."""
    found = look_at(settings.paths.disk_file(sidecar.name), sidecar.size)
    if sidecar.is_of_older_release:
        return Judged(sidecar, found)
    fits = is_the_one(sidecar, found)
    check_whose(settings, sidecar, found, sidecars, fits)
    was_touched = sidecar.clean and found.ctime != sidecar.ctime
    is_accepted = settings.accept_moved and (not fits or was_touched)
    one = Judged(sidecar, found, was_touched=was_touched, is_accepted=is_accepted)
    if not sidecar.clean:
        return one
    has_map = holds(settings.paths.saved_map(sidecar.name), one.pages, sidecar.map)
    return one._replace(holds=has_map and one.is_evident, lost_map=not has_map)


def look_at(path: Path, size: int) -> Identity:
    check_disk_file(path, size)
    try:
        return identity_of(path, size)
    except OSError as error:
        raise RefusedError(f"the disk file {path} cannot be read: {error.strerror}") from None


def is_the_one(sidecar: Sidecar, found: Identity) -> bool:
    known = {sidecar.token, None} if sidecar.clean else {sidecar.token, sidecar.prev, None}
    if sidecar.bare and sidecar.inode:
        # There was no room for a token, or no attributes, and there is now.
        known.add(0)
    return found.inode == sidecar.inode and found.token in known


def check_whose(
    settings: Settings, sidecar: Sidecar, found: Identity, sidecars: Sidecars, fits: bool
) -> None:
    path = settings.paths.disk_file(sidecar.name)
    for other in sidecars.read.values():
        if other.name != sidecar.name and found.token and found.token in (other.token, other.prev):
            raise RefusedError(
                f"{path} is the disk file of {other.name}, not that of {sidecar.name}: put it back"
            )
    if not fits and not settings.accept_moved:
        raise RefusedError(
            f"{path} is not the disk file that {sidecar.name} had: put that one back; after a move"
            " on purpose, --accept-moved takes this one"
        )


def touched(settings: Settings, sidecar: Sidecar) -> RefusedError:
    """Of a start that serves nobody, and would change what an operator may still accept."""
    return RefusedError(
        f"{settings.paths.disk_file(sidecar.name)} was changed while no server ran, and a sync"
        " would give up what is in it: if it was only given another owner or mode, say, run this"
        " again with --accept-moved; otherwise start the server, which gives it up"
    )


# --- what the configuration adds ---


def missing(settings: Settings, taken: Collection[str]) -> list[DeviceSpec]:
    """Configured devices that are not there yet, as many as there is room for."""
    wanted = [spec for spec in settings.devices if spec.name not in taken]
    if not taken:
        check_number_of_devices(len(wanted))
    return wanted[: max(0, MOST_DEVICES - len(taken))]


# Complaints of devices that are not served as they are configured: guests swap to them, and a
# mistake in a file must not keep them from their disks.


def other_sizes(settings: Settings, present: Mapping[str, int]) -> list[str]:
    operator = settings.operator
    return [
        f"the device {spec.name} has {exact_size(size)} and is served with that, although the"
        f" configuration says {exact_size(spec.size)}: write {exact_size(size)} there, or swapoff"
        f" in the guest, detach the disk, `{operator} remove {spec.name}`, and `{operator}"
        f" create {spec.name} {exact_size(spec.size)}`"
        for spec in settings.devices
        for size in [present.get(spec.name, spec.size)]
        if size != spec.size
    ]


def left_out(settings: Settings, taken: Collection[str]) -> list[str]:
    more = [spec.name for spec in settings.devices if spec.name not in taken]
    names = more[len(missing(settings, taken)) :]
    if not names:
        return []
    return [
        f"an instance can have at most {MOST_DEVICES} devices: {', '.join(names)}"
        f" {'is' if len(names) == 1 else 'are'} not served; take what is not needed out of"
        f" the configuration, or `{settings.operator} remove` it"
    ]
