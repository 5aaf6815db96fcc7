# SPDX-License-Identifier: BSD-3-Clause
"""Which devices of an instance have pages on another host, and what an operator asks of them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from preswapd.api.messages import PullStatus
from preswapd.errors import RefusedError
from preswapd.log import ERROR, NOTICE, WARNING, Log
from preswapd.preswap.creation import Served
from preswapd.preswap.device._device import Device
from preswapd.preswap.files.identity import new_token
from preswapd.preswap.moving.client import AwayError, Place, load_for, parse_uri, plain
from preswapd.preswap.moving.link import Link, life_of
from preswapd.preswap.moving.note import Note, read_note, remove_note
from preswapd.preswap.moving.origin import Parked
from preswapd.preswap.moving.pull import Pull
from preswapd.preswap.renewal import renew
from preswapd.units import exact_size


class Source(NamedTuple):
    """A device of another host, and the life of it that was announced."""

    place: Place
    home: str
    life: int


class Moves:
    """Operators' changes are made under the instance's `changes`, which the caller holds."""

    def __init__(
        self, served: Mapping[str, Served], resume: Callable[[Device], None], log: Log
    ) -> None:
        self.served = served
        self.resume = resume
        self.log = log
        self.pulls: dict[str, Pull] = {}

    # --- a start ---

    def go_on(self, served: Served) -> None:
        """With what a sidecar and a note say."""
        record, name = served.record, served.device.name
        path = record.paths.source(name)
        note, sidecar = read_note(path), record.sidecar
        if note is not None and sidecar.source and note.arrival == sidecar.arrival:
            pull = self.begin(served, note)
            if sidecar.taken:
                pull.start()
        elif note is not None and note.is_due and not sidecar.source:
            self.begin(served, note).start()
        elif sidecar.source:
            self.log(
                ERROR,
                f"{path} is damaged or missing: the pages of {name} on another host cannot be"
                f" fetched; `preswapctl pull {name} --abandon` gives them up",
            )
        else:
            remove_note(path)

    def begin(self, served: Served, note: Note) -> Pull:
        link = Link(parse_uri(note.uri), note.home, note.life, note.arrival)
        try:
            load_for(link.place)
        except (ImportError, LookupError) as error:
            self.log(WARNING, f"{note.uri} cannot be reached: {error}")
        pull = self.pulls[served.device.name] = Pull(served, link, self.log)
        return pull

    # --- an operator ---

    def arrive(self, served: Served, source: Source) -> None:
        """Whatever was in it: its pages are those of the source.  OSError: it serves nobody then,
        until this is done again."""
        record, arrival = served.record, new_token()
        if record.sidecar.life == source.life:
            raise RefusedError(f"{source.place.uri} is {served.device.name} itself")
        self.drop(served.device.name)
        note = Note(source.place.uri, source.home, source.life, arrival)
        try:
            with Parked(served.device, self.resume):
                note.write(record.paths.source(served.device.name))
                renew(served.device, record, source.life, arrival)
                self.begin(served, note)
        except OSError:
            # Where nothing was changed yet, what it was before goes on.
            self.go_on(served)
            raise
        self.log(
            NOTICE,
            f"{served.device.name} has the pages of {note.uri}, as long as its guest"
            " has changed nothing here",
        )

    def release(self, served: Served) -> None:
        """Another host took it, or it was announced to one: nobody pulls from it any more."""
        self.check_no_source(served)
        with Parked(served.device, self.resume):
            renew(served.device, served.record)

    def abandon(self, served: Served) -> int:
        """Pages that were not fetched are lost: how many."""
        record, name = served.record, served.device.name
        if not record.sidecar.source and name not in self.pulls:
            raise RefusedError(f"{name} has no pages on another host")
        self.drop(name)
        lost = served.device.stats()["pending_pages"]
        if record.sidecar.renewing:
            # An error came between: nothing of before may be seen, nor anything be dropped later.
            with Parked(served.device, self.resume):
                renew(served.device, record)
        else:
            served.device.give_up()
            record.note(source=0, arrival=0, taken=False)
            served.device.set_guest("here")
        remove_note(record.paths.source(name))
        return lost

    def check_no_source(self, served: Served) -> None:
        name = served.device.name
        if served.record.sidecar.source:
            raise RefusedError(
                f"{name} has pages on another host: `preswapctl pull {name} --abandon` gives them"
                " up first"
            )

    def check_here(self, served: Served) -> None:
        """RefusedError where pages of it are another host's, or all are: a save would leave them
        out, and a restore would be in their way."""
        name, sidecar = served.device.name, served.record.sidecar
        if sidecar.source and served.device.guest == "here":
            raise RefusedError(
                f"{name} has pages on another host: `preswapctl pull {name}` waits until they are"
                f" here, `preswapctl pull {name} --abandon` gives them up"
            )
        if sidecar.source:
            raise RefusedError(
                f"all pages of {name} are on the host that its guest is to come from: save it"
                f" there; `preswapctl pull {name} --abandon` gives them up"
            )
        if sidecar.moved:
            raise RefusedError(
                f"another host has taken {name}: save it there; `preswapctl swapoff {name}` drops"
                " what is left here"
            )
        if served.device.guest == "gone":
            raise RefusedError(
                f"{name} was emptied in part: `preswapctl swapoff {name}` does it again"
            )

    def drop(self, name: str) -> None:
        """Before its pages change by other hands, or it is removed."""
        pull = self.pulls.get(name)
        if pull is None:
            return
        if not pull.stop():
            pull.stopped.clear()
            pull.start()
            raise RefusedError(f"{name}: its pull does not end now: try it again")
        del self.pulls[name]
        pull.close()

    # --- looking ---

    def may_take(self) -> int:
        """Bytes of memory, at most, for what is read from other hosts."""
        return sum(pull.may_take for pull in list(self.pulls.values()))

    def status(self, name: str) -> PullStatus | None:
        """None: it has nothing to do with another host."""
        pull = self.pulls.get(name)
        if pull is not None and pull.is_over and not pull.served.record.sidecar.source:
            return None
        if pull is not None:
            return pull.status()
        served = self.served.get(name)
        if served is None or not served.record.sidecar.source:
            return None
        device = served.device
        return PullStatus(
            source="",
            taken=device.guest == "here",
            pending=device.stats()["pending_pages"],
            fetched=0,
            trouble=f"nothing says where; `preswapctl pull {name} --abandon` gives them up",
        )


def announced(uri: str, size: int) -> Source:
    """What is pulled from there.  RefusedError, and nothing was changed, but that the source has
    drawn its life."""
    place = parse_uri(uri)
    try:
        body = life_of(place)
        life, there, refused = int(str(body["life"]), 16), int(str(body["size"])), body["refused"]
        home = str(body["home"])
        if not place.export:
            # There may be more than one device over there tomorrow.
            place = parse_uri(with_export(uri, str(body["device"])))
    except AwayError as error:
        raise RefusedError(f"{uri}: {error}") from None
    except (KeyError, ValueError):
        raise RefusedError(f"{uri}: its server does not know how a device moves") from None
    if refused is not None:
        raise RefusedError(f"{uri} cannot be pulled from: {plain(str(refused))}")
    if there != size or not life:
        raise RefusedError(f"{uri} is {exact_size(there)} long: give that size")
    return Source(place, home, life)


def with_export(uri: str, name: str) -> str:
    parts = urlsplit(uri)
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}/{quote(name)}{query}"
