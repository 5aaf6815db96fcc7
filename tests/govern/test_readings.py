# SPDX-License-Identifier: BSD-3-Clause
"""Instances that the governor cannot ask as it would: older ones, some that talk nonsense, refuse,
hang up or have a name twice.  Sockets that answer what a test says; real servers are in
test_governor.py."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from preswapd.govern.config import Config
from preswapd.govern.policy import Rules
from preswapd.govern.readings import ANSWER_SECONDS, LONE_ANSWER_SECONDS, Host, Instances
from preswapd.govern.run import Governor, release
from preswapd.govern.shares import MIB

# Of (method, path): a status and a body, or bytes as they are.
Answers = Callable[[str, str], tuple[int, Any] | bytes]
LIMIT = 512 * MIB


def stats(name: str, **settings: int | str) -> dict[str, Any]:
    own = {f"preswap.{name}.{key}": value for key, value in settings.items()}
    tmem = {"mem_used_total": 100 * MIB, "mem_limit": LIMIT, "puts": 7}
    return {"instance": name, "tmem": tmem, "devices": {}, "sysctl": own}


def newest(name: str, idle: int = 0, limit: int | str = "off") -> Answers:
    def answer(method: str, path: str) -> tuple[int, Any]:
        if path.startswith("/v1/ages"):
            return 200, {"ages": [{"older_than": 1800, "pages": 1, "bytes": idle}]}
        if method == "PUT":
            return 200, {f"preswap.{name}.governed_limit": 1}
        return 200, stats(name, pool_limit=LIMIT, governed_limit=limit)

    return answer


def not_found(path: str) -> tuple[int, Any]:
    return 404, {"error": {"code": "not_found", "message": f"there is no {path}"}}


class Fakes:
    """Sockets below a root, each with its answers."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root = root
        self.stack = stack

    def add(self, directory: str, answers: Answers) -> None:
        (self.root / directory).mkdir(parents=True)
        listening = self.stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(self.root / directory / "control.sock"))
        listening.listen()
        threading.Thread(target=serve, args=(listening, answers), daemon=True).start()

    def governor(self, answer_seconds: float = ANSWER_SECONDS) -> Governor:
        rules = Rules(64 * MIB)
        self.log: list[str] = []
        instances = Instances(self.root, Host().available, answer_seconds=answer_seconds)
        self.stack.callback(instances.threads.shutdown)
        return Governor(Config(rules, ()), Host(), instances, lambda _, text: self.log.append(text))


def serve(listening: socket.socket, answers: Answers) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection:
            method, path, *_ = connection.recv(65536).decode().split()
            found = answers(method, path)
            if isinstance(found, tuple):
                status, body = found
                text = json.dumps(body)
                found = f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
            connection.sendall(found)


@pytest.fixture
def fakes(tmp_path: Path) -> Iterator[Fakes]:
    with ExitStack() as stack:
        yield Fakes(tmp_path / "root", stack)


def test_newest(fakes: Fakes) -> None:
    fakes.add("vm1", newest("vm1", idle=30 * MIB))
    governor = fakes.governor()
    governor.turn()
    found = governor.status()["instances"]["vm1"]
    assert (found["used"], found["idle"], found["pool_limit"]) == (100 * MIB, 30 * MIB, LIMIT)
    assert found["limit"] == LIMIT


@pytest.mark.parametrize(
    ("devices", "images", "is_told"),
    [({}, {"base": {}}, True), ({"swap0": {}}, {"base": {}}, False), ({}, {}, False)],
)
def test_images_alone_yield(
    fakes: Fakes, devices: dict[str, Any], images: dict[str, Any], is_told: bool
) -> None:
    own = {**stats("images", pool_limit=LIMIT, governed_limit=LIMIT)}
    own |= {"devices": devices, "images": images}

    def answer(method: str, path: str) -> tuple[int, Any] | bytes:
        is_stats = method == "GET" and path.startswith("/v1/stats")
        return (200, own) if is_stats else newest("images")(method, path)

    fakes.add("images", answer)
    governor = fakes.governor()
    governor.turn()
    why = governor.status()["instances"]["images"]["why"]
    assert ("gets what the others leave" in why) == is_told


