# SPDX-License-Identifier: BSD-3-Clause
"""`advise`: what would be with a pool of another size, or with more memory for the guest."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import click

from preswapd.api.client import Client
from preswapd.api.messages import Advice
from preswapd.cli.instances import ask_all, complain
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.look.curves import Curve, Point, drawn, share_at
from preswapd.cli.output import print_answers
from preswapd.commandline import DEVICE
from preswapd.errors import PreswapError, RefusedError, UsageError
from preswapd.units import PAGE_SIZE, format_size

# Of fewer reads nothing is said; of fewer than these, how much is noise.
FEW_READS, ENOUGH_READS = 100, 2000
# So many sizes are named in a sentence: the last ones up to that which has nearly all, and none
# that has hardly any, or hardly more than the one before.
NAMED, NEARLY_ALL, HARDLY_ANY, WORTH_NAMING = 4, 0.985, 0.05, 0.03


class Found(NamedTuple):
    """What an instance, or a device of it, says; or why it does not."""

    instance: str
    advice: Advice | None
    refusal: str | None = None


@click.command("advise")
@click.argument("dev", required=False, type=DEVICE)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw both curves into this file, as SVG.",
)
@pass_invocation
def advise_command(invocation: Invocation, dev: str | None, plot: Path | None) -> None:
    """Say what another pool size, or more memory for the guest, would change.

    It goes by how far apart the uses of pages were, in a sample that the server follows, of all
    devices or of DEV: so many reads come from memory with a pool of this size, and so many swap-ins
    would end with so much more memory in the guest. What it cannot know it says. It covers twelve
    to twenty-four hours, and begins anew with the server. With --json there are all points of the
    curves, and {"instances": [...]} where no instance is named.

    \b
    Examples:
      preswapctl advise
      preswapctl --instance vm1 advise swap0 --plot vm1.svg
    """
    instances = invocation.instances
    asked = instances.running() if dev is None else [instances.having(dev)]
    if plot is not None and len(asked) > 1:
        raise UsageError("--plot draws one instance: name it, as in preswapctl --instance NAME")
    answers, errors = ask_all(asked, lambda client: look(client, dev))
    found = [(one.instance, one.advice) for one in answers if one.advice is not None]
    if plot is not None and found:
        name, advice = found[0]
        write(plot, drawn(title(name, dev), curves_of(advice)))
    if invocation.json:
        named = instances.named
        print_answers(
            [{**({} if named else {"instance": name}), **asdict(one)} for name, one in found],
            named=named,
        )
    else:
        for name, advice in found:
            for line in told(title(name, dev), advice):
                click.echo(line)
    if dev is None:
        instances.warn_of_stopped()
    complain(errors)
    if refusals := [f"{one.instance}: {one.refusal}" for one in answers if one.refusal]:
        raise RefusedError("; ".join(refusals))


def look(client: Client, dev: str | None) -> Found:
    """An older server, which does not know it, must not keep the others from the operator."""
    name = client.stats()["instance"]
    try:
        return Found(name, client.advise(dev))
    except RefusedError as error:
        return Found(name, None, str(error))


def write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise PreswapError(f"{path} cannot be written: {error.strerror}") from None


def title(instance: str, dev: str | None) -> str:
    return instance if dev is None else f"{dev} of {instance}"


# --- as sentences ---


def told(name: str, advice: Advice) -> Iterator[str]:
    looked = f"{name}: {advice.sampled_reads} reads were looked at in {span(advice.seconds)}"
    if advice.sampled_reads < FEW_READS or not advice.pool:
        yield f"{looked}, and {FEW_READS} at least are needed to say something."
        return
    yield f"{looked}, of about {advice.reads}; one page of {advice.one_in} is followed."
    yield of_pool(advice)
    yield of_guest(advice)
    yield "What this does not know:"
    for line in unknown(advice):
        yield f"- {line}"


def of_pool(advice: Advice) -> str:
    points = pool_points(advice)
    now = advice.pool_limit if advice.page_bytes else None
    sizes = sorted({*named_sizes([points]), *([now] if now else [])})
    parts = []
    for size in sizes:
        mark = ", as now," if size == now else ""
        parts.append(f"with {format_size(size)}{mark} {percent(share_at(points, size))} %")
    parts[0] = parts[0].replace("with", "With a pool of", 1).replace(" %", " % of reads", 1)
    parts[0] += " come from memory"
    before = "" if advice.page_bytes else " (before compression: the pool has too few pages)"
    return f"{', '.join(parts)}{before}."


def of_guest(advice: Advice) -> str:
    least, most = guest_points(advice)
    parts = [
        f"{format_size(size)} {between(share_at(least, size), share_at(most, size))}"
        for size in named_sizes([least, most])
    ]
    first, space, rest = parts[0].partition(" ")
    parts[0] = f"{first} more memory in the guest would end{space}{rest} of its swap-ins"
    return f"{', '.join(parts)}."


def unknown(advice: Advice) -> Iterator[str]:
    yield f"Other times: it covers the last {span(advice.seconds)}, and what was done in them."
    if advice.sampled_reads < ENOUGH_READS:
        noise = percent((1 / advice.sampled_reads) ** 0.5 + 0.005)
        yield f"Small differences: with so few reads up to {noise} % are noise."
    if advice.unseen * 100 >= advice.reads:
        share = percent(advice.unseen / advice.reads)
        yield f"{share} % of the reads were of pages written before: these are left out."
    if not advice.trims:
        yield (
            "What the guest has freed: it has trimmed nothing (swapon --discard), so that pages"
            " that it no longer has count as if it needed them."
        )
    mean = advice.page_bytes
    page = f" A page is taken for {format_size(round(mean))}, the mean now." if mean else ""
    yield (
        "What the pool does better than to let go first what was used longest ago: it also looks"
        f" at what a page takes, and mostly keeps more.{page}"
    )
    yield (
        "What the guest drops unseen: a page that it has not changed since it was read needs no"
        " write. Where there are two figures, the truth is about between them."
    )
    yield (
        "What the guest does in its own memory: only what it reads from its swap and writes there"
        " is seen, and what it reads ahead counts too."
    )


# --- the curves ---


def pool_points(advice: Advice) -> Curve:
    """By bytes of the pool; of the pages themselves, where nobody knows what they take."""
    return [
        Point(point.pages * PAGE_SIZE if point.bytes is None else point.bytes, point.from_memory)
        for point in advice.pool
    ]


def guest_points(advice: Advice) -> tuple[Curve, Curve]:
    return (
        [Point(point.bytes, point.least) for point in advice.guest],
        [Point(point.bytes, point.most) for point in advice.guest],
    )


def curves_of(advice: Advice) -> dict[str, list[Curve]]:
    if not advice.pool:
        return {}
    return {
        "% of reads from memory, by the size of the pool": [pool_points(advice)],
        "% of swap-ins that would end, by memory more in the guest: at least (blue), at most": [
            *guest_points(advice)
        ],
    }


def named_sizes(curves: list[Curve]) -> list[int]:
    """Powers of two at which something changes, up to the one that has nearly all."""
    sizes = [1 << power for power in range(16, 63)]
    high = [max(share_at(curve, size) for curve in curves) for size in sizes]
    low = [min(share_at(curve, size) for curve in curves) for size in sizes]
    first = next(at for at, share in enumerate(high) if share >= HARDLY_ANY)
    last = next(at for at, share in enumerate(low) if share >= NEARLY_ALL)
    # Where all comes at once, what is just too little is worth naming.
    chosen = [max(0, first - (high[first] >= 0.5))]
    for at in range(first, last + 1):
        if max(high[at] - high[chosen[-1]], low[at] - low[chosen[-1]]) >= WORTH_NAMING:
            chosen.append(at)
    chosen = sorted({*chosen[:-1], last})
    return [sizes[at] for at in chosen[-NAMED:]]


def between(least: float, most: float) -> str:
    low, high = percent(least), percent(most)
    return f"{low} %" if low == high else f"{low} to {high} %"


def percent(share: float) -> str:
    """All is only what is all."""
    return f"{min(share * 100, 99 if share < 1 else 100):.0f}"


def span(seconds: float) -> str:
    """Roughly: "12m", "3h", "21h"."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{round(seconds / size)}{unit}"
    return f"{round(seconds)}s"
