# SPDX-License-Identifier: BSD-3-Clause
"""What a process inherits by chance, and what of it must not change what it does."""

import os
import sys
from collections.abc import Mapping

# Names of files are bytes, and are written in UTF-8 here whatever the locale says: two servers, or
# a server and an operator, must mean the same file.  The C library has this locale built in.
LOCALE = "C.UTF-8"
PREFIX = "PYTHON"
# Which code runs, and how it is looked at by those who work on it.  All others of Python's
# variables change what the code does: they take messages away, or make a warning an error.
HARMLESS = {
    "PYTHON_JIT",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONFAULTHANDLER",
    "PYTHONHASHSEED",
    "PYTHONMALLOC",
    "PYTHONNOUSERSITE",
    "PYTHONPATH",
    "PYTHONPYCACHEPREFIX",
    "PYTHONUNBUFFERED",
}


# It writes memory and then runs it, which a unit forbids: 3.14 warns of that wherever code is hot,
# and a warning may be an error.
NO_JIT = {"PYTHON_JIT": "0"}


def without_chance(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what Python alone reads and that changes what it does."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(PREFIX) or name in HARMLESS
    }


def start_over() -> None:
    """Where Python was told to do otherwise than by default, it starts again without that.

    To be called first.  Otherwise nothing happens, which is free.
    """
    environment = dict(os.environ)
    kept = without_chance(environment)
    is_utf8 = sys.flags.utf8_mode or sys.getfilesystemencoding() == "utf-8"
    if kept == environment and is_utf8:
        return
    command = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
    os.execve(sys.executable, command, kept)
