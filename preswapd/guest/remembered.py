# SPDX-License-Identifier: BSD-3-Clause
"""What takes a boot to find out, kept in the user's cache while what it was found for stays."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T", int, str)


def remembered(file: Path, key: str, find: Callable[[], T]) -> T:
    """What `find` returns, or returned when it was last asked with this key."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(file.read_text())
        if known["for"] == key:
            found: T = known["found"]
            return found
    found = find()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"for": key, "found": found}))
    return found
