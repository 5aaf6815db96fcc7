"""Fixtures of the swap devices' tests."""

import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.preswap.running import Running
from tests.preswap.stepped import Stepper


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """Directories for an instance with one device, g1 of 1 MiB; nothing is opened yet."""
    with ExitStack() as stack:
        yield stack.enter_context(Running(tmp_path))


@pytest.fixture(scope="session")
def steppers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stepper, Stepper]]:
    """One that does the operations, one that recovers."""
    if platform.machine() != "x86_64":
        pytest.skip("stepping.c knows the trap flag of x86-64 only")
    library = tmp_path_factory.mktemp("stepping") / "stepping.so"
    source = Path(__file__).parent / "stepping.c"
    flags = ["-O2", "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, "-o", library, source, "-ldl"], check=True)
    with Stepper(library) as worker, Stepper(library) as recoverer:
        yield worker, recoverer


@pytest.fixture
def base() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="preswapd-test-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)