def test_server_that_does_not_know_ages(fakes: Fakes) -> None:
    """It is governed, and nothing of it counts as idle."""

    def answer(method: str, path: str) -> tuple[int, Any] | bytes:
        return not_found("/v1/ages") if "ages" in path else newest("vm1")(method, path)

    fakes.add("vm1", answer)
    governor = fakes.governor()
    governor.turn()
    status = governor.status()
    assert (status["instances"]["vm1"]["idle"], status["absent"]) == (0, {})


def test_server_without_a_governed_limit(fakes: Fakes) -> None:
    fakes.add("vm1", lambda method, path: (200, stats("vm1", pool_limit=LIMIT)))
    fakes.add("vm2", newest("vm2"))
    governor = fakes.governor()
    governor.turn()
    status = governor.status()
    assert status["instances"].keys() == {"vm2"}
    assert status["absent"]["vm1"] == (
        "vm1 runs an older preswapd and cannot be governed: restart it, which loses no page"
    )
    # That is said once.
    governor.seen = None
    governor.turn()
    assert len([line for line in fakes.log if line.startswith("vm1 is not governed: ")]) == 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"hello\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", (200, {}), (500, {})],
    ids=["hangs up", "no HTTP", "a list", "nothing", "fails"],
)
def test_nonsense_stops_nobody(fakes: Fakes, answer: tuple[int, Any] | bytes) -> None:
    fakes.add("bad", lambda method, path: answer)
    fakes.add("vm2", newest("vm2"))
    governor = fakes.governor()
    governor.turn()
    status = governor.status()
    assert status["instances"].keys() == {"vm2"}
    assert status["instances"]["vm2"]["limit"] == LIMIT
    assert status["absent"].keys() == {"bad"}


def test_limit_that_is_refused_is_told(fakes: Fakes) -> None:
    def answer(method: str, path: str) -> tuple[int, Any] | bytes:
        if method == "PUT":
            return 409, {"error": {"code": "refused", "message": "not now"}}
        return newest("vm1")(method, path)

    fakes.add("vm1", answer)
    fakes.add("vm2", newest("vm2"))
    governor = fakes.governor()
    governor.turn()
    assert "a limit was not set: vm1: not now" in fakes.log
    assert governor.status()["instances"]["vm2"]["limit"] == LIMIT


def test_memory_is_that_of_the_moment_of_the_answers(fakes: Fakes) -> None:
    """While one that hangs is waited for, a pool grows: that is no memory of other programs."""
    came = threading.Event()

    def hang(method: str, path: str) -> bytes:
        came.wait(10)
        return b""

    fakes.add("vm1", newest("vm1"))
    fakes.add("hangs", hang)
    governor = fakes.governor()
    looks: list[int] = []

    def falling() -> int:
        # The sooner it is looked at, the more there is.
        looks.append(0)
        return (1000 - 100 * len(looks)) * MIB

    governor.host.available = falling  # type: ignore[method-assign]
    governor.instances.memory = falling
    governor.turn()
    assert governor.status()["available"] == 800 * MIB
    # Only once is it waited for as long as that.
    waited: list[float] = []
    patch = pytest.MonkeyPatch()
    patch.setattr("preswapd.govern.readings.wait", lambda tasks, seconds: waited.append(seconds))
    governor.instances.look()
    patch.undo()
    came.set()
    assert governor.status()["absent"] == {"hangs": "it does not answer in time"}
    assert len(waited) == 2


def test_an_only_look_waits_for_one_that_is_late(fakes: Fakes) -> None:
    answers = newest("vm1", limit=LIMIT)

    def late(method: str, path: str) -> tuple[int, Any] | bytes:
        time.sleep(1.5 * ANSWER_SECONDS)
        return answers(method, path)

    fakes.add("vm1", late)
    log: list[str] = []
    governor = fakes.governor(answer_seconds=LONE_ANSWER_SECONDS)
    governor.turn()
    assert governor.status()["absent"] == {}
    release(governor.instances, lambda _, text: log.append(text))
    assert log == ["vm1: the governor's limit is off"]


def test_name_that_two_have(fakes: Fakes) -> None:
    fakes.add("a", newest("vm1"))
    fakes.add("b", newest("vm1"))
    governor = fakes.governor()
    governor.turn()
    status = governor.status()
    assert status["instances"].keys() == {"vm1"}
    assert list(status["absent"].values()) == ["another instance has the same name"]
