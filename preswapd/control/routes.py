"""What each path of the control API does with the instance; no HTTP in here."""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, cast

from preswapd.api.figures import DeviceAnswer, ServerFigures, Statistics
from preswapd.api.wire import (
    PREFIX,
    VM_PRESWAP,
    NotFoundError,
    ServerFacts,
    ShrinkStatus,
)
from preswapd.control.shrinking import ShrinkThread
from preswapd.errors import RefusedError, UsageError
from preswapd.preswap.instance import Instance
from preswapd.units import LARGEST, parse_pages, parse_size

Json = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """A request as far as the routes see it."""

    query: Mapping[str, str]
    body: Json


class Reply(NamedTuple):
    status: int
    body: Mapping[str, object]


class FollowedShrink(NamedTuple):
    """A shrink that has begun and whose client waits: it is answered line by line."""

    shrink: ShrinkThread


class WrongMethodError(UsageError):
    """The path exists, but not with this method."""

    def __init__(self, allowed: list[str]) -> None:
        super().__init__(f"this path takes only {' and '.join(allowed)}")
        self.allowed = allowed


class Api:
    """The paths of the API, each with the method of this class that serves it."""

    def __init__(self, instance: Instance, facts: ServerFacts) -> None:
        self.instance = instance
        self.facts = facts
        self.last_shrink: ShrinkThread | None = None
        self.beginning = threading.Lock()
        self.routes: list[tuple[str, re.Pattern[str], Callable[..., Reply | FollowedShrink]]] = [
            ("GET", path("/stats"), self.stats),
            ("GET", path("/devices"), self.devices),
            ("POST", path("/devices"), self.create),
            ("GET", path("/devices/{name}"), self.device),
            ("DELETE", path("/devices/{name}"), self.remove),
            ("POST", path("/devices/{name}/mkswap"), self.mkswap),
            ("POST", path("/devices/{name}/swapoff"), self.swapoff),
            ("GET", path("/sysctl"), self.sysctl),
            ("PUT", path("/sysctl"), self.set),
            ("GET", path("/shrink"), self.shrink_status),
            ("POST", path("/shrink"), self.shrink),
            ("DELETE", path("/shrink"), self.stop_shrink),
            ("GET", path("/doctor"), self.doctor),
        ]

    def serve(self, method: str, at: str, request: Request) -> Reply | FollowedShrink:
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
        return {**self.instance.stats(), "server": server}

    def stats(self, request: Request) -> Reply:
        return Reply(200, self.all_stats())

    def devices(self, request: Request) -> Reply:
        return Reply(200, {"devices": self.all_devices()})

    def device(self, request: Request, name: str) -> Reply:
        return Reply(200, self.all_devices()[self.known(name)])

    def sysctl(self, request: Request) -> Reply:
        devices = dict(self.instance.devices)
        pages = {f"{VM_PRESWAP}.{name}": device.preswap_pages for name, device in devices.items()}
        settings = self.instance.tuning.values(devices)
        return Reply(200, {VM_PRESWAP: self.instance.pages_in_tmem(), **pages, **settings})

    def doctor(self, request: Request) -> Reply:
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
            for name, device in list(self.instance.devices.items())
            if name in figures
        }

    def known(self, name: str) -> str:
        if name not in self.instance.devices:
            raise NotFoundError(f"there is no device {name!r} in {self.instance.name}")
        return name

    # --- changing ---

    def create(self, request: Request) -> Reply:
        body = Body(request.body, "name", "size", "compress")
        name = body.text("name")
        self.instance.create(name, body.number("size", parse_size), body.optional_text("compress"))
        return Reply(201, self.all_devices()[self.known(name)])

    def remove(self, request: Request, name: str) -> Reply:
        self.instance.remove(self.known(name), force=request.query.get("force") == "1")
        return Reply(200, {"name": name})

    def mkswap(self, request: Request, name: str) -> Reply:
        force = Body(request.body, "force").flag("force")
        self.instance.mkswap(self.known(name), force=force)
        return Reply(200, {"name": name})

    def swapoff(self, request: Request, name: str) -> Reply:
        Body(request.body)
        return Reply(200, asdict(self.instance.swapoff(self.known(name))))

    def set(self, request: Request) -> Reply:
        body = Body(request.body, "key", "value")
        key = body.text("key")
        return Reply(200, {key: self.instance.set(key, body.value("value"))})

    def shrink(self, request: Request) -> Reply | FollowedShrink:
        body = Body(request.body, "pages", "device", "wait")
        device = body.optional_text("device")
        if device is not None:
            self.known(device)
        wait = body.flag("wait", True)
        shrink = ShrinkThread(self.instance, body.number("pages", parse_pages), device)
        self.begin(shrink)
        return FollowedShrink(shrink) if wait else Reply(202, asdict(self.status()))

    def begin(self, shrink: ShrinkThread) -> None:
        """Of two that are asked for at once one is refused, and the other is the last shrink."""
        with self.beginning:
            if self.last_shrink is not None and not self.last_shrink.ended.is_set():
                raise RefusedError("a shrink is under way already")
            shrink.start()
            self.last_shrink = shrink

    def shrink_status(self, request: Request) -> Reply:
        return Reply(200, asdict(self.status()))

    def stop_shrink(self, request: Request) -> Reply:
        """It ends between two writes; asked for again it goes on."""
        if self.last_shrink is None or self.last_shrink.ended.is_set():
            raise RefusedError("no shrink is under way")
        self.last_shrink.cancel()
        return Reply(200, asdict(self.status()))

    def status(self) -> ShrinkStatus:
        last = self.last_shrink
        if last is None:
            return ShrinkStatus(running=False)
        return ShrinkStatus(
            running=not last.ended.is_set(),
            moved=last.progress.moved,
            left=last.progress.left,
            target=last.pages,
            device=last.device,
            result=None if last.result is None else asdict(last.result),
            error=None if last.error is None else str(last.error),
        )


def path(template: str) -> re.Pattern[str]:
    return re.compile(PREFIX + re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template))


class Body:
    """A request's JSON object, whose fields are checked as they are taken."""

    def __init__(self, body: Json, *names: str) -> None:
        unknown = sorted(body.keys() - set(names))
        if unknown:
            choices = ", ".join(names) or "none"
            raise UsageError(f"unknown field {unknown[0]!r}: the choices are {choices}")
        self.body = body

    def text(self, name: str) -> str:
        value = self.optional_text(name)
        if value is None:
            raise UsageError(f"{name} is missing")
        return value

    def optional_text(self, name: str) -> str | None:
        value = self.body.get(name)
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{name} must be a text")
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
            raise UsageError(f"{name} must be a number from 0 on")
        if value > LARGEST:
            raise UsageError(f"{name} is too large")
        return value
