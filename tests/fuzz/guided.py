# SPDX-License-Identifier: BSD-3-Clause
"""Runs the target in Python under Atheris; see tools/fuzz, which gives libFuzzer's arguments.

What is left in FUZZ_DIR is the caller's to remove: Atheris ends the process.
"""

import os
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["preswapd", "http", "tomllib", "json", "urllib"]):
    from tests.fuzz.targets import Targets

if __name__ == "__main__":
    atheris.Setup(sys.argv, Targets(Path(os.environ["FUZZ_DIR"])).run)
    atheris.Fuzz()
