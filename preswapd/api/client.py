# SPDX-License-Identifier: BSD-3-Clause
"""The operator's end of the control API."""

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from preswapd.api.exchange import BadAnswerError, Response, chunk, request, request_head
from preswapd.api.figures import DeviceAnswer, Statistics
from preswapd.api.messages import (
    Advice,
    Age,
    Parked,
    PullStatus,
    RemoteStatus,
    ServerFacts,
    ShrinkProgress,
    ShrinkResult,
    ShrinkStatus,
    SwapoffResult,
)
from preswapd.api.settings import VM_PRESWAP
from preswapd.api.wire import (
    METRICS,
    NOT_KEPT,
    PREFIX,
    SAVE_TYPE,
    NotFoundError,
    NotKeptError,
    error_from,
)
from preswapd.errors import PreswapError, RefusedError, UnreachableError, UsageError

Json = dict[str, Any]

# An answer that only reads counters is there at once; a server that takes this long hangs.
READ_SECONDS = 20.0
# Dropping or preparing a whole device is bound by its disk.
CHANGE_SECONDS = 600.0


class Client:
    """One instance, reached through its control socket.

    All methods raise UnreachableError when nobody answers, else what the server raised.
    `patience`: seconds that an answer may take.
    """

    def __init__(self, socket_path: Path, patience: float | None = None) -> None:
        self.socket_path = socket_path
        self.patience = patience

    # --- reading ---

    def stats(self) -> Statistics:
        return cast(Statistics, self._get("/stats"))

    def devices(self) -> dict[str, DeviceAnswer]:
        """By name."""
        return cast(dict[str, DeviceAnswer], self._get("/devices")["devices"])

    def device(self, name: str) -> DeviceAnswer:
        return cast(DeviceAnswer, self._get(device_path(name)))

    def preswap_pages(self) -> int:
        """Pages in tmem, of all devices."""
        return int(self.sysctl()[VM_PRESWAP])

    def ages(
        self, device: str | None = None, older_than: Sequence[float] | None = None
    ) -> list[Age]:
        """How many pages in tmem no guest has used for so many seconds, of one device or of all.

        Without `older_than` the server chooses.  NotFoundError: no such device; RefusedError from a
        server that is too old to know.
        """
        path = "/ages" if device is None else f"{device_path(device)}/ages"
        query = "" if older_than is None else f"?older_than={','.join(map(str, older_than))}"
        with newer_than_the_server():
            return [Age.from_json(age) for age in self._get(path + query)["ages"]]

    def advise(self, device: str | None = None) -> Advice:
        """What would be with another pool, or a larger guest, by the reads of one device or of all.

        NotFoundError: no such device; RefusedError from a server that is too old to know.
        """
        with newer_than_the_server():
            path = "/advise" if device is None else f"{device_path(device)}/advise"
            return Advice.from_json(self._get(path))

    def sysctl(self) -> Json:
        """All settings, and the pages in tmem, by key: `{"vm.preswap": 16384, …}`."""
        return self._get("/sysctl")

    def shrink_status(self) -> ShrinkStatus:
        """The shrink that is under way, or the last one."""
        return ShrinkStatus.from_json(self._get("/shrink"))

    def facts(self) -> ServerFacts:
        """What the server knows of its own process."""
        try:
            found = self._get("/server")
        except NotFoundError:
            # A server that was not restarted when its package was: it knows the older name.
            found = self._get("/doctor")
        return ServerFacts.from_json(found)

    def remote(self) -> RemoteStatus:
        """How it is with the store of the remote tier; RefusedError from a server that is too old
        to have one."""
        with newer_than_the_server():
            return RemoteStatus.from_json(self._get("/remote"))

    def metrics(self) -> str:
        """The statistics in Prometheus' text format."""
        with self._exchange("GET", METRICS, None, READ_SECONDS) as response:
            return response.read().decode()

    # --- changing ---

    def create(
        self,
        name: str,
        size: int,
        compress: str | None = None,
        *,
        source: str | None = None,
        force: bool = False,
    ) -> DeviceAnswer:
        """Creates a device and returns it as device() shows it.  `size`: bytes, a multiple of 4096.

        UsageError for a bad name, size or codec; RefusedError where there is one of that name, or
        no room for it.  With a source, the NBD URI of another server's device, one that is there is
        made anew (`force`: although it holds pages, or its client may be coming back).
        """
        body: Json = {"name": name, "size": size, "compress": compress}
        if source is None:
            return cast(DeviceAnswer, self._change("POST", "/devices", body))
        with newer_than_the_server():
            body |= {"from": source, "force": force}
            return cast(DeviceAnswer, self._change("POST", "/devices", body))

    def pull_status(self, name: str) -> PullStatus:
        """How far a device is whose pages come from another host."""
        with newer_than_the_server():
            return PullStatus.from_json(self._get(f"{device_path(name)}/pull"))

    def pull(self, name: str, rate: int) -> PullStatus:
        """At most so many bytes a second, 0: without a limit, while the server runs."""
        with newer_than_the_server():
            return PullStatus.from_json(
                self._change("POST", f"{device_path(name)}/pull", {"rate": rate})
            )

    def abandon(self, name: str) -> int:
        """Pages that are still on another host are given up: how many."""
        with newer_than_the_server():
            return int(self._change("DELETE", f"{device_path(name)}/pull", None)["pages"])

    def remove(self, name: str, *, force: bool = False) -> None:
        """Removes it with all its pages.  NotFoundError; RefusedError with an NBD client connected,
        unless forced."""
        self._change("DELETE", device_path(name) + forced(force), None)

    def mkswap(self, name: str, *, force: bool = False) -> None:
        """Writes a fresh swap header with the name as its label; errors as of remove()."""
        # In the body: an older server looks only there.
        self._change("POST", f"{device_path(name)}/mkswap", {"force": force})

    def swapoff(self, name: str) -> SwapoffResult:
        """Drops all pages but the swap header, even while a client is connected.  NotFoundError."""
        return SwapoffResult.from_json(self._change("POST", f"{device_path(name)}/swapoff", {}))

    def set(self, key: str, value: str) -> int | str:
        """Sets it and returns its new value; pages above a lowered limit may go later.

        `value` is a number, a size such as "64M" or a word, as docs/control-api.md has it for each
        key.  UsageError for an unknown key or a bad value; NotKeptError where it is set, but would
        not be after a restart.
        """
        answer = self._change("PUT", "/sysctl", {"key": key, "value": value})
        if why := answer.get(NOT_KEPT):
            raise NotKeptError(key, answer[key], why)
        return cast(int | str, answer[key])

    @contextmanager
    def set_and_follow(self, key: str, value: str) -> Iterator["FollowedSetting"]:
        """The same, and those pages can be waited for.

        It is set inside the block; leaving the block early stops nothing.  UsageError that
        knows_no_wait(), and nothing is set, from a server that is too old to see to its limits.
        """
        body = {"key": key, "value": value, "wait": True}
        with self._exchange("PUT", f"{PREFIX}/sysctl", body, CHANGE_SECONDS) as answer:
            yield FollowedSetting(answer)

    def begin_shrink(self, pages: int, device: str | None = None) -> ShrinkStatus:
        """Begins a shrink of one device or of all, that goes on without this client.

        NotFoundError: no such device; RefusedError: another one that was asked for has not ended.
        """
        body = {"pages": pages, "device": device, "wait": False}
        return ShrinkStatus.from_json(self._change("POST", "/shrink", body))

    def begin_idle_shrink(self, seconds: float, device: str | None = None) -> ShrinkStatus:
        """Begins to move the pages to disk that no guest has used for so long; errors as of
        begin_shrink()."""
        body = {"idle": seconds, "device": device, "wait": False}
        with newer_than_the_server():
            return ShrinkStatus.from_json(self._change("POST", "/shrink", body))

    def begin_sync(self, device: str | None = None) -> ShrinkStatus:
        """Begins a sync of one device or of all, that goes on without this client; errors as of
        begin_shrink()."""
        body = {"device": device, "wait": False}
        with newer_than_the_server():
            return ShrinkStatus.from_json(self._change("POST", "/sync", body))

    def trim(self, name: str) -> int:
        """Makes zeros of the pages of which nothing is known: how many.  NotFoundError."""
        with newer_than_the_server():
            return int(self._change("POST", f"{device_path(name)}/trim", {})["pages"])

    def parked(self, name: str) -> Parked | None:
        """What `preswapctl park` has done to the device's virtual machine.  NotFoundError."""
        with newer_than_the_server():
            found = self._get(f"{device_path(name)}/parked")["parked"]
        return None if found is None else Parked.from_json(found)

    def park(self, name: str, parked: Parked) -> None:
        """Keeps that.  NotFoundError; RefusedError where it cannot be kept."""
        body = {"left": parked.left, "whole": parked.whole, "qmp": parked.qmp, "pid": parked.pid}
        with newer_than_the_server():
            self._change("PUT", f"{device_path(name)}/parked", body)

    def unpark(self, name: str) -> None:
        """It is not parked any more.  NotFoundError."""
        with newer_than_the_server():
            self._change("DELETE", f"{device_path(name)}/parked", None)

    def stop_shrink(self) -> ShrinkStatus:
        """Stops the shrink or sync that is under way, whatever it is for; RefusedError without one.

        It ends a moment later, between two writes.
        """
        return ShrinkStatus.from_json(self._change("DELETE", "/shrink", None))

    @contextmanager
    def shrink(self, pages: int, device: str | None = None) -> Iterator["RunningShrink"]:
        """A shrink that has begun; leaving the block before its end stops it.

        Errors as of begin_shrink().
        """
        body = {"pages": pages, "device": device}
        with self._exchange("POST", f"{PREFIX}/shrink", body, READ_SECONDS) as response:
            yield RunningShrink(response)

    @contextmanager
    def idle_shrink(self, seconds: float, device: str | None = None) -> Iterator["RunningShrink"]:
        """The same, of the pages that no guest has used for so long."""
        body = {"idle": seconds, "device": device}
        with (
            newer_than_the_server(),
            self._exchange("POST", f"{PREFIX}/shrink", body, READ_SECONDS) as response,
        ):
            yield RunningShrink(response)

    @contextmanager
    def sync(self, device: str | None = None) -> Iterator["RunningShrink"]:
        """A sync that has begun: all pages go to disk, and the maps are saved.  Leaving the block
        before its end stops it.

        Errors as of begin_shrink().
        """
        body = {"device": device}
        with (
            newer_than_the_server(),
            self._exchange("POST", f"{PREFIX}/sync", body, READ_SECONDS) as response,
        ):
            yield RunningShrink(response)

    # --- pages in a file ---

    @contextmanager
    def save(self, name: str, *, force: bool = False) -> Iterator[Iterator[bytes]]:
        """The pieces of a save of the device, as api/save_file.py has it: whoever takes them sees
        in them how it ends.

        NotFoundError; RefusedError with an NBD client connected or, unless forced, awaited.
        """
        path = f"{PREFIX}{device_path(name)}/save{forced(force)}"
        with (
            newer_than_the_server(),
            self._exchange("POST", path, {}, CHANGE_SECONDS) as answer,
        ):
            yield answer.response.pieces()

    def restore(self, name: str, pieces: Iterator[bytes], *, force: bool = False) -> Json:
        """Sends a save into a device of which nothing is known: what the server says of it.

        Ctrl-C before all of it is sent breaks it off, and KeyboardInterrupt comes when nothing is
        known of the device again.  Afterwards it changes nothing.
        Errors as of save(), RefusedError also where pages of it are known; PreswapError: nothing is
        known of it, as before.
        """
        path = f"{PREFIX}{device_path(name)}/restore{forced(force)}"
        head = request_head("POST", path, SAVE_TYPE)
        with (
            newer_than_the_server(),
            self._connection_errors(),
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock,
        ):
            sock.settimeout(CHANGE_SECONDS)
            sock.connect(str(self.socket_path))
            interrupted = upload(sock, head, pieces)
            wait_for_answer(sock)
            with sock.makefile("rb") as stream:
                response = Response(stream)
                if interrupted:
                    raise KeyboardInterrupt
                if response.status >= 400:
                    raise failure(response)
                return cast(Json, decoded(response.read()))

    # --- how ---

    def _get(self, path: str) -> Json:
        return self._json("GET", path, None, self.patience or READ_SECONDS)

    def _change(self, method: str, path: str, body: Json | None) -> Json:
        return self._json(method, path, body, self.patience or CHANGE_SECONDS)

    def _json(self, method: str, path: str, body: Json | None, timeout: float) -> Json:
        with self._exchange(method, PREFIX + path, body, timeout) as response:
            return cast(Json, decoded(response.read()))

    @contextmanager
    def _exchange(
        self, method: str, path: str, body: Json | None, timeout: float
    ) -> Iterator["Answer"]:
        payload = None if body is None else json.dumps(body).encode()
        with self._connection_errors(), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout)
            sock.connect(str(self.socket_path))
            sock.sendall(request(method, path, payload))
            with sock.makefile("rb") as stream:
                response = Response(stream)
                if response.status >= 400:
                    raise failure(response)
                yield Answer(sock, response)

    @contextmanager
    def _connection_errors(self) -> Iterator[None]:
        try:
            yield
        except (TimeoutError, BlockingIOError):
            raise UnreachableError(f"the server at {self.socket_path} does not answer") from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise UnreachableError(f"no preswapd server answers at {self.socket_path}") from None
        except (ConnectionError, BadAnswerError) as error:
            raise UnreachableError(
                f"the server at {self.socket_path} went away: {str(error) or type(error).__name__}"
            ) from None
        except PermissionError:
            raise UnreachableError(
                f"{self.socket_path} belongs to another user: run this as that user or as root"
            ) from None
        except OSError as error:
            raise UnreachableError(f"{self.socket_path}: {error}") from None


