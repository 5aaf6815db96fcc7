# SPDX-License-Identifier: BSD-3-Clause
"""Inside nbdkit: what starts when it serves, and how the process ends.

nbdkit answers requests in flight with an error when it is told to stop, which a guest sees as a
failed disk.  So its signals are kept from it: a thread here waits for them, writes what a clean
stop writes and ends the process, and the client sends its requests again to the next server.
"""

import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

from preswapd.api.kinds import split_address
from preswapd.control.http import ControlServer
from preswapd.control.routes import Api
from preswapd.errors import PreswapError, with_place
from preswapd.host.prctl import name_thread, set_death_signal
from preswapd.host.sd_notify import notify
from preswapd.log import ERROR, INFO, WARNING, Throttle, log
from preswapd.precache import digests, sharing
from preswapd.precache.images import Images
from preswapd.preswap.instance import Instance
from preswapd.remote import tier as remote_tier
from preswapd.server import stopping
from preswapd.server.arrivals import Arrivals
from preswapd.server.buffers import Buffers
from preswapd.server.exports import Exports
from preswapd.server.handover import Handover
from preswapd.server.reopening import Reopening, TcpSocket, UnixSocket, be_woken
from preswapd.server.sockets import CONTROL_MODE, NBD_MODE
from preswapd.server.watch import WATCH_SECONDS, GuestLog

# A request waits at most this long for Python code that holds the interpreter lock.
SWITCH_SECONDS = 0.0001
# Where not even a pause can be made, for lack of memory.
FAILED_PAUSE_SECONDS = 1.0


def start(
    handover: Handover, buffered: Callable[[], int], arrivals: Arrivals | None = None
) -> Exports:
    """Opens the instance and starts everything beside NBD; called once nbdkit has its process.

    `buffered` says how much memory nbdkit's worker threads hold by now; `arrivals` knows the
    clients over TCP, where they need TLS.
    """
    # nbdkit's workers start later than this.
    stopping.hold_back()
    be_woken()
    set_death_signal(handover.death_signal)
    try:
        return begin(handover, buffered, arrivals)
    except PreswapError as error:
        log(ERROR, f"preswapd: {error}")
        leave(error.exit_status)
    except Exception as error:
        log(ERROR, f"preswapd: {with_place(error)}")
        leave(1)


def begin(handover: Handover, buffered: Callable[[], int], arrivals: Arrivals | None) -> Exports:
    sys.setswitchinterval(SWITCH_SECONDS)
    for descriptor in (*handover.locks, handover.control):
        os.set_inheritable(descriptor, False)
    unix = unix_sockets(handover)
    # Before the instance is there a stop has nothing to write.
    stop = Stop(handover, [one for one in unix if one.path in handover.own_sockets])
    spawn("signals", stop.wait)
    tier = tier_of(handover)
    instance = Instance(handover.settings, log=log, remote=tier.remote if tier else None)
    stop.instance = instance
    log_recovery(instance)
    spawn("maintenance", Background(instance.maintain, pause=instance.activity.pause).run)
    instance.compress_later()
    spawn("compression", Background(instance.settle).run)
    spawn("writeback", Background(instance.write_back).run)
    spawn("recompression", Background(instance.recompress).run)
    listening = socket.socket(fileno=handover.control)
    images = Images(
        instance.host,
        handover.images,
        instance.settings.compress,
        log,
        lambda: {*instance.devices, *instance.refused},
        sharing=sharing_of(handover, tier),
    )
    instance.reserved = images.names
    if handover.images:
        spawn("images", images_thread(instance, images).run)
    if images.sharing is not None:
        spawn("digests", Background(images.sharing.digests.work).run)
    api = Api(instance, handover.facts, images, tier)
    ControlServer(listening, api, log).start()
    # What lives now lives on: a full collection would hold requests up for nothing.
    gc.collect()
    gc.freeze()
    gc.enable()
    buffers = Buffers(instance, handover.facts.threads, buffered)
    buffers.keep_room()
    exports = Exports(instance, images, buffers)
    sockets = Reopening([*unix, *tcp_sockets(handover, api)], log)
    watch = Background(
        instance.activity.look,
        buffers.look,
        instance.beat,
        GuestLog(instance, exports, arrivals=arrivals).look,
        sockets.look,
        *([] if arrivals is None else [telling(arrivals, api)]),
        *([] if tier is None else [tier.look]),
        pause=lambda: time.sleep(WATCH_SECONDS),
    )
    spawn("watch", watch.run)
    if arrivals is not None:
        spawn("arrivals", Background(arrivals.look, pause=arrivals.wait).run)
    if tier is not None and tier.keeper is not None:
        spawn("courier", tier.keeper.run)
    announce(handover, exports)
    return exports


def tier_of(handover: Handover) -> "remote_tier.Tier | None":
    """None where no store is configured: then nothing of it is loaded."""
    if handover.store is None:
        return None
    return remote_tier.Tier(handover.store, handover.python, log)


