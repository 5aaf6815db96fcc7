# SPDX-License-Identifier: BSD-3-Clause
"""What a server imports stays in the memory of each instance: only what serves."""

import inspect
import subprocess
import sys

import pytest

from preswapd.server.putting_off import annotations_of

# What it took before it was done without: http.server 3.5 MiB, with all of mail and TLS behind it,
# OpenSSL more than half a MiB, logging and threads for it half a MiB, uuid and tempfile 0.4,
# what asks a server (it came with the governor's figures) 0.16.
HEAVY = {
    "_hashlib",
    "_ssl",
    "asyncio",
    "click",
    "concurrent.futures",
    "datetime",
    "email",
    "hashlib",
    "http.client",
    "http.server",
    "logging",
    "multiprocessing",
    "preswapd.api.client",
    "random",
    "shutil",
    "ssl",
    "subprocess",
    "tempfile",
    "tomllib",
    "traceback",
    "uuid",
}
# What only stands in for a module has no spec.
TELL = """
import sys
before = set(sys.modules)
{}
print(*(name for name in set(sys.modules) - before if vars(sys.modules[name]).get("__spec__")))
"""
SERVES = "import nbd_plugin._callbacks, preswapd.server.lifecycle"


def imported(what: str) -> set[str]:
    """Modules that Python has not imported by itself."""
    command = [sys.executable, "-I", "-c", TELL.format(what)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_server_imports_nothing_heavy() -> None:
    modules = imported(SERVES)
    assert "preswapd.preswap.instance" in modules
    assert modules & HEAVY == set()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="dataclasses uses annotationlib")
def test_what_dataclasses_hardly_uses_is_put_off() -> None:
    assert imported(SERVES) & {"ast", "dis", "inspect", "linecache", "tokenize"} == set()


def test_annotations_are_those_that_inspect_finds() -> None:
    class Base:
        a: int

    class Without(Base):
        pass

    class With(Base):
        b: "str" = ""
        c: list[int] | None = None

    for cls in (Base, Without, With):
        assert annotations_of(cls) == inspect.get_annotations(cls)
    assert annotations_of(With) is not annotations_of(With)
    assert annotations_of(With, eval_str=True)["b"] is str
    assert annotations_of(imported) == inspect.get_annotations(imported) != {}


def test_whoever_asks_more_of_it_gets_it_loaded() -> None:
    of_a_function = "def f(a: int): pass\nassert inspect.get_annotations(f) == {'a': int}"
    evaluated = "assert inspect.get_annotations(type(print), eval_str=True) == {}"
    for asks in (of_a_function, evaluated):
        assert "inspect" in imported(f"{SERVES}, inspect\n{asks}")


def test_what_is_put_off_is_there_when_it_is_used() -> None:
    uses = f"{SERVES}, inspect; assert str(inspect.signature(lambda a, b: a)) == '(a, b)'"
    assert "ast" in imported(uses)


def test_what_a_pull_will_need_is_loaded_when_it_is_announced() -> None:
    """The package may be replaced before its guest comes."""
    asks = "client.load_for(client.parse_uri('nbds://hosta/swap0?tls-certificates=/keys'))"
    uses = f"{SERVES}; from preswapd.preswap.moving import client; {asks}"
    assert {"ssl", "preswapd.preswap.moving.tls", "encodings.idna"} <= imported(uses)
