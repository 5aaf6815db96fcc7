# SPDX-License-Identifier: BSD-3-Clause
"""The fuzz target in Python: the first byte of an input says for whom it is.

"c": a configuration file.  "s": a sidecar.  Every other is sent to the control socket.
"""

from pathlib import Path
from typing import Self

from tests.fuzz.control import Control
from tests.fuzz.files import read_config, read_sidecar


class Targets:
    """`base` is an empty directory in shared memory; what is left there may be removed."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.control = Control(base)

    def run(self, data: bytes) -> None:
        if data.startswith(b"c"):
            read_config(data[1:], self.base)
        elif data.startswith(b"s"):
            read_sidecar(data[1:], self.base)
        else:
            self.control.run(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.control.stop()
