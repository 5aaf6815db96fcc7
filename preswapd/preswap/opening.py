# SPDX-License-Identifier: BSD-3-Clause
"""From what lies in shared memory and on disk to served devices: docs/concurrency.md, Recovery."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace

from preswapd.api.kinds import LARGEST_POOL
from preswapd.errors import RefusedError
from preswapd.host.cgroups import memory_files
from preswapd.host.kernel import boot_id
from preswapd.host.meminfo import MEMINFO, amounts
from preswapd.paths import InstancePaths
from preswapd.preswap.adopting import adopt_all
from preswapd.preswap.creation import Maker, Served, reason_of
from preswapd.preswap.device._table import Table, recover
from preswapd.preswap.files.disk_file import create_disk_file, remove_disk_file
from preswapd.preswap.files.durable import sync_directory
from preswapd.preswap.files.header import swap_header
from preswapd.preswap.files.identity import new_token
from preswapd.preswap.files.sidecar import SUFFIX, Sidecar
from preswapd.preswap.files.zone import zone
from preswapd.preswap.footprint import shm_reserve
from preswapd.preswap.record import dirty
from preswapd.preswap.settings import Settings
from preswapd.preswap.survey import WITNESS, Found, Plan, check_sizes, survey
from preswapd.tmem._tmem import Host
from preswapd.units import PAGE_SIZE, exact_size

# All devices of an instance share its one pool, as swap types do in the kernel's preswap.
POOL = 0
SMALLEST_RESERVE = 512 << 20


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
    recovery: Recovery
    complaints: list[str]


def check(settings: Settings) -> None:
    """Refuses what open_instance() would refuse; changes nothing.  The locks are held."""
    if settings.pool_size > LARGEST_POOL:
        raise RefusedError(f"a pool must be at most {exact_size(LARGEST_POOL)}")
    if settings.discard_state:
        check_sizes(settings, sizes_that_stay(settings))
    else:
        plan_of(settings)


def sizes_that_stay(settings: Settings) -> dict[str, int]:
    """Of the devices that outlive --discard-state: those with a sidecar that can be read."""
    sizes = {}
    for path in settings.paths.state_dir.glob(f"*{SUFFIX}"):
        with suppress(RefusedError):
            sidecar = Sidecar.read(path)
            sizes[sidecar.name] = sidecar.size
    return sizes


def plan_of(settings: Settings) -> Plan:
    if not settings.paths.arena.exists():
        return survey(settings, None, boot_id())
    with closing(Host(settings.paths.arena, 0, create=False)) as host:
        return survey(settings, found_in(host), boot_id())


def found_in(host: Host) -> Found:
    return Found(host.uuid, host.boot_id, Table(host).entries())


def open_instance(settings: Settings) -> Opened:
    """RefusedError and its kin when it must not start."""
    if settings.discard_state:
        discard(settings)
    begun = time.monotonic()
    is_new = not settings.paths.arena.exists()
    # A start that is refused makes no arena.
    plan = survey(settings, None, boot_id()) if is_new else None
    with cleaned_up(open_host(settings, create=is_new)) as host:
        plan = plan or survey(settings, found_in(host), boot_id())
        table = Table(host)
        table.prepare()
        found = {} if is_new else recover(host, POOL, [entry for entry, _ in plan.keep])
        open_pool(host)
        maker = Maker(host, table, POOL, settings.paths, boot_id())
        for entry in plan.finish:
            maker.finish(entry)
        devices = [maker.keep(entry, judged) for entry, judged in plan.keep]
        if not plan.has_witness:
            with suppress(OSError):  # without room for it older releases are told by their maps
                table.add(WITNESS, PAGE_SIZE, "adopting")
        recovery = Recovery(
            found.get("stored_pages", 0),
            found.get("damaged_slots", 0),
            sum(int(made.device.stats()["lost_pages"]) for made in devices),
            time.monotonic() - begun,
        )
        complaints = plan.complaints + forgotten(plan)
        adopt_all(maker.adopt, plan.adopt, devices, complaints)
        complaints += [made.complaint for made in devices if made.complaint]
        complaints += create_new(maker, plan, settings, devices)
        return Opened(
            host, maker, {made.device.name: made for made in devices}, recovery, complaints
        )


def forgotten(plan: Plan) -> list[str]:
    """What was discarded is of no boot, and not complained of."""
    return [
        f"the pages of {judged.sidecar.name} were not saved before the host's reboot: reads fail"
        " until they are written or trimmed"
        for judged in plan.adopt
        if not judged.sidecar.clean and judged.sidecar.boot_id
    ] + [
        f"{judged.sidecar.name} is on a block device without room behind its {judged.sidecar.size}"
        " bytes, so that another one would not be noticed: reads of its pages fail until they are"
        " written or trimmed; make it 4096 bytes longer while no server runs, and start that once"
        " with --accept-moved, to keep them over the next reboot"
        for judged in plan.adopt
        if judged.sidecar.clean and not judged.is_accepted and not judged.identity.tells_changes
    ]


def create_new(maker: Maker, plan: Plan, settings: Settings, devices: list[Served]) -> list[str]:
    """Adds the devices that are new; complaints of those that cannot be made.

    Guests that swap already must not lose their disks because another one is missing.  At a
    first start nobody does, and it is refused.
    """
    complaints = []
    for spec in plan.create:
        try:
            devices.append(maker.create(spec, spec.compress or settings.compress))
        except RefusedError as error:
            if plan.is_first:
                raise
            complaints.append(f"{error}; the other devices are served")
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


def default_reserve() -> int:
    """5 % of the host's memory, at least 512 MiB."""
    return max(amounts(MEMINFO.read_text()).get("MemTotal", 0) // 20, SMALLEST_RESERVE)


def open_pool(host: Host) -> None:
    if not host.has_pool(POOL):
        host.new_pool()


def discard(settings: Settings) -> None:
    """Shared memory first: a kill before the end leaves devices that refuse to be served."""
    paths = settings.paths
    for path in (paths.arena, *paths.shm_dir.glob("*.map"), *paths.shm_dir.glob("*.new")):
        path.unlink(missing_ok=True)
    for path in sorted(paths.state_dir.glob(f"*{SUFFIX}")):
        try:
            sidecar = Sidecar.read(path)
        except RefusedError:
            path.unlink()
            continue
        renew(paths, sidecar)
    sync_directory(paths.state_dir)
    known = {path.with_suffix(".img") for path in paths.state_dir.glob(f"*{SUFFIX}")}
    for spec in settings.devices:
        if paths.disk_file(spec.name) not in known:
            remove_disk_file(paths.disk_file(spec.name))


def renew(paths: InstancePaths, old: Sidecar) -> None:
    """As it was born; of another boot, so that the next start finds no memory missing."""
    path, token = paths.disk_file(old.name), new_token()
    remove_disk_file(path)
    header, places = swap_header(old.name, old.size), zone(old.size // PAGE_SIZE)
    inode = create_disk_file(path, old.size, header, places, token)
    fresh = replace(dirty(old, token), prev=token, inode=inode, boot_id="")
    fresh.write(paths.sidecar(old.name))
