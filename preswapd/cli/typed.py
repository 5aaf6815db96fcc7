# SPDX-License-Identifier: BSD-3-Clause
"""Commands as they can be typed here, for this instance and by this user."""

import os
import sys
from pathlib import Path
from shlex import quote

from preswapd.paths import DEFAULT_INSTANCE, INSTANCE_NAME, default_runtime_dir, is_root


def program(name: str) -> str:
    """One of ours: with its path where PATH does not lead to the one beside this."""
    here = Path(sys.executable).parent / name
    paths = [Path(folder, name) for folder in os.get_exec_path()]
    found = next((path for path in paths if os.access(path, os.X_OK)), None)
    if not here.exists() or (found and found.resolve() == here.resolve()):
        return name
    return quote(str(here))


def control(runtime_dir: Path, *words: str) -> str:
    """preswapctl for the instance that runs there."""
    return " ".join([program("preswapctl"), named(runtime_dir), *map(quote, words)])


def named(runtime_dir: Path) -> str:
    """The option that names the instance."""
    name = runtime_dir.name
    if INSTANCE_NAME.fullmatch(name) and runtime_dir == default_runtime_dir(name):
        return f"--instance {name}"
    return f"--runtime-dir {quote(str(runtime_dir))}"


def serve(runtime_dir: Path, *words: str) -> str:
    """preswapd for an instance of that directory; by its name its other directories are found."""
    name = runtime_dir.name
    options = [] if runtime_dir == default_runtime_dir(DEFAULT_INSTANCE) else [named(runtime_dir)]
    if options and not options[0].startswith("--instance") and INSTANCE_NAME.fullmatch(name):
        options.insert(0, f"--instance {name}")
    return " ".join([program("preswapd"), "serve", *options, *map(quote, words)])


def as_root(command: str) -> str:
    return command if is_root() else f"sudo sh -c {quote(command)}"
