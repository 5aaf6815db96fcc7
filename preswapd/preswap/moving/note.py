# SPDX-License-Identifier: BSD-3-Clause
"""STATE_DIR/NAME.source: where the device is that a device's pages come from.

The sidecar has not room for it, and says which arrival it belongs to.
"""

import json
from pathlib import Path
from typing import NamedTuple

from preswapd.errors import UsageError
from preswapd.host.filesystems import is_there
from preswapd.preswap.files.durable import remove_file, sync_directory, write_and_publish
from preswapd.preswap.moving.client import parse_uri


class Note(NamedTuple):
    """`is_due`: all is here, and the source is to be told that it may drop its pages."""

    uri: str
    home: str
    life: int
    arrival: int
    is_due: bool = False

    def write(self, path: Path) -> None:
        write_and_publish(path, json.dumps(self._asdict()).encode())


def read_note(path: Path) -> Note | None:
    """None: there is none that can be read."""
    try:
        body = json.loads(path.read_bytes())
        note = Note(body["uri"], body["home"], body["life"], body["arrival"], body["is_due"])
        kinds = (str, str, int, int, bool)
        if not all(map(isinstance, note, kinds)):
            return None
        # It is of no use either where this release cannot go there.
        parse_uri(note.uri)
    except (OSError, ValueError, KeyError, TypeError, UsageError):
        return None
    return note


def remove_note(path: Path) -> None:
    if is_there(path):
        remove_file(path)
        sync_directory(path.parent)