class Answer:
    """A response that is being read, with the socket that it comes from."""

    def __init__(self, sock: socket.socket, response: Response) -> None:
        self.sock = sock
        self.response = response
        # One reader for all: where a chunk ends is known to it alone.
        self.incoming = response.lines()

    def read(self) -> bytes:
        return self.response.read()

    def lines(self) -> Iterator[Json]:
        """The lines that have not been taken yet."""
        for line in self.incoming:
            yield cast(Json, decoded(line))

    def result(self, progress: Callable[[ShrinkProgress], None]) -> Any:
        """What the last line says, after the progress of a shrink; raises what it failed with."""
        for line in self.lines():
            if error := error_from(line):
                raise error
            if "result" in line:
                return line["result"]
            progress(ShrinkProgress.from_json(line["progress"]))
        raise UnreachableError("the server went away before the shrink had ended")


class RunningShrink:
    """A shrink on the server, as long as the connection lasts."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def cancel(self) -> None:
        """Asks the server to stop; the report of what was done still comes.

        May be called from a signal handler while wait() is reading.
        """
        self.answer.sock.shutdown(socket.SHUT_WR)

    def wait(self, progress: Callable[[ShrinkProgress], None]) -> ShrinkResult:
        """Its result.  `progress` is called about twice a second; UnreachableError when the server
        ends before the shrink has."""
        return ShrinkResult.from_json(self.answer.result(progress))


class FollowedSetting:
    """A setting that was made, with the shrink that makes it true.  `value`: its new value;
    `not_kept`: why it would end with the server, None where it does not."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        first = next(answer.lines(), None)
        if first is None:
            raise UnreachableError("the server went away before it said what was set")
        self.value = cast(int | str, first["value"])
        self.not_kept = cast(str | None, first.get(NOT_KEPT))

    def wait(self, progress: Callable[[ShrinkProgress], None]) -> ShrinkResult | None:
        """How the shrink ended, None where no page had to go; otherwise as RunningShrink.wait()."""
        result = self.answer.result(progress)
        return None if result is None else ShrinkResult.from_json(result)


