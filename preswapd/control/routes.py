# SPDX-License-Identifier: BSD-3-Clause
"""What each path of the control API does with the instance; no HTTP in here."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol, cast

from preswapd.api.figures import DeviceAnswer, RemoteFigures, ServerFigures, Statistics
from preswapd.api.messages import AGES, Parked, RemoteStatus, ServerFacts, is_an_image
from preswapd.api.settings import VM_PRESWAP
from preswapd.api.wire import NOT_KEPT, PREFIX, SAVE_TYPE, NotFoundError
from preswapd.errors import UsageError
from preswapd.precache.images import Images
from preswapd.preswap.instance import Change, Instance
from preswapd.preswap.writeback.shrink import Shrink
from preswapd.units import LARGEST, parse_duration, parse_pages, parse_size

Json = dict[str, Any]

# More is not asked for by a person; each takes a look at every page.
MOST_BOUNDS = 16
LONGEST_SECONDS = 3650 * 86400.0
# What kill(2) takes.
LARGEST_PID = (1 << 31) - 1


@dataclass(frozen=True)
class Request:
    """A request as far as the routes see it."""

    query: Mapping[str, str]
    body: Json
    read: Callable[[int], bytes] | None = None  # a save that comes instead


class Reply(NamedTuple):
    status: int
    body: Mapping[str, object]


class Followed(NamedTuple):
    """What has begun and whose client waits: it is answered line by line.

    `is_owner`: the shrink ends with its client.  `first` is sent at once.
    """

    shrink: Shrink | None
    is_owner: bool
    first: Json | None


class Streamed(NamedTuple):
    """An answer of any length: what goes wrong inside `pieces` is said in them."""

    content_type: str
    pieces: AbstractContextManager[Iterator[bytes | memoryview]]


Answer = Reply | Followed | Streamed


class RemoteTier(Protocol):
    """What is said of the remote tier, where there is one."""

    def figures(self) -> RemoteFigures: ...

    def status(self) -> RemoteStatus: ...


class WrongMethodError(UsageError):
    """The path exists, but not with this method."""

    def __init__(self, allowed: list[str]) -> None:
        super().__init__(f"this path takes only {' and '.join(allowed)}")
        self.allowed = allowed


class Api:
    """The paths of the API, each with the method of this class that serves it."""

    def __init__(
        self,
        instance: Instance,
        facts: ServerFacts,
        images: Images | None = None,
        remote: RemoteTier | None = None,
    ) -> None:
        self.instance = instance
        self.images = images or Images(instance.host, (), instance.settings.compress, instance.log)
        self.facts = facts
        self.remote = remote
        self.routes: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = [
            ("GET", path("/stats"), self.stats),
            ("GET", path("/devices"), self.devices),
            ("POST", path("/devices"), self.create),
            ("GET", path("/devices/{name}"), self.device),
            ("DELETE", path("/devices/{name}"), self.remove),
            ("POST", path("/devices/{name}/mkswap"), self.mkswap),
            ("POST", path("/devices/{name}/swapoff"), self.swapoff),
            ("POST", path("/devices/{name}/trim"), self.trim),
            ("GET", path("/devices/{name}/pull"), self.pull_status),
            ("POST", path("/devices/{name}/pull"), self.pull),
            ("DELETE", path("/devices/{name}/pull"), self.abandon),
            ("GET", path("/devices/{name}/parked"), self.parked),
            ("PUT", path("/devices/{name}/parked"), self.park),
            ("DELETE", path("/devices/{name}/parked"), self.unpark),
            ("POST", path("/devices/{name}/save"), self.save),
            ("POST", path("/devices/{name}/restore"), self.restore),
            ("GET", path("/devices/{name}/ages"), self.ages),
            ("GET", path("/ages"), self.ages),
            ("GET", path("/devices/{name}/advise"), self.advise),
            ("GET", path("/advise"), self.advise),
            ("GET", path("/sysctl"), self.sysctl),
            ("PUT", path("/sysctl"), self.set),
            ("GET", path("/shrink"), self.shrink_status),
            ("POST", path("/shrink"), self.shrink),
            ("DELETE", path("/shrink"), self.stop_shrink),
            ("POST", path("/sync"), self.sync),
            ("GET", path("/remote"), self.remote_status),
            ("GET", path("/server"), self.server),
            # The older name, kept.  The findings that it promises are made by `preswapctl`.
            ("GET", path("/doctor"), self.server),
        ]

    def serve(self, method: str, at: str, request: Request) -> Answer:
        allowed = []
        for route_method, pattern, function in self.routes:
            if match := pattern.fullmatch(at):
                if route_method == method:
                    return function(request, **match.groupdict())
                allowed.append(route_method)
        if allowed:
            raise WrongMethodError(allowed)
        raise NotFoundError(f"there is no {at}")

    # --- reading ---

    def all_stats(self) -> Statistics:
        """What `preswapctl --json stats` prints."""
        server = cast(ServerFigures, asdict(self.facts))
        stats: Statistics = {
            **self.instance.stats(),
            "images": self.images.stats(),
            "refused_images": dict(self.images.refused),
            "server": server,
        }
        if self.remote is not None:
            stats["remote"] = self.remote.figures()
        return stats

    def stats(self, request: Request) -> Reply:
        return Reply(200, self.all_stats())

    def devices(self, request: Request) -> Reply:
        return Reply(200, {"devices": self.all_devices()})

    def device(self, request: Request, name: str) -> Reply:
        return Reply(200, self.answer(name))

    def ages(self, request: Request, name: str | None = None) -> Reply:
        bounds = bounds_in(request.query.get("older_than"))
        found = self.instance.pages_by_age(None if name is None else self.known(name), bounds)
        return Reply(200, {"ages": [asdict(age) for age in found]})

    def advise(self, request: Request, name: str | None = None) -> Reply:
        return Reply(200, asdict(self.instance.advise(None if name is None else self.known(name))))

    def sysctl(self, request: Request) -> Reply:
        devices = self.instance.devices
        pages = {f"{VM_PRESWAP}.{name}": device.preswap_pages for name, device in devices.items()}
        settings = self.instance.sysctl.values(devices)
        return Reply(200, {VM_PRESWAP: self.instance.pages_in_tmem(), **pages, **settings})

    def remote_status(self, request: Request) -> Reply:
        found = RemoteStatus() if self.remote is None else self.remote.status()
        return Reply(200, asdict(found))

    def server(self, request: Request) -> Reply:
        return Reply(200, asdict(self.facts))

    def all_devices(self) -> dict[str, DeviceAnswer]:
        """Each device's figures, with what only changes decide on."""
        figures = self.instance.stats()["devices"]
        return {
            name: {
                "name": name,
                **figures[name],
                "seconds_since_io": device.seconds_since_io,
            }
            for name, device in self.instance.devices.items()
            if name in figures
        }

    def answer(self, name: str) -> DeviceAnswer:
        """One look: it may come or go at any time."""
        found = self.all_devices().get(name)
        if found is None:
            raise self.unknown(name)
        return found

    def known(self, name: str) -> str:
        if name not in self.instance.devices:
            raise self.unknown(name)
        return name

    def unknown(self, name: str) -> NotFoundError:
        self.instance.check_not_refused(name)
        if name in self.images.names:
            return NotFoundError(is_an_image(name, self.instance.name))
        return NotFoundError(f"there is no device {name!r} in {self.instance.name}")

    # --- changing ---

    def create(self, request: Request) -> Reply:
        body = Body(request.body, "name", "size", "compress", "from", "force")
        name = body.text("name")
        self.instance.create(
            name,
            body.number("size", parse_size),
            body.optional_text("compress"),
            source=body.optional_text("from"),
            force=body.flag("force") or is_forced(request),
        )
        return Reply(201, self.answer(name))

    def remove(self, request: Request, name: str) -> Reply:
        self.instance.remove(self.known(name), force=is_forced(request))
        return Reply(200, {"name": name})

    def mkswap(self, request: Request, name: str) -> Reply:
        # In the body: the older form, kept.
        force = Body(request.body, "force").flag("force") or is_forced(request)
        self.instance.mkswap(self.known(name), force=force)
        return Reply(200, {"name": name})

    def swapoff(self, request: Request, name: str) -> Reply:
        Body(request.body)
        return Reply(200, asdict(self.instance.swapoff(self.known(name))))

    def trim(self, request: Request, name: str) -> Reply:
        Body(request.body)
        return Reply(200, {"name": name, "pages": self.instance.trim(self.known(name))})

    def pull_status(self, request: Request, name: str) -> Reply:
        return Reply(200, asdict(self.instance.pull_status(self.known(name))))

    def pull(self, request: Request, name: str) -> Reply:
        body = Body(request.body, "rate")
        if body.has("rate"):
            self.instance.set_pull_rate(self.known(name), body.number("rate", parse_size))
        return self.pull_status(request, name)

    def abandon(self, request: Request, name: str) -> Reply:
        return Reply(200, {"name": name, "pages": self.instance.abandon(self.known(name))})

    def parked(self, request: Request, name: str) -> Reply:
        parked = self.instance.parking.of(self.known(name))
        return Reply(200, {"name": name, "parked": None if parked is None else asdict(parked)})

    def park(self, request: Request, name: str) -> Reply:
        body = Body(request.body, "left", "whole", "qmp", "pid")
        left, whole = body.number("left", parse_size), body.number("whole", parse_size)
        pid = body.number("pid", int) if body.has("pid") else 0
        if not 0 < left <= whole or pid > LARGEST_PID:
            raise UsageError("left must be more than 0, and at most whole; pid that of a process")
        parked = Parked(left, whole, body.text("qmp"), pid, time.time())
        self.instance.park(self.known(name), parked)
        return self.parked(request, name)

    def unpark(self, request: Request, name: str) -> Reply:
        self.instance.park(self.known(name), None)
        return self.parked(request, name)

    def save(self, request: Request, name: str) -> Streamed:
        Body(request.body)
        return Streamed(SAVE_TYPE, self.saved(self.known(name), is_forced(request)))

    @contextmanager
    def saved(self, name: str, force: bool) -> Iterator[Iterator[bytes | memoryview]]:
        with self.instance.transfers.save(name, force=force) as saving:
            yield saving.blocks()

    def restore(self, request: Request, name: str) -> Reply:
        known, force = self.known(name), is_forced(request)
        if request.read is None:
            raise UsageError(f"a restore needs a save as its body, of the type {SAVE_TYPE}")
        restored = self.instance.transfers.restore(known, request.read, force=force)
        saved = asdict(restored.saved)
        return Reply(200, {"name": name, **asdict(restored.report), "saved": saved})

    def set(self, request: Request) -> Reply | Followed:
        body = Body(request.body, "key", "value", "wait")
        key, wait = body.text("key"), body.flag("wait")
        now, shrink, not_kept = self.change(key, body.value("value"))
        also = {NOT_KEPT: not_kept} if not_kept else {}
        if wait:
            return Followed(shrink, False, {"value": now, **also})
        return Reply(200, {key: now, **also})

    def change(self, key: str, value: str) -> Change:
        """A number of pages is set by a shrink to it."""
        if key != VM_PRESWAP and not key.startswith(f"{VM_PRESWAP}."):
            return self.instance.set(key, value)
        device = None if key == VM_PRESWAP else self.known(key.removeprefix(f"{VM_PRESWAP}."))
        try:
            pages = parse_pages(value)
        except ValueError as error:
            raise UsageError(f"{key}: {error}") from None
        shrink = self.instance.begin_shrink(pages, device)
        return Change(self.instance.pages_in_tmem(device), shrink)

    def shrink(self, request: Request) -> Reply | Followed:
        body = Body(request.body, "pages", "idle", "device", "wait")
        device, wait = self.chosen(body), body.flag("wait", True)
        shrink = self.begin_shrink(body, device)
        return Followed(shrink, True, None) if wait else Reply(202, self.status())

    def begin_shrink(self, body: "Body", device: str | None) -> Shrink:
        if not body.has("idle"):
            return self.instance.begin_shrink(body.number("pages", parse_pages), device)
        if body.has("pages"):
            raise UsageError("give pages or idle: how many are to be left, or which are to go")
        return self.instance.begin_idle_shrink(body.seconds("idle"), device)

    def sync(self, request: Request) -> Reply | Followed:
        body = Body(request.body, "device", "wait")
        device, wait = self.chosen(body), body.flag("wait", True)
        shrink = self.instance.begin_sync(device)
        return Followed(shrink, True, None) if wait else Reply(202, self.status())

    def chosen(self, body: "Body") -> str | None:
        """The device that is named, None where all are meant."""
        device = body.optional_text("device")
        return None if device is None else self.known(device)

    def shrink_status(self, request: Request) -> Reply:
        return Reply(200, self.status())

    def stop_shrink(self, request: Request) -> Reply:
        """It ends between two writes; asked for again it goes on."""
        self.instance.shrinks.stop()
        return Reply(200, self.status())

    def status(self) -> Json:
        return asdict(self.instance.shrinks.status())