def sharing_of(handover: Handover, tier: "remote_tier.Tier | None") -> "sharing.Sharing | None":
    """None where hosts do not share their images, or there are none."""
    if tier is None or tier.remote is None or tier.image_key is None or not handover.images:
        return None
    kept = digests.Digests(handover.settings.paths.image_sums, log)
    return sharing.Sharing(tier.remote, tier.image_key, kept)


def images_thread(instance: Instance, images: Images) -> "Background":
    def look_at_images() -> None:
        images.look(instance.sysctl.frozen)

    return Background(look_at_images, pause=lambda: time.sleep(WATCH_SECONDS))


def unix_sockets(handover: Handover) -> list[UnixSocket]:
    paths = handover.settings.paths
    return [
        UnixSocket(paths.nbd_socket, NBD_MODE, handover.nbd, log),
        UnixSocket(paths.control_socket, CONTROL_MODE, handover.control, log),
    ]


def telling(arrivals: Arrivals, api: Api) -> Callable[[], None]:
    def tell_refused() -> None:
        if arrivals.total != api.facts.tls_refused:
            api.facts = replace(api.facts, tls_refused=arrivals.total)

    return tell_refused


def tcp_sockets(handover: Handover, api: Api) -> list[TcpSocket]:
    def opened() -> None:
        api.facts = replace(api.facts, listen_error=None)

    if not handover.listen:
        return []
    return [TcpSocket(split_address(handover.listen), handover.tcp, opened, log)]


def log_recovery(instance: Instance) -> None:
    found = instance.recovery
    if found.stored_pages or found.damaged_slots or found.lost_pages:
        log(
            WARNING if found.damaged_slots or found.lost_pages else INFO,
            f"recovered {found.stored_pages} pages in {found.seconds:.3f} s,"
            f" {found.damaged_slots} damaged slots, {found.lost_pages} pages lost",
        )


def announce(handover: Handover, exports: Exports) -> None:
    settings, facts = handover.settings, handover.facts
    tls = f" with TLS ({facts.tls})" if handover.is_guarded else ""
    also = f" and {handover.listen}{tls}" if handover.listen and not facts.listen_error else ""
    served = ", ".join(exports.images_served())
    beside = f" images {served or 'none'}," if handover.images else ""
    beside += f" remote tier at {handover.store.url}," if handover.store else ""
    text = (
        f"instance {settings.instance}, devices {', '.join(exports.names()) or 'none'},{beside}"
        f" NBD at {settings.paths.nbd_socket}{also}, control at {settings.paths.control_socket},"
        f" nbdkit {facts.nbdkit}, worker threads: {facts.threads}"
    )
    log(INFO, f"ready: {text}")
    notify("READY=1", f"STATUS={text}")


class Stop:
    """Waits for a signal that asks the process to end."""

    def __init__(self, handover: Handover, own_sockets: list[UnixSocket]) -> None:
        self.signals = handover.stops_at
        self.own_sockets = own_sockets
        self.instance: Instance | None = None

    def wait(self) -> NoReturn:
        number = signal.sigwait(self.signals)
        # Nobody would wait for another signal: whatever happens, devices are saved, and it ends.
        status = 1
        try:
            with suppress(Exception):
                notify("STOPPING=1")
                self.tell(signal.Signals(number).name)
            if self.instance is not None:
                self.instance.close()
            for own in self.own_sockets:
                own.remove()
            status = 0
        except Exception as error:
            log(ERROR, f"the stop was not clean: {with_place(error)}")
        finally:
            leave(status)

    def tell(self, name: str) -> None:
        pages = 0 if self.instance is None else self.instance.pages_in_tmem()
        what = "1 page stays" if pages == 1 else f"{pages} pages stay"
        staying = f": {what} in memory for the next start" if pages else ""
        log(INFO, f"stopping on {name}{staying}")


class Background:
    """Does pieces of work over and over, with a pause before each turn, whatever happens in one."""

    def __init__(
        self, *works: Callable[[], object], pause: Callable[[], None] = lambda: None
    ) -> None:
        self.works = works
        self.pause = pause
        self.complaints = Throttle()

    def run(self) -> NoReturn:
        while True:
            # An event to wait for takes memory.
            if not self.once(self.pause):
                time.sleep(FAILED_PAUSE_SECONDS)
            for work in self.works:
                self.once(work)

    def once(self, work: Callable[[], object]) -> bool:
        try:
            work()
        except Exception as error:
            with suppress(Exception):  # no memory for a word, perhaps
                if self.complaints.passes():
                    log(ERROR, f"{work.__name__} failed: {with_place(error)}")
            return False
        return True


def spawn(name: str, target: Callable[[], object]) -> None:
    """nbdkit waits for ever at its end for a thread that is not a daemon."""

    def run() -> None:
        name_thread(name)
        target()

    threading.Thread(target=run, name=name, daemon=True).start()


def leave(status: int) -> NoReturn:
    """Ends the process without a word to any client."""
    os._exit(status)
