# SPDX-License-Identifier: BSD-3-Clause
"""`metrics`: what Prometheus collects, for those who cannot ask a Unix socket."""

import os
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import click

from preswapd.api.client import Client
from preswapd.api.exposition import metrics_text
from preswapd.api.figures import Statistics
from preswapd.api.governor import governor, governor_text
from preswapd.cli.instances import ask_all, complain
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.commandline import FILE
from preswapd.errors import PreswapError, UnreachableError, UsageError
from preswapd.paths import governor_runtime_dir

# The collector is another user.
READABLE = 0o644


@click.command("metrics")
@click.option(
    "--textfile", type=FILE, help="Replace FILE with them in one step, instead of printing."
)
@pass_invocation
def metrics_command(invocation: Invocation, textfile: Path | None) -> None:
    """Print the figures of all instances in Prometheus' text format.

    With --textfile they go into a file for node_exporter's textfile collector, which never sees
    a partial file. Servers that do not answer are left out, and the exit status is 3, as it is
    where one does not run and its guests' pages are in memory. Servers that share a name are left
    out too, and the exit status is 1. Where `preswapd govern` runs, its figures are there too.

    \b
    Examples:
      preswapctl metrics
      preswapctl metrics --textfile /var/lib/prometheus/node-exporter/preswapd.prom
    """
    if invocation.json:
        raise UsageError("metrics are text for Prometheus: JSON comes from preswapctl --json stats")
    answers, away = answers_of_all(invocation)
    answers, unclear = those_with_a_name_of_their_own(answers)
    text = metrics_text(*answers) + metrics_of_governor(invocation)
    if textfile is None:
        click.echo(text, nl=False)
    else:
        # Also when no server answers: old figures would be taken for current ones.
        replace_file(textfile, text)
    if unclear:
        clash = f"several servers have the name {', '.join(unclear)}: left out"
        raise PreswapError("; ".join([clash, *map(str, away)]))
    complain(away)


def metrics_of_governor(invocation: Invocation) -> str:
    """Nothing where none runs: a host need not have one."""
    if invocation.instances.named:
        return ""
    try:
        return governor_text(governor(governor_runtime_dir()).status())
    except UnreachableError:
        return ""


def answers_of_all(invocation: Invocation) -> tuple[list[Statistics], list[UnreachableError]]:
    try:
        answers, away = ask_all(invocation.instances.running(), Client.stats)
    except UnreachableError as error:
        return [], [error]
    stopped = invocation.instances.stopped
    return answers, [*away, *(UnreachableError(gone.sentence) for gone in stopped)]


def those_with_a_name_of_their_own(
    answers: list[Statistics],
) -> tuple[list[Statistics], list[str]]:
    """And the names that several have: for two series with the same labels a collector would
    refuse the whole file."""
    times = Counter(stats["instance"] for stats in answers)
    return (
        [stats for stats in answers if times[stats["instance"]] == 1],
        [name for name, count in times.items() if count > 1],
    )


def replace_file(path: Path, text: str) -> None:
    """Writes it by a rename, so that no reader sees a partial file."""
    try:
        if path.exists() and not path.is_file():
            # A rename would put a file in the place of /dev/null.
            raise PreswapError(f"{path}: Not a regular file")
        # A link is followed and stays, as /dev/stdout must.
        write_and_rename(Path(os.path.realpath(path)), text)
    except OSError as error:
        # The error's own message may name the temporary file, which is gone.
        raise PreswapError(f"{path}: {error.strerror}") from None


def write_and_rename(path: Path, text: str) -> None:
    # The collector reads *.prom: the file has another suffix until it is whole.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".new")
    try:
        with open(descriptor, "w") as file:
            file.write(text)
            os.fchmod(file.fileno(), READABLE)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
