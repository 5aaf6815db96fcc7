# SPDX-License-Identifier: BSD-3-Clause
"""The program that tests/stepping.py steps through: what is done to an instance's files."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from math import inf
from pathlib import Path
from unittest.mock import patch

from preswapd.preswap.moving.client import parse_uri
from preswapd.preswap.moving.moves import Source
from preswapd.preswap.moving.names import DONE, RELEASE, TAKE, Wanted
from preswapd.preswap.moving.pull import Pull
from preswapd.preswap.saves.transfers import RestoreFailedError
from preswapd.preswap.writeback.victims import Victims
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.running import Running, read
from tests.preswap.saves import restore
from tests.stepping import Operation, Run, serve


def text_page(tag: int) -> bytes:
    """It compresses to few bytes, so that there are few stores, and says what it is."""
    return b"".join((b"page %03d part %d" % (tag, line // 16)).ljust(64) for line in range(64))


def make_room(running: Running) -> None:
    """For all pages: whatever was not touched since they were weighed goes."""
    victims = Victims()
    victims.weigh([running.device], running.instance.epochs.begin())
    victims.least = 1
    while victims.are_there:
        victims.go(0.0)


LIFE, ARRIVAL = 77, 55


def announced(running: Running) -> None:
    """Another host has asked for its life."""
    served = running.instance.served["g1"]
    served.record.note(life=LIFE)
    served.device.life = LIFE


def asked(word: str, running: Running) -> None:
    """What another host's server wants of it."""
    served = running.instance.served["g1"]
    wanted = Wanted("g1", word, LIFE, ARRIVAL)
    assert running.instance.origin.settle(served, wanted) == DONE


def arrive(running: Running) -> None:
    """Its pages are those of a server that does not answer."""
    source = Source(parse_uri("nbd+unix:///g1?socket=/nowhere"), "home", LIFE)
    running.instance.moves.arrive(running.instance.served["g1"], source)


def come(running: Running) -> None:
    """The guest's first change may come; the source knows."""
    served = running.instance.served["g1"]
    served.device.on_take = served.record.note_taken


def comes(running: Running) -> None:
    """The same, and the source gives its pages, whose numbers are their tags."""
    link = running.instance.moves.pulls["g1"].link
    vars(link)["settle"] = lambda word: DONE
    vars(link)["read"] = lambda first, pages: b"".join(map(text_page, range(first, first + pages)))


def keep(running: Running, page: int, tag: int) -> None:
    running.device.keep(page, text_page(tag))


def let_go(running: Running) -> None:
    running.instance.moves.pulls["g1"].let_go()


def abandon(running: Running) -> None:
    running.instance.abandon("g1")


MOVING: dict[str, Callable[..., None]] = {
    "announced": announced,
    "taken": partial(asked, TAKE),
    "released": partial(asked, RELEASE),
    "arrive": arrive,
    "come": come,
    "comes": comes,
    "keep": keep,
    "let go": let_go,
    "abandon": abandon,
}


def run_operation(running: Running, operation: Operation) -> None:
    """On the device g1, unless it says which."""
    name, *rest = operation
    if name == "open":
        running.open()
    elif name in ("kill", "reboot"):
        getattr(running, name)()
    elif name == "discard":
        running.open(discard=True)
    elif name == "write":
        page, tag, flags = rest
        running.connect().pwrite(text_page(tag), page * PAGE, flags)
    elif name == "part":
        offset, text = rest
        running.connect().pwrite(text.encode(), offset)
    elif name in ("trim", "zero"):
        count, offset, flags = rest
        getattr(running.connect(), name)(count, offset, flags)
    elif name == "max_pages":
        running.device.max_pages = rest[0]
    elif name in ("remove", "mkswap"):
        getattr(running.instance, name)(rest[0], force=True)
    elif name == "sync":
        running.instance.begin_sync().wait()
    elif name == "restore":
        with suppress(RestoreFailedError):
            restore(running, Path(rest[0]).read_bytes())
    elif name == "settle":
        # Instance.settle() would wait a minute for somebody to write where nothing is staged.
        running.instance.host.settle()
    elif name == "settle_device":
        running.device.settle()
    elif name == "recompress":
        running.device.recompress("zstd", 0, since=-inf, before=inf, nanoseconds=10**9)
    elif name == "come_back":
        running.device.promoted_below = rest[0]
    elif name == "read":
        read(running.connect(), rest[0] * PAGE, rest[1] * PAGE)
    elif name == "room":
        make_room(running)
    elif name == "idle":
        running.device.writeback_next_idle(0, 0.0)
    elif name == "moving":
        MOVING[rest[0]](running, *rest[1:])
    elif name == "limit":
        running.instance.host.limit = rest[0]
    else:
        getattr(running.instance, name)(*rest)


@contextmanager
def opened(base: Path) -> Iterator[Run]:
    running = Running.small_at(base)
    with patch.object(Pull, "start", lambda self: None):
        yield partial(run_operation, running)
        running.kill()


if __name__ == "__main__":
    serve(opened)
