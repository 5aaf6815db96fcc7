# SPDX-License-Identifier: BSD-3-Clause
"""The remote tier of one instance: its store, its courier, and what is said of them.

Whatever is wrong with it, guests have their swap: a store that is away, a key that cannot be read
or a client that is not installed are said in the log, in GET /v1/remote and by doctor.
"""

import json
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from preswapd.api.figures import REMOTE, RemoteFigures
from preswapd.api.messages import RemoteStatus
from preswapd.errors import RefusedError
from preswapd.log import ERROR, INFO, WARNING, Log, Throttle
from preswapd.remote import key_file
from preswapd.remote._remote import Remote
from preswapd.remote.keeping import Keeper
from preswapd.remote.settings import StoreSettings

# The courier's library, in its Python: this one's.  The oldest that will do, as in pyproject.toml:
# where the system's packages are seen, an older one of the distribution's may be found.
CLIENT = {"redis": (7,), "hiredis": (3, 2)}
COURIER = "preswapd.remote.courier"
UP, PARTLY = "ok", "partly"
NUMBERS = re.compile(r"[0-9.]+")


class Tier:
    """`remote` is what devices use; None: it is off until the server is started again."""

    def __init__(self, settings: StoreSettings, python: str, log: Log) -> None:
        self.settings = settings
        self.log = log
        self.remote: Remote | None = None
        self.keeper: Keeper | None = None
        self.error: str | None = None
        # Of the images, where hosts share their pages.
        self.image_key: bytes | None = None
        self.image_error: str | None = None
        self.said = b""
        self.store: dict[str, Any] = {}
        self.told: tuple[str, str] | None = None
        self.complaints = Throttle()
        try:
            self.remote = opened(settings)
        except RefusedError as error:
            self.error = str(error)
            log(ERROR, f"the remote tier is off: {error}")
        else:
            courier = [python, "-I", "-m", COURIER]
            self.keeper = Keeper(self.remote, settings, courier, log)
        self.read_image_key()

    def read_image_key(self) -> None:
        path = self.settings.image_key_file
        if path is None or self.remote is None:
            return
        try:
            self.image_key = key_file.load_of_images(path)
        except RefusedError as error:
            self.image_error = str(error)
            self.log(ERROR, f"images are not shared with other hosts: {error}")

    def look(self) -> None:
        """To be called about once a second."""
        if self.remote is None or self.keeper is None:
            return
        self.remote.tick()
        self.keeper.look()
        self.read()
        state, why = str(self.store.get("state", "")), str(self.store.get("error") or "")
        if state == UP:
            why = ""
        elif not why:
            # It is being looked for.  Told now, what comes of that would have to wait for a minute.
            return
        # Away as before, and for another reason, is news; another number of milliseconds is none.
        news = (state, NUMBERS.sub("", why))
        # One that comes and goes has a complaint each minute, and a word that it is back behind it.
        if news != self.told and (state == UP or self.complaints.passes()):
            self.told = news
            self.tell(state, why)

    def read(self) -> None:
        """What the courier said last: of one that is gone it holds no longer, as the next one may
        not come for a while, or not find the store."""
        remote = self.remote
        said = b"" if remote is None or not remote.connected else remote.status()
        if said != self.said:
            self.said = said
            self.store = parsed(said)

    def tell(self, state: str, why: str) -> None:
        if state == UP:
            self.log(INFO, f"the store of the remote tier answers: {self.settings.url}")
        else:
            which = "a part of the store" if state == PARTLY else "the store"
            self.log(WARNING, f"{which} of the remote tier is away, {why}: pages come from disk")

    # --- what is said of it ---

    def figures(self) -> RemoteFigures:
        self.read()
        nodes = self.store.get("nodes", [])
        found: dict[str, Any] = dict.fromkeys(REMOTE, 0)
        found["latency"] = {}
        if self.remote is not None and self.keeper is not None:
            found |= self.remote.figures()
            found["latency"] = {"get": self.remote.latency()}
            found["remote_courier_starts"] = self.keeper.starts
        found["remote_used"] = self.is_used
        found["remote_open"] = bool(found["remote_open"])
        found["remote_nodes"] = len(nodes)
        found["remote_nodes_up"] = sum(bool(node.get("up")) for node in nodes)
        return cast(RemoteFigures, found)

    @property
    def is_used(self) -> bool:
        return self.remote is not None and self.remote.enabled

    def status(self) -> RemoteStatus:
        figures, settings, keeper = self.figures(), self.settings, self.keeper
        child = None if keeper is None else keeper.child
        return RemoteStatus(
            url=settings.url,
            used=self.is_used,
            error=self.error,
            key_file=str(settings.key_file),
            image_key_file=shown(settings.image_key_file),
            image_error=self.image_error,
            password_file=shown(settings.password_file),
            ca=shown(settings.ca),
            cert=shown(settings.cert),
            key=shown(settings.key),
            timeout=settings.timeout,
            max=settings.max,
            ttl=settings.ttl,
            open=figures["remote_open"],
            courier=None if child is None else child.pid,
            courier_starts=figures["remote_courier_starts"],
            courier_error=None if keeper is None else keeper.error,
            store=self.store if "state" in self.store else None,
        )


def shown(path: Path | None) -> str | None:
    return None if path is None else str(path)


def parsed(said: bytes) -> dict[str, Any]:
    """Nothing where it is not what a courier says: that process reads what others send it."""
    try:
        found = plain(json.loads(said or b"{}"))
        return {**found, "nodes": [dict(node) for node in found.get("nodes", ())]}
    except (AttributeError, RecursionError, TypeError, ValueError):
        return {}


def plain(said: Any) -> Any:
    """Without what a terminal that shows it would do as it is told by."""
    if isinstance(said, str):
        return "".join(one if one.isprintable() else "?" for one in said)
    if isinstance(said, list):
        return [plain(one) for one in said]
    if isinstance(said, dict):
        return {name: plain(one) for name, one in said.items()}
    return said


def lacking_client(version: Callable[[str], str] = version) -> str | None:
    """What keeps a courier from its store, if anything."""
    for name, oldest in CLIENT.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            return f"the store's client is not installed ({name})"
        if tuple(int(part) for part in found.split(".")[:2] if part.isdigit()) < oldest:
            least = ".".join(map(str, oldest))
            return f"the store's client is too old ({name} {found}, {least} or newer will do)"
    return None


def opened(settings: StoreSettings) -> Remote:
    if lacking := lacking_client():
        raise RefusedError(f"{lacking}: pip install 'preswapd[remote]'")
    key = key_file.load(settings.key_file)
    try:
        return Remote(key, settings.timeout, settings.max, settings.ttl)
    except MemoryError:
        raise RefusedError("not enough memory") from None
    except (OSError, ValueError) as error:
        raise RefusedError(str(error)) from None
