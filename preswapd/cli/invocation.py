# SPDX-License-Identifier: BSD-3-Clause
"""What the options before the command say, handed to every command."""

from dataclasses import dataclass

import click

from preswapd.cli.instances import Instances


@dataclass(frozen=True)
class Invocation:
    instances: Instances
    json: bool


pass_invocation = click.make_pass_decorator(Invocation)
