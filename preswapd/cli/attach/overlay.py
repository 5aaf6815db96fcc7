# SPDX-License-Identifier: BSD-3-Clause
"""A guest's own qcow2 file above an image: made where there is none, and else only looked at."""

import json
import os
import subprocess
from pathlib import Path
from shlex import join, quote
from shutil import which
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote as percent
from urllib.parse import unquote

import click

from preswapd.cli.attach.disk import Export
from preswapd.commandline import FILE
from preswapd.errors import PreswapError, RefusedError
from preswapd.host.filesystems import is_directory, is_file
from preswapd.units import format_size

PRIVATE = 0o600

overlay_option = click.option(
    "--overlay",
    type=FILE,
    help="For an image: a qcow2 file above it, with what this guest writes; it is made where it is"
    " missing, and never changed.",
)


def provide(image: Export, path: Path) -> None:
    """Says on stderr what was made or found; RefusedError for a file that is something else."""
    if os.path.lexists(path):
        check(image, path)
        click.echo(f"preswapctl: {path} is an overlay of {image.name} already", err=True)
        return
    make(image, path)
    size = format_size(information(path)["virtual-size"])
    click.echo(
        f"preswapctl: made {path}, a disk of {size} above {image.name}: what its guest writes goes"
        " there",
        err=True,
    )


def uri(image: Export) -> str:
    return f"nbd+unix:///{image.name}?socket={percent(str(image.socket))}"


# --- one that is there ---


def check(image: Export, path: Path) -> None:
    if not is_file(path):
        raise RefusedError(f"{path} is no file: name one, which becomes an overlay of {image.name}")
    found = information(path)
    if found["format"] != "qcow2":
        raise RefusedError(f"{path} is a {found['format']} file and no overlay: {another(image)}")
    backing = found.get("backing-filename")
    if backing is None:
        raise RefusedError(f"{path} is a whole disk and no overlay: {another(image)}")
    below = (Export.parse(backing), Export.parse(unquote(backing)))
    if not any(export is not None and export.is_same(image) for export in below):
        rebase = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", uri(image)]
        raise RefusedError(
            f"{path} is an overlay of {backing}: {another(image)}, or, where {image.name} holds the"
            f" same bytes as that does: {join([*rebase, str(path)])}"
        )


def another(image: Export) -> str:
    return f"it is left as it is; name a new file, which becomes an overlay of {image.name}"


def information(path: Path) -> dict[str, Any]:
    """-U: a guest may be running from it."""
    found: dict[str, Any] = json.loads(qemu_img("info", "-U", "--output=json", str(path)))
    return found


# --- a new one ---


def make(image: Export, path: Path) -> None:
    """Whole or not at all, and never over a file that somebody else has made meanwhile."""
    if not is_directory(path.parent):
        raise RefusedError(f"{path.parent} is no directory: mkdir -p {quote(str(path.parent))}")
    try:
        # In a directory of nobody else's: where others may write too, a name that can be guessed
        # may be a link to another file by now.
        with TemporaryDirectory(prefix=".preswapctl-", dir=path.parent) as own:
            part = Path(own) / path.name
            qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", uri(image), str(part))
            # A guest's disk is nobody else's to read; libvirt gives it to QEMU's user by itself.
            part.chmod(PRIVATE)
            os.link(part, path)
    except FileExistsError:
        raise RefusedError(f"{path} was made by somebody else just now") from None
    except OSError as error:
        raise PreswapError(f"{path} cannot be made: {error.strerror}") from None


def qemu_img(*arguments: str) -> str:
    if which("qemu-img") is None:
        raise PreswapError("qemu-img is not installed: apt install qemu-utils")
    command = ["qemu-img", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.splitlines() or [f"exit status {done.returncode}"]
        raise PreswapError(f"qemu-img {arguments[0]}: {lines[-1].removeprefix('qemu-img: ')}")
    return done.stdout
