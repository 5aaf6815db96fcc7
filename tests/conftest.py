# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures shared by all tests: real servers on directories of their own."""

import os
import platform
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings

from tests.clients import connected, discard
from tests.running import RunningServer

# HYPOTHESIS_PROFILE=long lets property tests run for minutes with new random examples (with
# pytest's --timeout=0, as the limit for a test is two minutes); without it they take the same few
# examples every time.
SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "short",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=100,
    stateful_step_count=40,
    suppress_health_check=SLOW_IS_FINE,
)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=1500,
    stateful_step_count=100,
    print_blob=True,
    suppress_health_check=SLOW_IS_FINE,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


def pytest_configure() -> None:
    """What is started in a script's background ignores Ctrl-C, and after nohup(1) a hang-up, as do
    all that it starts: programs that are to be interrupted would not notice.  A handler of ours is
    none of theirs; a hang-up is to be nothing to us still."""
    handlers: dict[int, Callable[..., object]] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGHUP: lambda number, frame: None,
    }
    for number, handler in handlers.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = spread(items)


def spread(items: list[pytest.Item]) -> list[pytest.Item]:
    """Slow guests one by one between the other files, and none of them among the last ones.

    In a row all workers would be in guests at once, which then wait for each other's processors;
    and each of them takes as long as a hundred other tests, so that the last one would be waited
    for.
    """
    guests = [item for item in items if is_slow_guest(item)]
    others = [item for item in items if not is_slow_guest(item)]
    files = [list(found) for _, found in groupby(others, key=lambda item: item.path)]
    room = len(files) * 4 // 5 or 1
    found: list[pytest.Item] = []
    for number, file in enumerate(files):
        begin, end = (len(guests) * min(at, room) // room for at in (number, number + 1))
        found += guests[begin:end] + file
    return found if files else guests


def is_slow_guest(item: pytest.Item) -> bool:
    return all(item.get_closest_marker(name) for name in ("guest", "slow"))


class StartServer(Protocol):
    def __call__(self, **options: Any) -> RunningServer: ...


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers with RunningServer's options; all are ended after the test."""
    with ExitStack() as stack:
        started: list[RunningServer] = []

        def start(**options: Any) -> RunningServer:
            tmp = options.pop("tmp", tmp_path / f"server{len(started)}")
            tmp.mkdir(parents=True, exist_ok=True)
            server = stack.enter_context(RunningServer(tmp, **options))
            started.append(server)
            return server

        yield start


@pytest.fixture
def server(start_server: StartServer) -> RunningServer:
    """A server with one device, g1 of 64M, and a pool of 32M."""
    return start_server()


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Like `server`, shared by the tests of a module that change nothing of what others look at.

    Its guest has begun with it: behind the header all is zeros.
    """
    with RunningServer(tmp_path_factory.mktemp("server")) as running:
        discard(connected(running)).shutdown()
        yield running


@pytest.fixture(scope="session")
def stepping_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What tests/stepping.py preloads."""
    if platform.machine() != "x86_64":
        pytest.skip("stepping.c knows the trap flag of x86-64 only")
    library = tmp_path_factory.mktemp("stepping") / "stepping.so"
    source = Path(__file__).with_name("stepping.c")
    flags = ["-O2", "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, "-o", library, source, "-ldl"], check=True)
    return library
