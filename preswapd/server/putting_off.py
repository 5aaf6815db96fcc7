# SPDX-License-Identifier: BSD-3-Clause
"""Modules that others import and hardly ever use: they are loaded when they are used first.

dataclasses imports inspect, and with it Python's own parser, for the docstring of a class
that has none (so each here has one): a MiB that each instance would have for itself, and 8 ms of
each start (of Python 3.13 1.4 MiB).
"""

import sys
import threading
from importlib import import_module
from types import ModuleType
from typing import Any


def put_off(name: str, **at_hand: object) -> None:
    """Of a module that was not imported yet.  `at_hand`: its attributes that do not load it.

    Not by importlib's LazyLoader: before Python 3.12 the second import of a module loads it.
    """
    if name in sys.modules:
        return
    stands_in = ModuleType(name)
    replacing = threading.Lock()

    def attribute(wanted: str) -> object:
        with replacing:
            if sys.modules.get(name) is stands_in:
                del sys.modules[name]
        return getattr(import_module(name), wanted)

    stands_in.__getattr__ = attribute  # type: ignore[method-assign]
    vars(stands_in).update(at_hand)
    sys.modules[name] = stands_in


def annotations_of(of: Any, **how: Any) -> dict[str, Any]:
    """inspect.get_annotations(), which dataclasses asks for each of its classes with Python 3.12
    and 3.13; for all else inspect itself is loaded."""
    if isinstance(of, type) and not how and sys.version_info < (3, 14):
        return dict(vars(of).get("__annotations__") or {})
    _ = import_module("inspect").signature  # what is not at hand loads it
    found: dict[str, Any] = import_module("inspect").get_annotations(of, **how)
    return found
