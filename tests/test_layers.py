# SPDX-License-Identifier: BSD-3-Clause
"""Imports point down the layers only: docs/architecture.md has the picture this file holds true."""

import ast
import re
import subprocess
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.compiling import INCLUDES

ROOT = Path(__file__).parent.parent
# Shared words, and how a command speaks and ends: anybody may import these.
WORDS = {
    "preswapd.codecs",
    "preswapd.commandline",
    "preswapd.errors",
    "preswapd.log",
    "preswapd.paths",
    "preswapd.qmp",
    "preswapd.subcommands",
    "preswapd.units",
    "preswapd.version",
}

# Who may import what, besides itself; the longest name that fits a module is its layer.
MAY_IMPORT: dict[str, set[str]] = {
    "nbd_plugin": WORDS | {"preswapd.server", "preswapd.block"},
    "preswapd.__main__": WORDS
    | {"preswapd.server", "preswapd.govern", "preswapd.demo", "preswapd.host"},
    "preswapd.demo": WORDS | {"preswapd.guest", "preswapd.host", "preswapd.api"},
    "preswapd.guest": {
        "preswapd.errors",
        "preswapd.host",
        "preswapd.qmp",
        "preswapd.units",
    },
    "preswapd.cli": WORDS | {"preswapd.api", "preswapd.host"},
    # It reads its configuration as servers read theirs, and knows nothing of their pages.
    "preswapd.govern": WORDS
    | {"preswapd.api", "preswapd.host", "preswapd.server.config"}
    | {f"preswapd.server.{name}" for name in ("directories", "sockets")},
    "preswapd.server": WORDS
    | {"preswapd.control", "preswapd.api", "preswapd.preswap", "preswapd.precache"}
    | {"preswapd.block", "preswapd.remote", "preswapd.host"},
    "preswapd.control": WORDS | {"preswapd.api", "preswapd.preswap", "preswapd.precache"},
    "preswapd.preswap": WORDS
    | {"preswapd.block", "preswapd.tmem", "preswapd.remote", "preswapd.host"}
    # What both ends of the control API agree on, and nothing of how it is carried.
    | {
        f"preswapd.api.{name}" for name in ("figures", "kinds", "messages", "settings", "save_file")
    },
    "preswapd.precache": WORDS
    | {"preswapd.block", "preswapd.tmem", "preswapd.remote", "preswapd.host"}
    | {f"preswapd.api.{name}" for name in ("figures", "kinds", "messages", "settings")},
    "preswapd.remote": WORDS
    | {"preswapd.block", "preswapd.tmem", "preswapd.host"}
    | {f"preswapd.api.{name}" for name in ("figures", "messages")},
    "preswapd.block": {"preswapd.api.figures"},
    # A process of its own: it knows neither the server nor what a page is.
    "preswapd.remote.courier": {
        "preswapd.errors",
        "preswapd.log",
        "preswapd.host",
        "preswapd.version",
    },
    "preswapd.tmem": {"preswapd.codecs", "preswapd.errors", "preswapd.units"},
    "preswapd.api": WORDS,
    "preswapd.host": {"preswapd.errors"},
    "preswapd.commandline": {
        "preswapd.errors",
        "preswapd.log",
        "preswapd.paths",
        "preswapd.units",
    },
    "preswapd.paths": {"preswapd.errors"},
    "preswapd.qmp": {"preswapd.errors"},
    "preswapd.codecs": set(),
    "preswapd.log": set(),
    "preswapd.subcommands": set(),
    "preswapd.units": set(),
    "preswapd.version": set(),
    "preswapd.errors": set(),
    "preswapd": set(),
}
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
# What the picture says of one folder's files, a paragraph each.
INSIDE = dict(re.findall(r"^Inside `([\w/]+)/`(.+?)^$", ARCHITECTURE, re.M | re.S))

# The modules that preswapd.subcommands imports are named in its tables, as MODULE:ATTRIBUTE.
PLACE = re.compile(r"((?:preswapd|nbd_plugin)(?:\.\w+)*):\w+")

# Cython is not Python to `ast`, but its imports are written one a line.
CYTHON_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+c?import|c?import[ \t]+([\w.]+))", re.M
)


def sources(*suffixes: str) -> list[Path]:
    return sorted(
        path
        for top in ("preswapd", "nbd_plugin")
        for path in (ROOT / top).rglob("*")
        if path.suffix in suffixes
    )


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sources(".py", ".pyx")}


def nodes(name: str) -> Iterator[ast.AST]:
    path = MODULES[name]
    return ast.walk(ast.parse(path.read_text(), str(path)))


def imports(name: str) -> set[str]:
    """The modules of this project that a module imports, or has imported when a command is run."""
    found: set[str] = set()
    if MODULES[name].suffix == ".pyx":
        for source, plain in CYTHON_IMPORT.findall(MODULES[name].read_text()):
            found.add(source or plain)
    else:
        for node in nodes(name):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}: a relative import"
                assert node.module
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= (inner & MODULES.keys()) or {node.module}
            elif isinstance(node, ast.Constant) and (place := PLACE.fullmatch(str(node.value))):
                found.add(place[1])
    return {target for target in found if target.split(".")[0] in {"preswapd", "nbd_plugin"}}


def layer(name: str) -> str:
    return max((top for top in MAY_IMPORT if f"{name}.".startswith(f"{top}.")), key=len)