def upload(sock: socket.socket, head: bytes, pieces: Iterator[bytes]) -> bool:
    """To its end, or as far as the server takes it, which says why; whether Ctrl-C came."""
    try:
        sock.sendall(head)
        for piece in pieces:
            sock.sendall(chunk(piece))
        sock.sendall(chunk(b""))
    except (BrokenPipeError, ConnectionResetError):
        return False
    except KeyboardInterrupt:
        sock.shutdown(socket.SHUT_WR)
        return True
    return False


def wait_for_answer(sock: socket.socket) -> None:
    """Ctrl-C does not end it: the server is at the end of its work, and nobody would know whether
    it is done.  A second one does."""
    with suppress(KeyboardInterrupt):
        sock.recv(1, socket.MSG_PEEK)


def knows_no_wait(error: UsageError) -> bool:
    """The server complains of the field that asks it to tell what becomes of a setting."""
    return str(error).startswith("unknown field 'wait'")


# How servers of earlier releases complain of what they do not know.
NOT_KNOWN = (
    f"there is no {PREFIX}/",
    "unknown field 'idle'",
    "unknown field 'from'",
    "a request's body needs a Content-Length",
)


@contextmanager
def newer_than_the_server() -> Iterator[None]:
    """Around a path, or a field, that servers of earlier releases do not have."""
    try:
        yield
    except UsageError as error:
        if not str(error).startswith(NOT_KNOWN):
            raise
        raise RefusedError(
            "this server is older than preswapctl and cannot do that: restart it, which loses no"
            " page"
        ) from None


def forced(force: bool) -> str:
    return "?force=1" if force else ""


def device_path(name: str) -> str:
    return f"/devices/{quote(name, safe='')}"


def decoded(text: bytes) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise PreswapError("the server's answer is not JSON: is it a preswapd server?") from None


def failure(response: Response) -> PreswapError:
    return error_from(decoded(response.read())) or PreswapError(
        f"the server answered {response.status} {response.reason}"
    )
