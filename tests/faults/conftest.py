# SPDX-License-Identifier: BSD-3-Clause
"""Servers whose disk, memory and clients fail on demand."""

import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nbd
import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, Connect, clients
from tests.conftest import StartServer
from tests.faults.injection import Injector
from tests.running import RunningServer

MIB = 1 << 20
NOISE = random.Random(11).randbytes(16 * MIB)


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients; all are closed after the test."""
    with clients() as make:
        yield make


@pytest.fixture(scope="session")
def injected_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("injected") / "injected.so"
    source = Path(__file__).with_name("injected.c")
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def module_injector(
    injected_library: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Injector]:
    with Injector(injected_library, tmp_path_factory.mktemp("injector") / "rule") as injector:
        yield injector


@pytest.fixture
def injector(module_injector: Injector) -> Iterator[Injector]:
    """Catches nothing, neither before nor after the test."""
    yield module_injector
    module_injector.end()


@pytest.fixture
def faulty(start_server: StartServer, injector: Injector) -> RunningServer:
    """A server of one device, g1 of 64M, whose system calls obey the injector."""
    return start_server(env=injector.env)


@pytest.fixture(scope="module")
def module_faulty(
    module_injector: Injector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """Like `faulty`, shared by the tests of a module that leave no fault behind."""
    tmp = tmp_path_factory.mktemp("faulty")
    with RunningServer(tmp, env=module_injector.env) as running:
        yield running


def page(number: int) -> bytes:
    """Incompressible, and another one for each number."""
    return NOISE[number * PAGE : (number + 1) * PAGE]


def place(number: int) -> int:
    """Where that page lies: behind the scan zone, so that tmem may take it."""
    return BEHIND_ZONE + number * PAGE


def places(first: int, end: int) -> tuple[int, int]:
    """The same range as pages of the disk file, for an injector."""
    return place(first) // PAGE, place(end) // PAGE


def error_of(request: Callable[..., Any], *arguments: Any, **options: Any) -> int:
    """The errno that the guest gets."""
    with pytest.raises(nbd.Error) as failed:
        request(*arguments, **options)
    assert failed.value.errnum is not None
    return int(failed.value.errnum)


def counters(server: RunningServer, name: str = "g1") -> dict[str, Any]:
    found: dict[str, Any] = server.json_stats()["devices"][name]
    return found


def mounted(stack: ExitStack, path: Path, *arguments: str) -> None:
    """Mounts it there until the stack unwinds; skips the test where that cannot be."""
    path.mkdir(parents=True, exist_ok=True)
    command = ["mount", *arguments, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"it cannot be mounted here: {done.stderr.strip()}")
    # Lazily: it ends when the server, which is stopped later, has closed its files.
    stack.callback(subprocess.run, ["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is undone after the test, last first."""
    with ExitStack() as stack:
        yield stack