def with_parents(name: str) -> set[str]:
    """Importing a module runs the packages above it first."""
    parts = name.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts) + 1)}


def python_modules() -> list[str]:
    return [name for name, path in MODULES.items() if path.suffix == ".py"]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_downwards(name: str) -> None:
    allowed = MAY_IMPORT[layer(name)] | {layer(name)} - {"preswapd"}
    upwards = {
        target
        for target in imports(name)
        if not any(f"{target}.".startswith(f"{top}.") for top in allowed)
    }
    assert not upwards, f"{name} reaches outside its layer"


def test_imports_form_no_cycle() -> None:
    graph = {name: imports(name) - {name} for name in MODULES}
    tuple(TopologicalSorter(graph).static_order())


def test_preswapctl_never_loads_the_server() -> None:
    reached: set[str] = set()
    waiting = with_parents("preswapd.cli.main")
    while waiting:
        reached |= waiting
        named = {target for name in waiting & MODULES.keys() for target in imports(name)}
        waiting = {part for name in named for part in with_parents(name)} - reached
    server_side = {
        "preswapd.server",
        "preswapd.preswap",
        "preswapd.tmem",
        "preswapd.control",
    }
    assert not reached & server_side
    # Also what is imported only when a command is run.
    assert {"preswapd.cli.look.top", "preswapd.qmp"} <= reached


def test_subcommands_alone_are_imported_by_name() -> None:
    """Elsewhere an import could point upwards unseen; what is put off is imported as usual."""
    by_name = re.compile(r"\b(import_module|__import__)\b")
    users = {name for name in python_modules() if by_name.search(MODULES[name].read_text())}
    assert users == {"preswapd.subcommands", "preswapd.server.putting_off"}


@pytest.mark.parametrize("name", sorted(python_modules()))
def test_imports_are_plain(name: str) -> None:
    assert "preswapd" not in imports(name), "the package must not import itself as a whole"
    for node in nodes(name):
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names), "a star import"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = [
                n.lineno for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)
            ]
            assert not inside, f"imports inside {node.name}(), lines {inside}"


def folders() -> list[str]:
    """Those whose files the architecture page names, each in a paragraph of its own."""
    packages = {path.parent.relative_to(ROOT) for path in sources(".py", ".c", ".h")}
    told_whole = {Path("nbd_plugin"), *(Path("preswapd") / name for name in ("", "demo", "guest"))}
    return sorted(str(folder) for folder in packages - told_whole)


@pytest.mark.parametrize("folder", folders())
def test_architecture_names_every_part(folder: str) -> None:
    paths = (ROOT / folder).iterdir()
    suffixes = (".h",) if folder == "preswapd/native" else (".py", ".c")
    parts = {path.name for path in paths if path.suffix in suffixes} - {"__init__.py"}
    built = {f"{path.stem}.c" for path in (ROOT / folder).glob("*.pyx")}
    named = set(re.findall(r"`(\w+\.(?:py|c|h))`", INSIDE[folder]))
    there = parts - built
    assert named == there, f'the paragraph "Inside `{folder}/`" of docs/architecture.md'


@pytest.mark.parametrize("path", sources(".c", ".h"), ids=lambda path: path.name)
def test_c_files_include_downwards(path: Path) -> None:
    """tmem's C knows nothing of the device's, which sees tmem through its one public header; what
    both need of the language is in native/, whose headers stand alone."""
    native = {header.name for header in (ROOT / "preswapd/native").glob("*.h")}
    block = {header.name for header in (ROOT / "preswapd/block").glob("*.h")}
    beside = {header.name for header in path.parent.glob("*.h")}
    below = {
        "native": set(),
        "tmem": native,
        "block": native,
        "remote": native | block | {"tmem.h"},
        "device": native | block | {"tmem.h", "remote.h"},
        "image": native | block | {"tmem.h", "remote.h"},
        "nbd_plugin": set(),
    }[path.parent.name]
    included = set(re.findall(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', path.read_text(), re.M))
    assert included <= (beside if below else set()) | below


def symbols(path: Path, folder: Path) -> tuple[set[str], set[str]]:
    """What a C file defines for others, and what it wants of others."""
    compiled = folder / f"{path.stem}.o"
    command = ["cc", "-std=gnu11", "-fPIC", *INCLUDES, "-c", str(path), "-o", str(compiled)]
    subprocess.run(command, check=True)
    command = ["nm", "--format=posix", "--extern-only", str(compiled)]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kinds = dict(line.split()[:2] for line in listed.splitlines())
    wanted = {name for name, kind in kinds.items() if kind == "U"}
    return kinds.keys() - wanted, wanted


@pytest.mark.parametrize("folder", [name for name in INSIDE if "bottom up" in INSIDE[name]])
def test_c_files_call_downwards(folder: str, tmp_path: Path) -> None:
    """In the order in which the architecture page names them, "from the bottom up"."""
    order = re.findall(r"`(\w+\.c)`", INSIDE[folder])
    found = {name: symbols(ROOT / folder / name, tmp_path) for name in order}
    anywhere = set().union(*(defined for defined, _ in found.values()))
    below: set[str] = set()
    for name, (defined, wanted) in found.items():
        below |= defined
        assert not wanted & anywhere - below, f"{name} calls what stands above it"
