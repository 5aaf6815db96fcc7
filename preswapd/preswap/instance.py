# SPDX-License-Identifier: BSD-3-Clause
"""One instance: a tmem host, its devices, and what an operator does with them."""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, cast

from preswapd.api.figures import DeviceFigures, Statistics, TmemFigures
from preswapd.api.kinds import check_compress, check_device_size
from preswapd.api.messages import (
    AGES,
    AWAITED,
    Advice,
    Age,
    Parked,
    PullStatus,
    ShrinkProgress,
    ShrinkResult,
    SwapoffResult,
)
from preswapd.api.settings import GOVERNED_LIMIT, POOL_LIMIT, QUOTA
from preswapd.errors import RefusedError, with_place
from preswapd.log import ERROR, INFO, NOTICE, WARNING, Log
from preswapd.paths import check_device_name
from preswapd.preswap.activity import Activity
from preswapd.preswap.advising import Advising
from preswapd.preswap.ages import Ages
from preswapd.preswap.births import create
from preswapd.preswap.clients import Clients
from preswapd.preswap.creation import Served
from preswapd.preswap.device._device import Device, Epochs
from preswapd.preswap.files.header import swap_header
from preswapd.preswap.files.maps import PIECE_PAGES
from preswapd.preswap.footprint import check_shared_memory
from preswapd.preswap.maintenance import Maintenance
from preswapd.preswap.moving.moves import Moves, Source, announced
from preswapd.preswap.moving.origin import Origin, home_of
from preswapd.preswap.opening import POOL, open_instance
from preswapd.preswap.parking import Parking
from preswapd.preswap.recompression import Recompression
from preswapd.preswap.saves.transfers import Transfers
from preswapd.preswap.settings import (
    DeviceSpec,
    Settings,
    check_number_of_devices,
)
from preswapd.preswap.sysctl import Sysctl
from preswapd.preswap.writeback.fitting import Fitting
from preswapd.preswap.writeback.goals import (
    Goal,
    ToCgroup,
    ToDisk,
    ToIdle,
    ToPages,
    ToPoolLimit,
    ToQuota,
)
from preswapd.preswap.writeback.idle import Idle
from preswapd.preswap.writeback.moves import by_offset
from preswapd.preswap.writeback.room import Room
from preswapd.preswap.writeback.shrink import Shrink, Shrinks
from preswapd.units import PAGE_SIZE, exact_size, format_size
from preswapd.version import VERSION

if TYPE_CHECKING:
    from preswapd.remote._remote import Remote

# How long a clean stop waits for requests that wait for a slow disk.  A stop without them is as
# safe, but the device counts as dirty at the next start.
PARK_MILLISECONDS = 1000
# A sync tries that so often; in between those requests go on that waited.
PARKS = 10
# How long the compression waits for a page that it has to compress, which wakes it.
SETTLE_MILLISECONDS = 60000
# A runtime directory that is full is not tried at every turn.
KEEP_SECONDS = 2.0


class Change(NamedTuple):
    """A setting's new value, and the shrink that makes it true, where pages have to go."""

    value: int | str
    shrink: Shrink | None
    not_kept: str | None = None  # why it would end with this process


def moved_rest(device: Device) -> bool:
    """Moves to disk what a put brought into tmem that was under way when its device was held down.

    Whether it can; what cannot move is saved as not known.
    """
    for _, extent, most in by_offset([device]):
        if any(device.writeback(extent, most)[1:]):
            return False
    return True


def held_pages(figures: DeviceFigures) -> int:
    """All but page 0, which is always on disk, and which swapoff keeps."""
    pending = figures.get("pending_pages", 0)
    return max(0, figures["preswap_pages"] + figures["disk_pages"] + pending - 1)


