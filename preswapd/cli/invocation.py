# SPDX-License-Identifier: BSD-3-Clause
"""What the options before the command say, handed to every command."""

from typing import NamedTuple

import click

from preswapd.cli.instances import Instances


class Invocation(NamedTuple):
    instances: Instances
    json: bool


pass_invocation = click.make_pass_decorator(Invocation)
