# SPDX-License-Identifier: BSD-3-Clause
"""How results are printed for programs: as JSON.  Tables for people are in look/table.py."""

import json
from collections.abc import Sequence

import click


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))


def print_answers(answers: Sequence[object], instances: int) -> None:
    """One instance's answer as it is, if it came; of several instances a list of those that did."""
    if instances > 1:
        print_json({"instances": answers})
    elif answers:
        print_json(answers[0])
