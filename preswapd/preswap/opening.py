# SPDX-License-Identifier: BSD-3-Clause
"""From what lies in shared memory and on disk to served devices: docs/concurrency.md, Recovery."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from preswapd.api.kinds import LARGEST_POOL
from preswapd.errors import RefusedError
from preswapd.host.cgroups import memory_files
from preswapd.host.filesystems import is_there
from preswapd.host.kernel import boot_id
from preswapd.host.meminfo import default_reserve
from preswapd.paths import InstancePaths
from preswapd.preswap.births import MOST_AT_ONCE, create_all
from preswapd.preswap.creation import Maker, Served, reason_of
from preswapd.preswap.device._table import Table, recover
from preswapd.preswap.files.disk_file import remove_disk_file
from preswapd.preswap.files.durable import FRESH, sync_directory
from preswapd.preswap.files.identity import new_token
from preswapd.preswap.files.making import Making, make_files
from preswapd.preswap.files.removing import remove_state
from preswapd.preswap.files.sidecar import Sidecar, read_all
from preswapd.preswap.footprint import shm_reserve
from preswapd.preswap.record import dirty
from preswapd.preswap.serving import Refused, all_refused, complaint, serve_all
from preswapd.preswap.settings import Settings
from preswapd.preswap.survey import WITNESS, Found, Judged, Plan, missing, survey
from preswapd.tmem._tmem import Host
from preswapd.units import PAGE_SIZE, exact_size

if TYPE_CHECKING:
    from preswapd.remote._remote import Remote

# All devices of an instance share its one pool, as swap types do in the kernel's preswap.
POOL = 0


@dataclass(frozen=True)
class Recovery:
    """What a start found of the process before it."""

    stored_pages: int = 0
    damaged_slots: int = 0
    lost_pages: int = 0
    seconds: float = 0.0


@dataclass
class Opened:
    """What an instance is made of."""

    host: Host
    maker: Maker
    served: dict[str, Served]
    refused: dict[str, Refused]
    recovery: Recovery
    complaints: list[str]


def check(settings: Settings) -> None:
    """Refuses what open_instance() would refuse; changes nothing.  The locks are held."""
    if settings.pool_size > LARGEST_POOL:
        raise RefusedError(f"a pool must be at most {exact_size(LARGEST_POOL)}")
    if settings.discard_state:
        missing(settings, read_all(settings.paths.state_dir).read)
    else:
        plan_of(settings)


def plan_of(settings: Settings) -> Plan:
    if not is_there(settings.paths.arena):
        return survey(settings, None, boot_id())
    with closing(Host(settings.paths.arena, 0, create=False)) as host:
        return survey(settings, found_in(host), boot_id())


def found_in(host: Host) -> Found:
    return Found(host.uuid, host.boot_id, Table(host).entries())


def open_instance(settings: Settings, remote: "Remote | None" = None) -> Opened:
    """RefusedError and its kin when it must not start."""
    if settings.discard_state:
        discard(settings)
    begun = time.monotonic()
    is_new = not is_there(settings.paths.arena)
    # A start that is refused makes no arena.
    plan = survey(settings, None, boot_id()) if is_new else None
    with cleaned_up(open_host(settings, create=is_new)) as host:
        plan = plan or survey(settings, found_in(host), boot_id())
        table = Table(host)
        table.prepare()
        in_memory = [entry for entry, _ in plan.keep] + plan.refused_in_memory
        found = {} if is_new else recover(host, POOL, in_memory)
        open_pool(host)
        maker = Maker(host, table, POOL, settings.paths, boot_id(), remote)
        finish(maker, plan)
        keep = [(entry.name, (entry, judged)) for entry, judged in plan.keep]
        devices = serve_all(lambda one: maker.keep(*one), keep, plan.refused)
        # Nobody could ask it of one that is refused: a later start has to miss it, too.
        if not plan.has_witness and not plan.refused:
            with suppress(OSError):  # without room for it older releases are told by their maps
                table.add(WITNESS, PAGE_SIZE, "adopting")
        recovery = Recovery(
            found.get("stored_pages", 0),
            found.get("damaged_slots", 0),
            sum(int(made.device.stats()["lost_pages"]) for made in devices),
            time.monotonic() - begun,
        )
        adopt = [(judged.sidecar.name, judged) for judged in plan.adopt]
        devices += serve_all(maker.adopt, adopt, plan.refused)
        if plan.refused and not devices:
            raise next(iter(plan.refused.values()))
        complaints = complaints_of(plan, devices)
        complaints += create_new(maker, plan, settings, devices)
        served = {made.device.name: made for made in devices}
        refused = all_refused(settings.paths, plan.refused)
        return Opened(host, maker, served, refused, recovery, complaints)


def finish(maker: Maker, plan: Plan) -> None:
    """What was interrupted."""
    for entry in plan.finish:
        maker.finish(entry)
    for name in plan.removed:
        remove_state(maker.paths, name)


# --- complaints ---


def complaints_of(plan: Plan, devices: Sequence[Served]) -> list[str]:
    return [
        *(complaint(name, error) for name, error in plan.refused.items()),
        *plan.complaints,
        *unsaved(plan),
        *unnoticeable(plan),
        *(made.complaint for made in devices if made.complaint),
    ]


def adopted(plan: Plan) -> list[Judged]:
    return [judged for judged in plan.adopt if judged.sidecar.name not in plan.refused]


def unsaved(plan: Plan) -> list[str]:
    """What was discarded is of no boot, and not complained of."""
    return [
        lost_in_restore(judged.sidecar.name)
        if judged.sidecar.restore
        else lost_in_reboot(judged.sidecar.name)
        for judged in adopted(plan)
        if not judged.sidecar.clean and judged.sidecar.boot_id
    ]


def lost_in_restore(name: str) -> str:
    return f"a restore of {name} was interrupted: none of its pages is known, restore it again"


def lost_in_reboot(name: str) -> str:
    return (
        f"the pages of {name} were not saved before the host's reboot: reads fail until they are"
        " written or trimmed"
    )


def unnoticeable(plan: Plan) -> list[str]:
    """Saved, and not believed, as it may be of another disk."""
    return [
        f"{judged.sidecar.name} is on a block device that bore no token, so that another one would"
        " not be noticed: reads of its pages fail until they are written or trimmed"
        f"{longer(judged)}"
        for judged in adopted(plan)
        if judged.sidecar.clean and not judged.is_evident
    ]


def longer(judged: Judged) -> str:
    if judged.identity.token is not None:  # it is by now
        return ""
    return (
        f"; there must be room for one behind its {judged.sidecar.size} bytes: make it 4096 bytes"
        " longer while no server runs, and start that once with --accept-moved, to keep them over"
        " the next reboot"
    )


# --- what the configuration adds ---


def create_new(maker: Maker, plan: Plan, settings: Settings, devices: list[Served]) -> list[str]:
    """Adds the devices that are new; complaints of those that cannot be made.

    Guests that swap already must not lose their disks because another one is missing.  At a
    first start nobody does, and it is refused.
    """
    complaints = []
    for made in create_all(maker, plan.create, settings.compress):
        if isinstance(made, Served):
            devices.append(made)
        elif plan.is_first:
            raise made
        else:
            complaints.append(f"{made}; the other devices are served")
    return complaints


@contextmanager
def cleaned_up(host: Host) -> Iterator[Host]:
    try:
        yield host
    except BaseException as error:
        host.close()
        if isinstance(error, OSError | MemoryError):
            raise RefusedError(f"the instance cannot be opened: {reason_of(error)}") from None
        raise


def open_host(settings: Settings, *, create: bool) -> Host:
    path = settings.paths.arena
    reserve = settings.host_reserve
    try:
        return Host(
            path,
            settings.pool_size,
            create=create,
            boot_id=boot_id(),
            host_reserve=default_reserve() if reserve is None else reserve,
            shm_reserve=shm_reserve(settings),
            cgroup_files=memory_files(),
        )
    except OSError as error:
        raise RefusedError(f"the arena {path} cannot be made: {error.strerror}") from None


def open_pool(host: Host) -> None:
    if not host.has_pool(POOL):
        host.new_pool()


def discard(settings: Settings) -> None:
    """Shared memory first: a kill before the end leaves devices that refuse to be served."""
    paths = settings.paths
    paths.arena.unlink(missing_ok=True)
    for name in os.listdir(paths.shm_dir):
        if name.endswith((".map", FRESH)):
            (paths.shm_dir / name).unlink(missing_ok=True)
    sidecars = read_all(paths.state_dir)
    for name in sidecars.refused:
        paths.sidecar(name).unlink()
    known = []
    for name, sidecar in sidecars.read.items():
        if sidecar.removed:
            remove_state(paths, name)
        else:
            known.append(sidecar)
    for at in range(0, len(known), MOST_AT_ONCE):
        renew(paths, known[at : at + MOST_AT_ONCE])
    sync_directory(paths.state_dir)
    names = {sidecar.name for sidecar in known}
    for spec in settings.devices:
        if spec.name not in names:
            remove_disk_file(paths.disk_file(spec.name))


def renew(paths: InstancePaths, sidecars: Sequence[Sidecar]) -> None:
    """As they were born; of another boot, so that the next start finds no memory missing."""
    makings = []
    for old in sidecars:
        remove_disk_file(paths.disk_file(old.name))
        token = new_token()
        makings.append(Making(paths, replace(dirty(old.settled(), token), prev=token, boot_id="")))
    make_files(makings)
    for making in makings:
        if making.error is not None:
            raise making.error