def path(template: str) -> re.Pattern[str]:
    return re.compile(PREFIX + re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template))


def is_forced(request: Request) -> bool:
    force = request.query.get("force", "0")
    if force not in ("0", "1"):
        raise UsageError("force must be 0 or 1")
    return force == "1"


def bounds_in(text: str | None) -> list[float]:
    """Of ages, as "0,600": how long, in seconds, pages were not used at least."""
    if text is None:
        return list(AGES)
    try:
        bounds = [check_seconds(float(word)) for word in text.split(",")]
    except ValueError:
        raise UsageError("older_than must be seconds, 0 or more, as in 0,600") from None
    if len(bounds) > MOST_BOUNDS:
        raise UsageError(f"older_than has at most {MOST_BOUNDS} numbers")
    return [int(bound) if bound == int(bound) else bound for bound in bounds]


def check_seconds(seconds: float) -> float:
    """ValueError for what no clock shows, as "nan" and "inf"."""
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise ValueError
    return seconds


class Body:
    """A request's JSON object, whose fields are checked as they are taken."""

    def __init__(self, body: Json, *names: str) -> None:
        unknown = sorted(body.keys() - set(names))
        if unknown:
            choices = ", ".join(names) or "none"
            raise UsageError(f"unknown field {unknown[0]!r}: the choices are {choices}")
        self.body = body

    def has(self, name: str) -> bool:
        return self.body.get(name) is not None

    def text(self, name: str) -> str:
        value = self.optional_text(name)
        if value is None:
            raise UsageError(f"{name} is missing")
        return value

    def optional_text(self, name: str) -> str | None:
        value = self.body.get(name)
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{name} must be a string")
        return value

    def value(self, name: str) -> str:
        """A text, or a number as one."""
        value = self.body.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(name)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.body.get(name, default)
        if not isinstance(value, bool):
            raise UsageError(f"{name} must be true or false")
        return value

    def number(self, name: str, parse: Callable[[str], int]) -> int:
        """A number, or a text such as "512M"."""
        value = self.body.get(name)
        if isinstance(value, str):
            try:
                return parse(value)
            except ValueError as error:
                raise UsageError(f"{name}: {error}") from None
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UsageError(f"{name} must be a number, 0 or more")
        if value > LARGEST:
            raise UsageError(f"{name} is too large")
        return value

    def seconds(self, name: str) -> float:
        """A number, or a text such as "30m"."""
        value = self.body[name]
        try:
            if isinstance(value, str):
                value = parse_duration(value)
        except ValueError as error:
            raise UsageError(f"{name}: {error}") from None
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise UsageError(f"{name} must be a number of seconds")
        if not 0 < value <= LONGEST_SECONDS:
            raise UsageError(f"{name} must be more than 0 seconds, and at most 10 years")
        return value
