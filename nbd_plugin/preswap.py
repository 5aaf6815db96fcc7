# SPDX-License-Identifier: BSD-3-Clause
"""The script that nbdkit runs: it hands requests on to the swap device, and nothing else.

`preswapd serve` starts it.  nbdkit runs it as `__main__` and looks its callbacks up by name, see
nbdkit-python-plugin(3); those of single requests are native functions.
"""

import gc
import sys
from contextlib import suppress

import nbdkit

# What is imported lives on: to look for cycles in it over and over takes 13 of 50 ms.  lifecycle.py
# turns it on.
gc.disable()

try:
    from nbd_plugin import _callbacks, _peer
    from nbd_plugin._callbacks import extents, flush, pread, pwrite, trim, zero
    from preswapd.block._export import Connection
    from preswapd.server.arrivals import Arrivals
    from preswapd.server.buffers import LARGEST_REQUEST
    from preswapd.server.connected import cut_off
    from preswapd.server.exports import Exports
    from preswapd.server.gate import Gate
    from preswapd.server.handover import Handover
    from preswapd.server.lifecycle import start
except ImportError as error:
    # nbdkit's own log is off, see server/serve.py.
    print(
        f"preswapd: cannot be imported by nbdkit's Python, {sys.prefix}: {error}", file=sys.stderr
    )
    raise

API_VERSION = 2

__all__ = ["extents", "flush", "pread", "pwrite", "trim", "zero"]

# What is read of an image at once to be cached: as much as one transfer from its file.
PREFETCH_BYTES = 256 << 10

_handover: Handover | None = None
_exports: Exports
# Where clients over TCP need TLS.
_arrivals: Arrivals | None = None


def config(key: str, value: str) -> None:
    global _handover
    if key != "handover":
        raise ValueError(f"unknown parameter {key}: this plugin is started by `preswapd serve`")
    _handover = Handover.from_json(value)


def config_complete() -> None:
    if _handover is None:
        raise ValueError("this plugin is started by `preswapd serve`")


def thread_model() -> int:
    return int(nbdkit.THREAD_MODEL_PARALLEL)


def after_fork() -> None:
    global _exports, _arrivals
    assert _handover is not None
    if not _handover.is_debugged:
        # nbdkit from 1.42 on tells its client an error of the plugin, also a stranger: without
        # this module what went wrong, and not where in the code.
        sys.modules["traceback"] = None  # type: ignore[assignment]
    # An exception is EIO to the client unless this was called before it.
    _callbacks.set_error = nbdkit.set_error
    if _handover.is_guarded:
        _arrivals = Arrivals(Gate(range(_handover.nbd, _handover.tcp + 1)))
    _exports = start(_handover, _callbacks.held, _arrivals)
    _callbacks.on_too_long = _exports.tell_too_long
    _callbacks.on_superseded = drop


def drop(h: Connection) -> None:
    assert _handover is not None
    _exports.tell_superseded(h)
    listening = range(_handover.nbd, _handover.tcp + 1)
    is_local = False
    with suppress(OSError):  # it has gone, or there is no descriptor left to look with
        address = _peer.address()
        is_local = address is None
        if address is not None:
            # Before nbdkit's own way, which waits for an answer that is being sent, and ends one
            # half alone: the other half may stay open for long.
            cut_off(address, 0, listening)
    if not _peer.drop() and is_local:
        with suppress(OSError):
            cut_off(None, _peer.process(), listening)


def preconnect(readonly: bool) -> None:
    if _arrivals is None:
        return
    try:
        address = _peer.address()
    except ConnectionError:
        # No error: nbdkit takes long to put one into words.
        _arrivals.miss()
    else:
        _arrivals.arrive(address)


def list_exports(readonly: bool, is_tls: bool) -> list[tuple[str, str]]:
    if _arrivals is not None:
        _arrivals.check(_peer.address(), is_tls)
    return [
        *((name, "swap disk") for name in _exports.names()),
        *((name, "disk image") for name in _exports.images_served()),
    ]


def default_export(readonly: bool, is_tls: bool) -> str:
    if _arrivals is not None:
        _arrivals.check(_peer.address(), is_tls)
    return _exports.default()


def open(readonly: bool) -> Connection:
    if _arrivals is not None:
        _arrivals.let_in(_peer.address(), _peer.uses_tls())
    return _exports.connect(nbdkit.export_name())


def close(h: Connection) -> None:
    _exports.disconnect(h)


def get_size(h: Connection) -> int:
    return int(h.size)


def block_size(h: Connection) -> tuple[int, int, int]:
    """Smallest, preferred and largest request."""
    return 1, 4096, LARGEST_REQUEST


def is_rotational(h: Connection) -> bool:
    return False


def can_write(h: Connection) -> bool:
    return bool(h.is_writable)


def can_flush(h: Connection) -> bool:
    return True


def can_trim(h: Connection) -> bool:
    return True


def can_zero(h: Connection) -> bool:
    return True


def can_fast_zero(h: Connection) -> bool:
    return True


def can_extents(h: Connection) -> bool:
    return True


def can_multi_conn(h: Connection) -> bool:
    """Whether a client may have several: of connections that write only the newest counts."""
    return not h.is_writable


def can_fua(h: Connection) -> int:
    return int(nbdkit.FUA_NATIVE)


def can_cache(h: Connection) -> int:
    return int(nbdkit.CACHE_NATIVE if h.caches else nbdkit.CACHE_NONE)


def cache(h: Connection, count: int, offset: int, flags: int) -> None:
    """A read whose answer is dropped; of any length, as nothing crosses the socket."""
    into = memoryview(bytearray(min(count, PREFETCH_BYTES)))
    try:
        for at in range(0, count, PREFETCH_BYTES):
            h.pread(into[: count - at], offset + at)
    except OSError as error:
        nbdkit.set_error(error.errno)
        raise
