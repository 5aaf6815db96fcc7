# SPDX-License-Identifier: BSD-3-Clause
"""`images`: the disk images, a row each."""

from collections.abc import Mapping
from typing import TypeVar

import click

from preswapd.api.client import Client
from preswapd.api.figures import Statistics
from preswapd.cli.instances import (
    RunningInstance,
    UnknownError,
    all_images,
    ask_all,
    complain,
    names,
)
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.look.columns import IMAGE_COLUMNS, IMAGE_DEFAULT
from preswapd.cli.look.rows import Moment, images_of
from preswapd.cli.look.table import (
    Style,
    TableCommand,
    TextTable,
    check_style,
    choose,
    table_options,
)
from preswapd.cli.output import print_answers
from preswapd.commandline import IMAGE

T = TypeVar("T")


class ImagesCommand(TableCommand):
    tables = (("Columns", IMAGE_COLUMNS, IMAGE_DEFAULT),)


@click.command("images", cls=ImagesCommand)
@click.argument("image", required=False, type=IMAGE)
@table_options
@pass_invocation
def images_command(
    invocation: Invocation,
    image: str | None,
    output: str | None,
    raw: bool,
    exact: bool,
    noheadings: bool,
) -> None:
    """Show the disk images that are served and cached, one row each, or IMAGE alone.

    What is cached takes memory that swap does not need, and goes when swap needs it. Counts run
    from the server's start. Images that cannot be served are named on standard error, each with the
    reason. With --json it is {"instances": [...]} where no instance is named.

    \b
    Examples:
      preswapctl images
      preswapctl images -o +RATIO,HITS,MISSES,DISKREADS
      preswapctl --instance images --json images debian | jq .images.debian.hits
    """
    style = Style(output, raw, exact, not noheadings)
    check_style(style, as_json=invocation.json)
    table = TextTable(choose(IMAGE_COLUMNS, IMAGE_DEFAULT, output), style)
    running = invocation.instances.running()
    answers, errors = ask_all(running, Client.stats)
    if image is not None:
        answers = [alone(stats, image) for stats in answers if image in all_images(stats)]
        if not (answers or errors):
            raise UnknownError(unknown(image, running))
    if invocation.json:
        print_answers([image_list(stats) for stats in answers], named=invocation.instances.named)
    elif any(stats.get("images") for stats in answers):
        table.print(row for stats in answers for row in images_of(Moment.of(stats)))
    elif answers and not any(map(all_images, answers)):
        click.echo("there are no images", err=True)
    tell_refused(answers)
    complain(errors)


def unknown(image: str, running: list[RunningInstance]) -> str:
    return f"there is no image {image!r} in {names(running)}"


def alone(stats: Statistics, image: str) -> Statistics:
    return {
        **stats,
        "images": only(stats.get("images", {}), image),
        "refused_images": only(stats.get("refused_images", {}), image),
    }


def only(found: Mapping[str, T], name: str) -> dict[str, T]:
    return {name: found[name]} if name in found else {}


def image_list(stats: Statistics) -> dict[str, object]:
    """As in the statistics."""
    return {
        "instance": stats["instance"],
        "images": stats.get("images", {}),
        "refused_images": stats.get("refused_images", {}),
    }


def tell_refused(answers: list[Statistics]) -> None:
    for stats in answers:
        for name, why in stats.get("refused_images", {}).items():
            text = f"{stats['instance']}: the image {name} is not served: {why}"
            click.echo(f"preswapctl: {text}", err=True)
