# SPDX-License-Identifier: BSD-3-Clause
"""What an instance is told of its store; each field has its setting's name."""

from dataclasses import dataclass
from pathlib import Path

DEFAULT_TIMEOUT = 5.0  # milliseconds
DEFAULT_MAX = 0  # bytes; no bound
DEFAULT_TTL = 86400  # seconds

KEY_FILE = "remote.key"


@dataclass(frozen=True)
class StoreSettings:
    """Nothing in here is a secret: it stands on nbdkit's command line, where ps shows it."""

    url: str
    key_file: Path
    image_key_file: Path | None = None
    password_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    timeout: float = DEFAULT_TIMEOUT
    max: int = DEFAULT_MAX
    ttl: int = DEFAULT_TTL