class Instance:
    """The devices of one arena.

    `changes` keeps operators apart; requests of guests never wait for it.
    """

    def __init__(self, settings: Settings, log: Log, remote: "Remote | None" = None) -> None:
        opened = open_instance(settings, remote)
        self.name = settings.instance
        self.settings = settings
        self.log = log
        self.host = opened.host
        self.maker = opened.maker
        self.served = opened.served
        self.refused = opened.refused
        self.recovery = opened.recovery
        self.changes = threading.Lock()
        self.closing = threading.Lock()
        self.saving = threading.Lock()
        self.is_closed = False
        # Names that clients know something else by: no device gets one.
        self.reserved: Collection[str] = ()
        self.next_keeping = 0.0
        self.clients = Clients(settings.paths, self.served, log)
        self.parking = Parking(settings.paths, opened.host.boot_id, self.clients.silent, log)
        for complaint in opened.complaints:
            log(ERROR, complaint)
        self.sysctl = Sysctl(settings, opened.host, POOL, remote)
        for complaint in self.sysctl.restore(self.devices, self.refused):
            log(WARNING, complaint)
        self.transfers = Transfers(
            self.name,
            self.changes,
            self.saving,
            self.whole,
            self.is_awaited,
            log,
        )
        self.moves = Moves(self.served, self.resume, log)
        self.origin = Origin(
            self.served,
            home_of(settings),
            self.changes,
            self.transfers.what_is_done,
            self.resume,
            log,
        )
        for served in list(self.served.values()):
            self.moves.go_on(served)
        self.shrinks = Shrinks(opened.host, log)
        self.fitting = Fitting(self.shrinks, self.limits)
        self.maintenance = Maintenance(self.served, log)
        self.ages = Ages(self.epochs, self.all_devices)
        self.advising = Advising(self.maker.sampler, self.host, self.sysctl.policy)
        self.activity = Activity(self.host, self.all_devices)
        self.room = Room(
            self.host,
            self.epochs,
            self.sysctl.policy,
            self.all_devices,
            self.sysctl.quota_of,
            self.may_move,
            lambda: self.activity.is_over,
        )
        self.idle = Idle(self.epochs, self.sysctl.policy, self.all_devices, self.may_move)
        self.recompression = Recompression(
            self.host,
            self.sysctl.policy,
            self.all_devices,
            lambda: self.shrinks.under_way() is not None,
            self.activity.sleep,
        )

    # --- looking ---

    @property
    def devices(self) -> dict[str, Device]:
        """Those that are served at this moment, by name: a copy, as they come and go."""
        return {name: served.device for name, served in list(self.served.items())}

    @property
    def epochs(self) -> Epochs:
        return self.maker.epochs

    def all_devices(self) -> list[Device]:
        return list(self.devices.values())

    def pages_in_tmem(self, name: str | None = None) -> int:
        """Of one device, or of all."""
        return sum(
            device.preswap_pages for found, device in self.devices.items() if name in (None, found)
        )

    def pages_by_age(self, name: str | None = None, bounds: Sequence[float] = AGES) -> list[Age]:
        """How many pages in tmem no guest has used for how long, of one device or of all."""
        seconds = [float(bound) for bound in bounds]
        sums = [(0, 0)] * len(seconds)
        for device in self.chosen(name):
            with suppress(OSError):  # it is being removed
                sums = [
                    (pages + more, size + larger)
                    for (pages, size), (more, larger) in zip(
                        sums, device.ages(seconds), strict=True
                    )
                ]
        return [Age(bound, *found) for bound, found in zip(bounds, sums, strict=True)]

    def advise(self, name: str | None = None) -> Advice:
        """What the reads of one device say, or of all; the pool is that of all in either case."""
        return self.advising.advice(self.chosen(name))

    def stats(self) -> Statistics:
        """All but `server`, which is known to the process around it."""
        devices = self.devices
        figures = {name: device.stats() for name, device in devices.items()}
        for name, figure in figures.items():
            figure["held_pages"] = held_pages(figure)
            figure["awaited"] = self.is_awaited(name) and not figure["connections"]
            has_asked = devices[name].seconds_since_io is not None
            figure["away"] = 0.0 if has_asked else self.clients.away.get(name, 0.0)
            parked = self.parking.of(name)
            figure["parked"] = parked.left if parked else 0
        # tmem is below the API, and does not know its types.
        tmem = cast(TmemFigures, self.host.stats())
        tmem["metadata_size"] += sum(device.metadata_size() for device in devices.values())
        tmem["checksum_errors"] += sum(one["lost_reads"] for one in figures.values())
        tmem["governed"] = self.sysctl.is_governed
        tmem["frozen"] = self.sysctl.frozen
        for name, device in devices.items():
            status = self.moves.status(name)
            figures[name]["source"] = status.source if status else ""
            figures[name]["guest"] = device.guest
            figures[name]["quota"] = min(device.pages, self.sysctl.quota_of(device))
        return {
            "version": VERSION,
            "instance": self.name,
            "page_size": PAGE_SIZE,
            "tmem": tmem,
            "devices": figures,
            "refused": {name: refused.why for name, refused in self.refused.items()},
            "sysctl": self.sysctl.values(devices),
        }

    # --- devices come and go ---

    def create(
        self,
        name: str,
        size: int,
        compress: str | None = None,
        *,
        source: str | None = None,
        force: bool = False,
    ) -> None:
        """UsageError for a bad value, RefusedError when it cannot be made.

        With a source, the NBD URI of another host's device, its pages are those, and a device that
        is there is made anew, unless it has a client (`force`: that may be coming back); it keeps
        its settings, but for a compression that is named.
        """
        check_device_name(name)
        check_device_size(size)
        codec = check_compress(compress or self.settings.compress)
        announcement = announced(source, size) if source is not None else None
        with self.changes:
            is_new = announcement is None or name not in self.served
            if is_new:
                self.make(name, size, codec)
            try:
                if announcement is not None:
                    named = None if is_new else compress
                    self.make_anew(name, size, announcement, named, force)
            except RefusedError:
                if is_new:
                    self.take_away(self.served[name])
                raise
        self.log(INFO, f"created device {name} of {format_size(size)}")

    def make_anew(
        self, name: str, size: int, source: Source, compress: str | None, force: bool
    ) -> None:
        served = self.unused(name, force)
        if served.device.connections:
            raise RefusedError(f"a client is connected to {name}: detach it first")
        if served.device.size != size:
            raise RefusedError(
                f"there is a device {name} of {exact_size(served.device.size)} already"
            )
        # Before its next client comes.
        self.forget_clients(name)
        try:
            if compress:
                self.set_compress(served, compress)
            self.moves.arrive(served, source)
        except OSError as error:
            raise RefusedError(f"{name} cannot be made anew: {error.strerror}") from None

    def set_compress(self, served: Served, codec: str) -> None:
        """OSError: it is what it was."""
        served.record.note(compress=codec)
        served.device.configured_compress = codec
        self.sysctl.set_compress(served.device, codec)

    def make(self, name: str, size: int, codec: str) -> None:
        self.check_not_refused(name)
        if name in self.served:
            raise RefusedError(f"there is a device {name} already")
        if name in self.reserved:
            raise RefusedError(f"{name} is an image's name already: choose another")
        check_number_of_devices(len(self.served) + len(self.refused) + 1)
        check_shared_memory(self.settings, name, size)
        served = create(self.maker, DeviceSpec(name, size), codec)
        self.sysctl.keep_quota(served.device)
        self.forget_clients(name)
        self.served[name] = served

    def remove(self, name: str, *, force: bool = False) -> None:
        """Removes it with all its pages.  RefusedError with a client, see unused()."""
        with self.changes:
            served = self.unused(name, force)
            self.moves.drop(name)
            self.take_away(served)
        self.log(INFO, f"removed device {name}")

    def take_away(self, served: Served) -> None:
        name = served.device.name
        del self.served[name]
        try:
            self.maker.remove(served)
        finally:
            self.sysctl.forget(served.device)
            self.forget_clients(name)
        self.host.give_back()

    def mkswap(self, name: str, *, force: bool = False) -> None:
        """Writes a fresh swap header.  RefusedError with a client, see unused()."""
        with self.changes:
            served = self.unused(name, force)
            self.let_go(served)
            device = served.device
            device.write_page_zero(swap_header(name, device.size))
            device.forget()
        self.log(INFO, f"wrote a swap header to {name}")

    def unused(self, name: str, force: bool) -> Served:
        """RefusedError: there is none, or it is saved or restored; unless forced, also while a
        client is connected or may be coming back."""
        self.check_not_refused(name)
        served = self.served.get(name)
        if served is None:
            raise RefusedError(f"there is no device {name} any more")
        self.transfers.check_free(name)
        # In this order: one that only looks may leave between the two.
        is_awaited = self.is_awaited(name)
        if served.device.connections and not force:
            raise RefusedError(
                f"a client is connected to {name}: detach it first, or force it (--yes)"
            )
        if is_awaited and not force:
            raise RefusedError(f"{name}: {AWAITED}; if its guest has ended, force it (--force)")
        if served.device.guest == "gone" and not force:
            raise RefusedError(
                f"another host has taken {name}, and may still fetch its pages; if its guest has"
                " ended, force it (--force)"
            )
        return served

    def whole(self, name: str) -> Served:
        """One that is to be saved or restored: all of it is here, and nobody else's."""
        served = self.unused(name, force=True)
        self.moves.check_here(served)
        return served

    def let_go(self, served: Served) -> None:
        """Before its pages are dropped: nobody pulls them, or what follows them.  OSError."""
        self.moves.check_no_source(served)
        if served.device.guest == "gone":
            self.moves.release(served)
        elif served.device.life:
            served.device.life = 0
            served.record.change(life=0)
            served.device.note_marked()

    def forget_clients(self, name: str) -> None:
        self.clients.forget(name)
        self.parking.forget(name)

    def note_client(self, name: str, *, connected: bool) -> None:
        """A client of the device has come, or the last one has gone; one caller at a time.

        QEMU's connection ends with QEMU, or as its disk is taken away: that one is not parked.
        """
        served = self.served.get(name)
        if served is not None:
            self.note_asking(served.device)
        self.clients.note(name, connected=connected)
        if not connected and name not in self.clients.silent:
            self.parking.forget(name)

    def note_asking(self, device: Device) -> None:
        if device.is_asked:
            self.clients.has_asked(device.name)
        if device.seconds_since_io is not None:
            self.clients.goes_on(device.name)

    def is_awaited(self, name: str) -> bool:
        """The client that was connected when the server ended may be coming back; also where one is
        connected that has asked for nothing."""
        served = self.served.get(name)
        return name in self.clients.silent and not (served and served.device.is_asked)

    def park(self, name: str, parked: Parked | None) -> None:
        """Keeps what `preswapctl park` does to the device's virtual machine; None: it ended.

        RefusedError where it cannot be kept for the next start, or when there is no such device, or
        none that has it.
        """
        with self.changes:
            device = self.unused(name, force=True).device
            if parked is None:
                self.parking.forget(name)
                return
            self.parking.note(name, parked)
            # In this order: one that goes now finds the note, and takes it along.
            if not device.connections and name not in self.clients.silent:
                self.parking.forget(name)
                raise RefusedError(f"no client is connected to {name}")

    def check_not_refused(self, name: str) -> None:
        """RefusedError for one that is there, and is not served."""
        if name in self.refused:
            raise RefusedError(f"{name} is not served: {self.refused[name].why}")

    def swapoff(self, name: str) -> SwapoffResult:
        """Drops all pages but the scan zone's, in tmem and on disk: nothing is known of them.

        RefusedError when there is no such device any more; OSError when the disk fails: pages that
        were dropped stay dropped, blocks of the disk file come back later.
        """
        with self.changes:
            served = self.unused(name, force=True)
            device = served.device
            header = device.is_on_disk(0)
            result = SwapoffResult(
                device.preswap_pages, device.disk_pages - header, device.seconds_since_io
            )
            self.let_go(served)
            device.forget()
            device.punch()
            device.punch_unused()
            self.host.maintain(all=True)
        dropped = f"dropped {result.pages} pages in memory, {result.disk_pages} on disk"
        self.log(INFO, f"swapoff of {name}: {dropped}")
        return result

    def trim(self, name: str) -> int:
        """Pages of which nothing is known become zeros, as after a guest's trim: how many.

        Never a page that was lost.  RefusedError when there is no such device any more.
        """
        with self.changes:
            served = self.unused(name, force=True)
            if served.device.guest != "here":
                raise RefusedError(f"{name}: its guest is on another host")
            made = served.device.make_known()
        self.log(INFO, f"trim of {name}: {made} unknown pages are zeros now")
        return made

    def abandon(self, name: str) -> int:
        """Pages of it that are on another host are lost: how many."""
        with self.changes:
            lost = self.moves.abandon(self.unused(name, force=True))
        self.log(WARNING, f"{name}: {lost} pages on another host are given up")
        return lost

    def pull_status(self, name: str) -> PullStatus:
        """Also where there is none."""
        status = self.moves.status(name)
        return status or PullStatus("", taken=True, pending=0, fetched=0, complete=True)

    def set_pull_rate(self, name: str, rate: int) -> None:
        """Bytes a second, 0 without a limit, while this server runs."""
        if name in self.moves.pulls:
            self.moves.pulls[name].rate = rate

    # --- memory ---

    def begin_shrink(
        self,
        pages: int,
        name: str | None = None,
        *,
        progress: Callable[[ShrinkProgress], None] = lambda step: None,
    ) -> Shrink:
        """Begins to move pages to disk until `pages` are left, in one device or in all.

        Puts beyond that are rejected while it runs, so that it ends even under load.  Whoever asks
        it of all devices wants memory back: what only caches goes too, at once.  RefusedError while
        another that was asked for has not ended, or when there is no such device.
        """
        shrink = self.shrinks.begin(ToPages(self.sysctl, self.chosen(name), pages, name), progress)
        if name is None:
            self.host.evict_all()
        return shrink

    def shrink(
        self,
        pages: int,
        name: str | None = None,
        *,
        progress: Callable[[ShrinkProgress], None] = lambda step: None,
    ) -> ShrinkResult:
        """The same, and waits for its end."""
        return self.begin_shrink(pages, name, progress=progress).wait()

    def begin_idle_shrink(
        self,
        seconds: float,
        name: str | None = None,
        *,
        progress: Callable[[ShrinkProgress], None] = lambda step: None,
    ) -> Shrink:
        """Begins to move the pages to disk that no guest has used for so long.

        Puts go on.  RefusedError as in begin_shrink().
        """
        return self.shrinks.begin(ToIdle(self.chosen(name), seconds, name), progress)

    def begin_sync(self, name: str | None = None) -> Shrink:
        """Begins to move all pages to disk and to save the map, of one device or of all.

        What it has saved a reboot of the host does not lose.  Requests of guests are held up while
        a map is saved, and a guest's next change makes its device dirty again.
        """
        save = self.save_maps if name else self.save_all_maps
        return self.shrinks.begin(ToDisk(self.sysctl, self.chosen(name), name, save))

    def save_all_maps(self, devices: Sequence[Device], complete: bool) -> str | None:
        """The same of a sync of all devices, which those are not part of that are not served."""
        failure = self.save_maps(devices, complete)
        for name, refused in self.refused.items():
            failure = failure or f"{name} is not served: {refused.why}"
        return failure

    def save_maps(self, devices: Sequence[Device], complete: bool) -> str | None:
        """Of those that are served still.  Why one could not be saved, or None.

        complete: all pages have gone to disk, and those of puts that were under way follow them.
        """
        failure = None
        for device in devices:
            with self.changes:
                served = self.served.get(device.name)
                if served is not None and served.device is device:
                    failure = self.save_parked(served, complete) or failure
        return failure

    def save_parked(self, served: Served, can_move: bool) -> str | None:
        device = served.device
        if served.is_restoring:
            return f"{device.name}: it is being restored"
        for _ in range(PARKS):
            # Now: done a moment later, by itself, it would be a change and make the device dirty.
            with suppress(OSError):
                device.punch()
            try:
                device.sync()  # else requests would wait for most of it
                if device.park(PARK_MILLISECONDS) and not (can_move and device.preswap_pages):
                    self.save(served)
                    return None
            except OSError as error:
                return f"{device.name}: {error.strerror}"
            finally:
                self.resume(device)
            can_move = can_move and moved_rest(device)
        return f"{device.name}: its requests take too long"

    def resume(self, device: Device) -> None:
        with self.closing:
            if not self.is_closed:
                device.resume()

    def chosen(self, name: str | None) -> list[Device]:
        devices = self.devices
        if name is None:
            return list(devices.values())
        self.check_not_refused(name)
        if name not in devices:
            raise RefusedError(f"there is no device {name} any more")
        return [devices[name]]

    def set(self, key: str, value: str) -> Change:
        """Sets it and begins to make it true: pages above a limit move to disk, however many.

        UsageError for an unknown key or a bad value; nothing was changed then.
        """
        with self.changes:
            now = self.sysctl.set(key, value, self.devices)
            not_kept = self.sysctl.not_kept
            self.log(NOTICE, f"set {key} = {now}")
            if not_kept:
                self.log(
                    WARNING,
                    f"{key} is in force, and not kept for the next start: {not_kept}; it is tried"
                    " again until there is room",
                )
            shrink = self.fitting.fit(key)
            # Not before: what the shrink is asked to move it moves itself.
            self.activity.note()
            return Change(now, shrink, not_kept)

    def keep_settings(self) -> None:
        """What could not be kept when it was set, or was removed since."""
        now = time.monotonic()
        if now < self.next_keeping:
            return
        self.next_keeping = now + KEEP_SECONDS
        if self.sysctl.not_kept:
            self.activity.note()  # it is tried again, whatever happens
        # An operator's change may wait for a disk, and maintenance must not.
        if self.sysctl.is_kept() or not self.changes.acquire(blocking=False):
            return
        try:
            self.sysctl.keep()
        finally:
            self.changes.release()
        if self.sysctl.not_kept is None:
            self.log(NOTICE, "the settings are kept for the next start again")

    def limits(self) -> dict[str, Goal]:
        """What each limit asks of the pages that are there, by key."""
        quotas: dict[str, Goal] = {
            key: ToQuota(key, self.sysctl, device)
            for device in self.devices.values()
            for key in [QUOTA.sysctl_key(self.name, device.name)]
        }
        # Both are one limit: that of the pool has the key of the lower one.
        setting = GOVERNED_LIMIT if self.sysctl.is_governed else POOL_LIMIT
        key = setting.sysctl_key(self.name)
        return {key: ToPoolLimit(key, self.host, lambda: self.chosen(None)), **quotas}

    def fit_cgroup(self, promised: Callable[[], int]) -> Shrink | None:
        """Begins to give memory back, where a cgroup is too small for all that clients may take:
        `promised` bytes, which it is asked again and again; it sets aside what they have not taken.

        None: it is not; or an empty pool would be too little, too; or an operator who has frozen
        the pool wants pages where they are; or it was tried a moment ago, and did not help.
        """
        owed = self.host.owed()
        if self.sysctl.frozen or not 0 < owed <= self.host.stats()["mem_used_total"]:
            return None
        return self.fitting.begin_again(ToCgroup(self.host, lambda: self.chosen(None), promised))

    # --- in the background ---

    def beat(self) -> None:
        """To be called about once a second: the next start knows when this process was there."""
        for device in self.devices.values():
            self.note_asking(device)
        self.clients.beat()

    def maintain(self) -> None:
        """To be called a few times a second while something happens, see `activity`: gives memory
        and disk space back, keeps limits, logs disk errors."""
        self.host.maintain()
        self.ages.keep()
        self.advising.keep()
        self.maintenance.turn()
        if self.maintenance.has_more:
            self.activity.note()
        self.fitting.turn()
        self.keep_settings()

    def may_move(self) -> bool:
        """Whether pages may go to disk that nobody has asked to.

        An operator who has frozen the pool wants them where they are, and a shrink moves them
        already.
        """
        return not self.sysctl.frozen and self.shrinks.under_way() is None

    def write_back(self) -> None:
        """To be called for ever, in a thread for that alone: it waits where room is not short, and
        nothing is idle that may go now."""
        self.room.turn(0 if self.idle.turn() else None)

    def compress_later(self) -> None:
        """From now on writes are taken at the speed of a copy; settle() must be called for ever."""
        self.host.set_staging(True)

    def settle(self) -> None:
        """Compresses what was written, or waits for it a moment."""
        self.host.settle(SETTLE_MILLISECONDS)

    def recompress(self) -> None:
        """Makes pages smaller that nobody has touched for long, or waits for some a moment."""
        self.recompression.work()

    # --- the end ---

    def close(self) -> None:
        """What a clean stop writes.  No request is answered any more: the process ends next."""
        # A device whose map is being saved is not let go again.
        with self.closing:
            self.is_closed = True
        # Not released again: no change begins from now on.  A removal that hangs is not waited for.
        self.changes.acquire(timeout=PARK_MILLISECONDS / 1000)
        for served in list(self.served.values()):
            try:
                self.close_device(served)
            except Exception as error:
                # It stays dirty, which is safe, and the others need not.
                why = error.strerror if isinstance(error, OSError) else with_place(error)
                self.log(ERROR, f"{served.device.name} was not left clean: {why}")

    def close_device(self, served: Served) -> None:
        if served.device.park(PARK_MILLISECONDS):
            self.save(served)

    def save(self, served: Served) -> None:
        """The map of a device that is parked: what is in memory only is not known without it."""
        device = served.device
        # A stop may find a sync in here.
        with self.saving:
            if served.is_restoring:
                return
            if device.is_marked or served.record.is_half_saved:
                served.record.bear_late()
                device.sync()
                # Before the sidecar is clean: at worst a change marks it once more.
                device.unmark()
                pieces = range(0, device.pages, PIECE_PAGES)
                served.record.save(device.state_bytes(at, PIECE_PAGES) for at in pieces)
