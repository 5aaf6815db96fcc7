# SPDX-License-Identifier: BSD-3-Clause
"""How results are printed for programs: as JSON.  Tables for people are in look/table.py."""

import json
from collections.abc import Sequence
from typing import TextIO

import click


def print_json(value: object, to: TextIO | None = None) -> None:
    click.echo(json.dumps(value, indent=2), to)


def print_answers(answers: Sequence[object], *, named: bool) -> None:
    """Where an instance was named its answer as it is, if it came; else a list, however many there
    are: a script must not break when a second one starts."""
    if not named:
        print_json({"instances": answers})
    elif answers:
        print_json(answers[0])
