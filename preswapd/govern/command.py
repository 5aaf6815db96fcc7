# SPDX-License-Identifier: BSD-3-Clause
"""The command `preswapd govern`."""

import signal
from collections.abc import Callable
from pathlib import Path

import click

from preswapd.commandline import DIRECTORY, FILE
from preswapd.errors import UsageError
from preswapd.govern.config import Config, load
from preswapd.govern.readings import ANSWER_SECONDS, LONE_ANSWER_SECONDS, Host, Instances
from preswapd.govern.run import Governor, lock, release, run
from preswapd.govern.status import StatusServer
from preswapd.host.sd_notify import notify
from preswapd.log import INFO, WARNING, log
from preswapd.paths import SYSTEM_RUNTIME_ROOT, governor_runtime_dir, is_root, runtime_root
from preswapd.server.directories import NOBODY_ELSE_WRITES, make_private
from preswapd.server.sockets import CONTROL_MODE, bind_unix
from preswapd.units import format_size

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SOCKET = "control.sock"


@click.command("govern")
@click.option(
    "--config",
    type=FILE,
    help="Configuration file, with its drop-ins FILE.d/*.toml. Default:"
    " /etc/preswapd/governor.toml, where it exists.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and set nothing.")
@click.option("--once", is_flag=True, help="Look and decide once, and exit.")
@click.option(
    "--release",
    "only_release",
    is_flag=True,
    help="End the limits that a governor has set, and exit: pool_limit alone holds then.",
)
@click.option(
    "--instances",
    type=DIRECTORY,
    help="The directory that holds the runtime directories of the instances. Default: /run/preswapd"
    " for root.",
)
@click.option(
    "--runtime-dir",
    type=DIRECTORY,
    help="The directory of the governor's own socket and lock. Default: /run/preswapd-governor for"
    " root.",
)
@click.option(
    "--system",
    is_flag=True,
    help="The defaults of directories are those for root, whoever runs it.",
)
def govern_command(
    config: Path | None,
    dry_run: bool,
    once: bool,
    only_release: bool,
    instances: Path | None,
    runtime_dir: Path | None,
    system: bool,
) -> None:
    """Share the host's memory out among all pools, until SIGTERM or SIGINT.

    Instead of a size for each pool there is one reserve for the host: memory that stays available
    to its other programs. What it is short of, the pools give back at once, and after half a
    minute of quiet they may grow again. Each instance gets its floor, and of the rest a part by
    its weight; what one does not use the others get. An operator's pool_limit holds all the same.

    It asks each instance on its control socket, and sets preswap.INSTANCE.governed_limit. That
    outlives it: when it ends, nothing changes until --release. `preswapctl governor` shows what it
    does, and why.

    \b
    Exit status: 0 stopped by a signal, or done, 1 failed, 2 usage or a bad configuration,
    4 refused (another governor runs), 5 not done everywhere (--release).

    \b
    Examples:
      preswapd govern --dry-run
      preswapd govern --once
      preswapd govern --release
    """
    if only_release and (dry_run or once or config):
        raise UsageError("--release goes alone: it ends what a governor has set")
    host = Host()
    root = instances or (SYSTEM_RUNTIME_ROOT if system else runtime_root())
    is_only_look = once or only_release
    seconds = LONE_ANSWER_SECONDS if is_only_look else ANSWER_SECONDS
    found = Instances(root, host.available, answer_seconds=seconds)
    own = runtime_dir or governor_runtime_dir(system)
    rules = None if only_release else load(config)
    if dry_run:
        # It sets nothing, and may run beside one that does.
        assert rules is not None
        watch(rules, host, found, once=once, dry_run=True, listen=None)
        return
    # The service's belongs to the service's user, and root may see whether it runs.
    if not (is_root() and own.is_dir()):
        make_private(own.absolute(), NOBODY_ELSE_WRITES)
    held = lock(own)
    assert held >= 0
    if rules is None:
        release(found, log)
        return
    watch(rules, host, found, once=once, dry_run=False, listen=own / SOCKET)


def watch(
    config: Config,
    host: Host,
    instances: Instances,
    *,
    once: bool,
    dry_run: bool,
    listen: Path | None,
) -> None:
    governor = Governor(config, host, instances, log, dry_run=dry_run)
    if once:
        governor.turn()
        return
    is_over = stop_on_signals()
    if listen is not None:
        StatusServer(bind_unix(listen, CONTROL_MODE), governor.status).start()
    if host.pressure(0.0) is None and not host.pressure_file.exists():
        log(WARNING, f"{host.pressure_file} is not there: MemAvailable alone counts")
    text = (
        f"reserve {format_size(config.rules.reserve)}, instances in {instances.root},"
        f" configuration {', '.join(map(str, config.files)) or 'none'}"
    )
    log(INFO, f"ready: {text}")
    notify("READY=1", f"STATUS={text}")
    run(governor, is_over)
    notify("STOPPING=1")
    log(INFO, "stopping: the limits stay as they are; preswapd govern --release ends them")


def stop_on_signals() -> Callable[[float], bool]:
    """A wait that a signal ends: whether one has come."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)

    def is_over(seconds: float) -> bool:
        return signal.sigtimedwait(STOPPING, seconds) is not None

    return is_over
