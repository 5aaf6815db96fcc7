# SPDX-License-Identifier: BSD-3-Clause
"""What a start puts right of one device before it is served: rules K4 to K6 of docs/concurrency.md.

Each step may be repeated, as a kill may come between any two.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import groupby

from preswapd.preswap.device._device import EXTENT_PAGES, Device
from preswapd.preswap.files.disk_file import clear, holes, make_zone
from preswapd.preswap.files.header import swap_header
from preswapd.preswap.files.identity import identity, new_token, write_token
from preswapd.preswap.files.maps import (
    DISK,
    HOLE,
    LOST,
    PENDING,
    PIECE_PAGES,
    UNKNOWN,
    change_states,
    outside,
    states,
)
from preswapd.preswap.files.saved_map import AS_SAVED, reserve_map, saved_pieces
from preswapd.preswap.files.sidecar import RESTORING_ZONE, Sidecar
from preswapd.preswap.files.zone import zone
from preswapd.preswap.record import Record, dirty
from preswapd.preswap.survey import Judged


def anew(sidecar: Sidecar, judged: Judged) -> Sidecar:
    """With a token that the disk file is still to bear, as is the arena's entry.

    A kill before they do leaves both with `prev`: the caller sees to that.
    """
    return replace(dirty(sidecar, new_token()), inode=judged.identity.inode)


def put_right(record: Record, judged: Judged, map_fd: int) -> str | None:
    """The device's map in shared memory is there, its pages are not counted yet.

    Returns what is to be complained of, or None.
    """
    if judged.sidecar.is_of_older_release:
        with suppress(OSError):  # without room for it now, a clean stop tries again
            reserve_map(record.saved_map, record.pages)
    record.is_half_saved = not judged.holds
    if record.entry.state == "adopting":
        take_over(record, judged, map_fd)
        is_doubted = judged.was_touched and not judged.is_accepted
        complaint = touched(record, judged) if is_doubted else None
    else:
        complaint = go_on(record, judged, map_fd)
    give_up_orphans(record, map_fd)
    return complaint


def give_up_orphans(record: Record, map_fd: int) -> None:
    """A saved map that is accepted late may still have pages that were given up since."""
    if record.sidecar.source:
        return
    places = zone(record.pages)
    lost = sum(
        change_states(map_fd, part, {PENDING: LOST})
        for part in outside(places, range(record.pages))
    )
    lost += sum(change_states(map_fd, part, {PENDING: DISK}) for part in places)
    if lost and record.sidecar.clean:
        record.mark()


def touched(record: Record, judged: Judged) -> str:
    name = record.sidecar.name
    way_out = (
        "; if it was only given another owner or mode, say, stop the server now and start it with"
        " --accept-moved"
    )
    return (
        f"{record.paths.disk_file(name)} was changed while no server ran: reads of the pages of"
        f" {name} that are on disk fail until they are written or trimmed"
        f"{way_out if judged.holds else ''}"
    )


# --- after the host's reboot ---


def take_over(record: Record, judged: Judged, map_fd: int) -> None:
    """Nothing is changed on disk where the saved map holds: it must at the next reboot, too."""
    old = judged.sidecar
    if old.is_of_older_release and old.tmem_dirty:
        # Its pages there may have been in memory; that release wrote the header through.
        clear(
            record.disk_fd,
            [rest for part in zone(record.pages) for rest in outside([range(1)], part)],
        )
        os.fsync(record.disk_fd)
    if old.restore == RESTORING_ZONE:
        make_zone(record.disk_fd, swap_header(old.name, old.size), zone(record.pages))
        os.fsync(record.disk_fd)
    if not judged.holds:
        record.renew(record.sidecar)
    elif judged.is_accepted:
        accept(record, judged, map_fd)
        if change_disk(record, map_fd, holes(record.disk_fd, record.sidecar.size)):
            record.renew(anew(record.sidecar, judged))
    else:
        record.write(record.sidecar)


def accept(record: Record, judged: Judged, map_fd: int) -> None:
    """The disk file is the one that was served, an operator says."""
    fill_holes(record, judged, map_fd)
    token, size = record.sidecar.token, record.sidecar.size
    write_token(record.disk_fd, size, token)
    os.fsync(record.disk_fd)
    found = identity(record.disk_fd, size)
    record.write(replace(record.sidecar, inode=found.inode, ctime=found.ctime))


def fill_holes(record: Record, judged: Judged, map_fd: int) -> None:
    """A copy has holes where pages of zeros were: cp makes them.  Not synced.

    In the file that was served they come from hands, and its pages there are lost.
    """
    if judged.identity.inode == judged.sidecar.inode:
        return
    for part in holes(record.disk_fd, record.sidecar.size):
        for piece in outside(zone(record.pages), part):
            clear(record.disk_fd, runs(map_fd, piece, {DISK}))


# --- on the same boot ---


def go_on(record: Record, judged: Judged, map_fd: int) -> str | None:
    """Shared memory knows; what lies on disk is made to agree.  Returns a complaint, or None."""
    sidecar, complaint = judged.sidecar, None
    changed = sidecar.is_of_older_release
    # An older release has served it since, and has left the sidecar alone.
    knows_better = sidecar.clean and (
        judged.was_handed_back or (judged.holds and not is_as_saved(record, map_fd))
    )
    if changed:
        lift_quarantine(record, map_fd)
    elif judged.is_accepted:
        believe(record, judged, map_fd, is_current=judged.holds and not knows_better)
    elif judged.was_touched and not knows_better:
        complaint = touched(record, judged)
        lost = change_disk(record, map_fd, [range(record.pages)])
        # Where the saved map is whole it may be accepted yet.
        changed = lost > 0 and not judged.holds
    changed |= knows_better
    # Before the sidecar says that it has changed: a kill in between must find this again.
    changed |= change_disk(record, map_fd, holes(record.disk_fd, sidecar.size)) > 0
    changed |= put_zone_right(record, map_fd)
    if sidecar.is_of_older_release:
        # No start compares tokens before its sidecar has one.
        record.entry.set_token(judged.identity.token or 0)
        record.renew(replace(anew(sidecar, judged), prev=judged.identity.token or 0))
    elif changed and record.sidecar.clean:
        record.renew(anew(record.sidecar, judged))
    elif judged.identity.token not in (record.sidecar.token, None):
        record.bear_token()
    if record.sidecar.restore:
        # Its entry says that it has ended.
        record.note_restore("")
    return complaint


def lift_quarantine(record: Record, map_fd: int) -> None:
    """Of its pages only those are known that were written since, and are in memory."""
    if record.entry.quarantined:
        for part in outside(zone(record.pages), range(record.pages)):
            change_states(map_fd, part, {HOLE: UNKNOWN, DISK: UNKNOWN})
        record.entry.lift_quarantine()


def believe(record: Record, judged: Judged, map_fd: int, *, is_current: bool) -> None:
    """What an earlier start did not believe is in the saved map still, until a page changes
    (`is_current`: none has)."""
    if not record.sidecar.clean:
        # First it bears the token that the arena knows: a kill leaves the two alike.
        fill_holes(record, judged, map_fd)
        record.bear_token()
        os.fsync(record.disk_fd)
        record.renew(anew(record.sidecar, judged))
        return
    if is_current:
        for first, now, then in beside_saved(record, map_fd):
            if UNKNOWN in now or LOST in now:
                os.pwrite(map_fd, believed(now, then), first)
    accept(record, judged, map_fd)


def is_as_saved(record: Record, map_fd: int) -> bool:
    """But for what an earlier start did not believe."""
    return all(
        now.translate(AS_SAVED) == then or believed(now, then).translate(AS_SAVED) == then
        for _, now, then in beside_saved(record, map_fd)
    )


def beside_saved(record: Record, map_fd: int) -> Iterator[tuple[int, bytes, bytes]]:
    """(first page, state bytes, those that were saved), in order."""
    saved = saved_pieces(record.saved_map, record.pages)
    for (first, now), then in zip(states(map_fd, record.pages), saved, strict=True):
        yield first, now, then


def believed(now: bytes, then: bytes) -> bytes:
    """What was saved of pages that a start has made UNKNOWN (after a reboot of the host) or, on
    disk, LOST, because the disk file had been touched."""
    return bytes(
        old if new == UNKNOWN or (new, old) == (LOST, DISK) else new
        for new, old in zip(now, then, strict=True)
    )


def change_disk(record: Record, map_fd: int, parts: Iterable[range]) -> int:
    """What should be on disk there is not, or is not what it was: an I/O error instead of a guess.

    The zone has no map, and is what the disk file has.
    """
    places = zone(record.pages)
    return sum(
        change_states(map_fd, piece, {DISK: LOST})
        for part in parts
        for piece in outside(places, part)
    )


def put_zone_right(record: Record, map_fd: int) -> bool:
    """An older release trims pages of the zone, which are zeros in its map only."""
    is_changed = False
    for part in zone(record.pages):
        for empty in runs(map_fd, part, {HOLE, UNKNOWN}):
            clear(record.disk_fd, [empty])
            os.fsync(record.disk_fd)
            change_states(map_fd, empty, {HOLE: DISK, UNKNOWN: DISK})
            is_changed = True
    return is_changed


def runs(map_fd: int, part: range, wanted: set[int]) -> Iterator[range]:
    """Where the pages are in one of these states."""
    for start in range(part.start, part.stop, PIECE_PAGES):
        at = start
        found = os.pread(map_fd, min(PIECE_PAGES, part.stop - start), start)
        for is_wanted, group in groupby(found, wanted.__contains__):
            length = sum(1 for _ in group)
            if is_wanted:
                yield range(at, at + length)
            at += length


def move_zone_to_disk(device: Device) -> None:
    """An older release kept pages of the zone in memory.  OSError: the disk does not take them."""
    for part in zone(device.pages):
        while (page := device.preswap_map.find(1, part.start, part.stop)) >= 0:
            _, _, number = device.writeback(page // EXTENT_PAGES)
            if number:
                raise OSError(number, os.strerror(number))
