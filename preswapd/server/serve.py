# SPDX-License-Identifier: BSD-3-Clause
"""`preswapd serve`: every check and refusal, then this process becomes nbdkit."""

import fcntl
import os
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from preswapd.api.kinds import split_address
from preswapd.api.last_start import ONCE, LastStart
from preswapd.api.messages import ServerFacts
from preswapd.commandline import DEBUG_VARIABLE
from preswapd.errors import RefusedError
from preswapd.host.limits import FEWEST_DESCRIPTORS, raise_limits
from preswapd.host.logind import deletes_shared_memory_of
from preswapd.host.nbdkit import (
    Nbdkit,
    choose_structured_replies,
    choose_threads,
    environment,
    probe,
)
from preswapd.host.prctl import death_signal
from preswapd.host.processes import own_unit
from preswapd.log import ERROR, WARNING, log
from preswapd.paths import InstancePaths
from preswapd.precache import images
from preswapd.preswap.opening import check
from preswapd.server import belonging, directories, keys, locks, sockets, stopping
from preswapd.server.config.merged import Config
from preswapd.server.config.reach import TlsKeys
from preswapd.server.directories import NOBODY_ELSE
from preswapd.server.handover import Handover

# Named and not imported: only inside nbdkit is there what it imports.
PLUGIN = Path(__file__).parent.parent.parent / "nbd_plugin" / "preswap.py"
# Descriptors that are kept through exec lie from here on, out of the way of the passed sockets.
KEPT_FROM = 64


def serve(config: Config) -> NoReturn:
    started = this_start(config.settings.paths)
    # A stop that is asked for on the way is done once the plugin waits for it: with status 0.
    stopping.hold_back()
    be_a_server()
    settings = config.settings
    found = probe()
    # Where it was started need not stay mounted; all paths are absolute by now.
    os.chdir("/")
    passed = sockets.passed_by_systemd(os.environ)
    sockets.check_lengths(settings.paths)
    directories.prepare(settings.paths, settings.pool_size)
    held = locks.take(settings.paths, settings.instance)
    belonging.check(settings.paths, held[0])
    check(settings)
    check_images(config)
    belonging.note(settings.paths, held[0])
    for conflict in config.conflicts:
        log(WARNING, conflict)
    warn_of_logout()
    tcp = over_tcp(config, found)
    listening = sockets.listen_all(settings.paths, passed, tcp)
    started.write(settings.paths.last_start)
    become_nbdkit(config, found, listening, tcp, held)


def over_tcp(config: Config, found: Nbdkit) -> sockets.Tcp:
    """Guests at the Unix socket must not lose their swap because a key is missing or damaged."""
    error = None
    if config.tls:
        try:
            keys.check(config.tls, found.path)
            for doubt in keys.doubts(config.tls):
                log(WARNING, doubt)
        except RefusedError as refused:
            error = str(refused)
    address = split_address(config.listen) if config.listen else None
    return sockets.Tcp(address, config.tls is not None, error)


def check_images(config: Config) -> None:
    """Guests must not lose their swap because an image is missing; else it is said at once."""
    refused = images.check(config.images)
    if config.images and len(refused) == len(config.images) and not config.settings.devices:
        name, error = next(iter(refused.items()))
        raise RefusedError(f"the image {name} cannot be served: {error}")


def be_a_server() -> None:
    """Whatever shell or service it was started from."""
    os.umask(NOBODY_ELSE)
    files = raise_limits()
    if files < FEWEST_DESCRIPTORS:
        raise RefusedError(
            f"it may have only {files} files open, and needs {FEWEST_DESCRIPTORS} and one for each"
            " client: ulimit -Hn 65536, or LimitNOFILE=65536 in its unit"
        )


def warn_of_logout() -> None:
    user = os.geteuid()
    if deletes_shared_memory_of(user):
        log(
            WARNING,
            f"warning: logind will delete the guests' pages when user {user} logs out: set"
            " RemoveIPC=no in /etc/systemd/logind.conf",
        )


def this_start(paths: InstancePaths) -> LastStart:
    """For whoever must start it again when it is gone."""
    try:
        directory = os.getcwd()
    except OSError:  # it was deleted
        directory = "/"
    program = Path(directory, sys.argv[0])
    is_module = program.name == "__main__.py"
    command = [sys.executable, "-m", program.parent.name] if is_module else [str(program)]
    command += [word for word in sys.argv[1:] if word not in ONCE]
    return LastStart(tuple(command), directory, own_unit(), str(paths.shm_dir))


def become_nbdkit(
    config: Config,
    found: Nbdkit,
    listening: sockets.Listening,
    tcp: sockets.Tcp,
    held: list[int],
) -> NoReturn:
    assert listening.control is not None
    for complaint in listening.complaints:
        log(ERROR, complaint)
    facts = facts_of(config, found, listening.listen_error)
    handover = Handover(
        settings=config.settings,
        images=config.images,
        facts=facts,
        locks=tuple(kept(descriptor) for descriptor in held),
        nbd=sockets.FIRST_PASSED,
        tcp=sockets.FIRST_PASSED + len(listening.nbd) - 1,
        control=kept(listening.control.fileno()),
        own_sockets=tuple(listening.own),
        listen=config.listen if tcp.error is None else None,
        is_guarded=tcp.is_guarded,
        death_signal=death_signal(),
        stops_at=tuple(stopping.wanted()),
        store=config.store,
        python=sys.executable,
        is_debugged=bool(os.environ.get(DEBUG_VARIABLE)),
    )
    pass_on(listening.nbd)
    passing = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(listening.nbd))}
    tls = config.tls if tcp.error is None else None
    own = {**environment(), **passing, **(keys.environment() if tls else {})}
    os.execve(found.path, command(found, facts, handover, tls), own)


def facts_of(config: Config, found: Nbdkit, listen_error: str | None) -> ServerFacts:
    threads, threads_reason = choose_threads(found.version, config.threads)
    structured, structured_reason = choose_structured_replies(found.version)
    paths = config.settings.paths
    return ServerFacts(
        pid=os.getpid(),
        nbdkit=found.version_text,
        threads=threads,
        threads_reason=threads_reason,
        structured_replies=structured,
        structured_replies_reason=structured_reason,
        runtime_dir=str(paths.runtime_dir),
        shm_dir=str(paths.shm_dir),
        state_dir=str(paths.state_dir),
        start_time=round(time.time(), 3),
        listen=config.listen,
        listen_error=listen_error,
        tls=config.tls_mode,
        tls_keys=str(config.tls.path) if config.tls else None,
    )


def command(
    found: Nbdkit, facts: ServerFacts, handover: Handover, tls: TlsKeys | None
) -> list[str]:
    return [
        found.path,
        "--foreground",
        f"--threads={facts.threads}",
        # It has a line for each failed request and each client that hangs up; what matters of that
        # the plugin logs itself, once for a burst.
        *([] if handover.is_debugged else ["--log=null"]),
        *([] if facts.structured_replies else ["--no-sr"]),
        *(keys.options(tls, keys.WHERE_ASKED) if tls else []),
        "python",
        str(PLUGIN),
        f"handover={handover.to_json()}",
    ]


def kept(descriptor: int) -> int:
    """A copy that survives exec."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD, KEPT_FROM)


def pass_on(listening: list[socket.socket]) -> None:
    """Puts the sockets where LISTEN_FDS says that they are; whatever was there is gone after."""
    copies = [kept(sock.fileno()) for sock in listening]
    for number, copy in enumerate(copies, sockets.FIRST_PASSED):
        os.dup2(copy, number, inheritable=True)
        os.close(copy)
