"""How results are printed for programs: as JSON.  For people there are tables, in columns.py."""

import json

import click


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))
