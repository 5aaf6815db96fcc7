# SPDX-License-Identifier: BSD-3-Clause
"""Files that people or crashes may have damaged: sidecars and configuration files."""

import re
from pathlib import Path

from preswapd.errors import RefusedError, UsageError
from preswapd.preswap.files.sidecar import Sidecar
from preswapd.server.config.merged import Config, load
from preswapd.server.config.shown import as_toml
from tests.fuzz.answers import Wrong


def read_sidecar(content: bytes, folder: Path) -> None:
    """It is refused, or is the sidecar that is written again."""
    path = folder / "g1.json"
    path.write_bytes(content)
    try:
        found = Sidecar.read(path)
    except RefusedError:
        return
    found.write(path)
    if Sidecar.read(path) != found:
        raise Wrong(f"another sidecar: {found}")


def read_config(content: bytes, folder: Path) -> None:
    """It is refused with the right file and a line of it, or is what --show-config shows."""
    path = folder / "config.toml"
    path.write_bytes(content)
    try:
        found = load(path)
    except UsageError as error:
        check_line(str(error), path, content)
        return
    if shown(found, folder) != found:
        raise Wrong(f"another configuration: {found}")


def check_line(message: str, path: Path, content: bytes) -> None:
    line = re.match(rf"{re.escape(str(path))}:(\d+): ", message)
    lines = (
        content.decode().replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1 if line else 0
    )
    if line and not 1 <= int(line[1]) <= lines:
        raise Wrong(f"a line that is not there: {message}")


def shown(config: Config, folder: Path) -> Config:
    path = folder / "shown.toml"
    path.write_text(as_toml(config), encoding="utf-8")
    return load(path)
