# SPDX-License-Identifier: BSD-3-Clause
"""Which running instance a command speaks to."""

import socket
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import click

from preswapd.api.client import Client
from preswapd.api.figures import ImageFigures, Statistics
from preswapd.api.messages import is_an_image
from preswapd.cli.stopped import Stopped, stopped
from preswapd.errors import RefusedError, UnreachableError, UsageError
from preswapd.paths import (
    SYSTEM_RUNTIME_ROOT,
    RuntimePaths,
    default_runtime_dir,
    default_shm_dirs,
    runtime_root,
)

T = TypeVar("T")


class RunningInstance(NamedTuple):
    """One server; `name` is its own name once it was asked, else its directory's."""

    name: str
    runtime_dir: Path
    client: Client

    @property
    def nbd_socket(self) -> Path:
        return RuntimePaths(self.runtime_dir).nbd_socket


class UnknownError(UsageError):
    """No such device, no such image, or no such key."""


class Instances:
    """The instance that was named, or all that run under the default root."""

    def __init__(self, runtime_dir: Path | None = None, name: str | None = None) -> None:
        if runtime_dir is not None and name is not None:
            raise UsageError("give --runtime-dir or --instance, not both")
        self.named = runtime_dir is not None or name is not None
        self.runtime_dir = default_runtime_dir(name) if name is not None else runtime_dir

    def running(self) -> list[RunningInstance]:
        """At least one; the named one is not tried before its first use."""
        if self.runtime_dir is not None:
            return [at(self.runtime_dir.absolute())]
        found = self.discovered()
        if not found:
            none = f"no preswapd server runs under {runtime_root()}{others()}"
            raise UnreachableError("; ".join([none, *(gone.sentence for gone in self.stopped)]))
        return found

    def discovered(self) -> list[RunningInstance]:
        """Those that answer under the default root, perhaps none."""
        # A killed server leaves its sockets behind.
        return [at(path) for path in self.directories() if is_there(path)]

    @cached_property
    def stopped(self) -> list[Stopped]:
        """Those that do not run although guests need their pages; none of one that was named."""
        if self.named:
            return []
        shm_dirs = default_shm_dirs()
        # A user's runtime directories are gone after a logout, and pages are not.
        places = {*self.directories(), *(runtime_root() / name for name in shm_dirs)}
        return list(stopped(sorted(path for path in places if not is_there(path)), shm_dirs))

    def directories(self) -> list[Path]:
        try:
            return sorted(runtime_root().iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except PermissionError as error:
            raise UnreachableError(f"{error.filename}: {error.strerror}") from None

    def warn_of_stopped(self) -> None:
        """On stderr, beside what those that run say."""
        for gone in self.stopped:
            click.echo(f"preswapctl: {gone.sentence}", err=True)

    def only(self) -> RunningInstance:
        """For what changes state: never a guess."""
        found = self.running()
        if len(found) + len(self.stopped) > 1:
            raise UsageError(
                f"there are several instances ({names(found, self.stopped)}):"
                " name one with --instance"
            )
        return found[0]

    def having(self, device: str, *, or_image: bool = False) -> RunningInstance:
        """The one instance that has the device, or the image where one will do."""
        found = self.running()
        if self.named:
            return found[0]
        have = all_exports if or_image else all_devices
        owners = those(found, lambda client: device in have(client.stats()))
        # The guest that is meant may be the one whose server does not run.
        away = [gone for gone in self.stopped if device in gone.pages]
        if len(owners) + len(away) > 1:
            kind = "an export" if or_image else "a device"
            raise UsageError(
                f"several instances have {kind} {device!r} ({names(owners, away)}):"
                " name one with --instance"
            )
        if away:
            raise UnreachableError(f"{device} is a device of {away[0].sentence}")
        if not owners:
            others = those(found, lambda client: device in all_images(client.stats()))
            if others:
                raise UnknownError(is_an_image(device, others[0].name))
            kind = "device or image" if or_image else "device"
            raise UnknownError(f"there is no {kind} {device!r} in {names(found)}")
        return owners[0]

    def serving(self, device: str) -> RunningInstance:
        """The same, and it was asked, also where it was named: it has its own name."""
        found = self.having(device)
        stats = found.client.stats()
        instance = found._replace(name=stats["instance"])
        if device in stats.get("refused", {}):
            raise RefusedError(f"{device} is not served: {stats['refused'][device]}")
        if device not in stats["devices"]:
            if device in all_images(stats):
                raise UnknownError(is_an_image(device, instance.name))
            raise UnknownError(f"there is no device {device!r} in {instance.name}")
        return instance

    def exporting(self, name: str) -> tuple[RunningInstance, ImageFigures | None]:
        """The same of a device, or of an image, with the image's figures."""
        instance = self.having(name, or_image=True)
        stats = instance.client.stats()
        if name in stats["devices"] or name in stats.get("refused", {}):
            return self.serving(name), None
        if why := stats.get("refused_images", {}).get(name):
            raise RefusedError(f"the image {name} is not served: {why}")
        if name not in stats.get("images", {}):
            raise UnknownError(f"there is no device or image {name!r} in {stats['instance']}")
        return instance._replace(name=stats["instance"]), stats["images"][name]


def all_devices(stats: Statistics) -> set[str]:
    """Those that are not served are the instance's, too."""
    return {*stats["devices"], *stats.get("refused", {})}


def all_images(stats: Statistics) -> set[str]:
    return {*stats.get("images", {}), *stats.get("refused_images", {})}


def all_exports(stats: Statistics) -> set[str]:
    return all_devices(stats) | all_images(stats)


def ask_all(
    instances: list[RunningInstance], question: Callable[[Client], T]
) -> tuple[list[T], list[UnreachableError]]:
    """The answers, and the errors of those that do not answer."""
    answers, errors = [], []
    for instance in instances:
        try:
            answers.append(question(instance.client))
        except UnreachableError as error:
            errors.append(error)
    return answers, errors


def those(
    instances: list[RunningInstance], have: Callable[[Client], bool]
) -> list[RunningInstance]:
    """Those that `have` says yes to; all must answer, as one that hangs may be the one meant."""
    try:
        return [instance for instance in instances if have(instance.client)]
    except UnreachableError as error:
        raise UnreachableError(f"{error}: name the one you mean with --instance") from None


def complain(errors: list[UnreachableError]) -> None:
    """For the end, when the answers that came were shown: the rest are an error."""
    if errors:
        raise UnreachableError("; ".join(map(str, errors)))


def at(runtime_dir: Path) -> RunningInstance:
    client = Client(RuntimePaths(runtime_dir).control_socket)
    return RunningInstance(runtime_dir.name, runtime_dir, client)


def others() -> str:
    """For an operator who forgot sudo."""
    if runtime_root() == SYSTEM_RUNTIME_ROOT or not SYSTEM_RUNTIME_ROOT.is_dir():
        return ""
    return f"; those under {SYSTEM_RUNTIME_ROOT} are found when this runs as root"


def names(running: list[RunningInstance], away: Sequence[Stopped] = ()) -> str:
    here = [instance.name for instance in running]
    return ", ".join([*here, *(f"{gone.name}, which does not run" for gone in away)])


def is_there(runtime_dir: Path) -> bool:
    """Whether a server has its control socket there, also one that hangs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(RuntimePaths(runtime_dir).control_socket))
        except BlockingIOError:
            # The queue of its socket is full: it hangs, but it is there.
            return True
        except OSError:
            return False
    return True
