# SPDX-License-Identifier: BSD-3-Clause
"""Structs that stand in a C header and again in Cython, which passes on only what it is told of."""

import re
from pathlib import Path

import pytest

TMEM = Path(__file__).parents[2] / "preswapd" / "tmem"
DECLARED = {
    "tmem_stats": "_tmem.pyx",
    "tmem_pool_stats": "_tmem.pyx",
    "tmem_recovery": "_tmem.pxd",
}


def in_c(struct: str) -> list[tuple[str, str]]:
    """Type and name of each field."""
    body = re.search(rf"^struct {struct} {{\n(.+?)^}};", (TMEM / "tmem.h").read_text(), re.M | re.S)
    assert body
    return fields(re.sub(r"/\*.*?\*/", "", body[1], flags=re.S).split(";"))


def in_cython(struct: str) -> list[tuple[str, str]]:
    text = (TMEM / DECLARED[struct]).read_text()
    body = re.search(rf'ctypedef struct {struct} "struct {struct}":\n((?: {{8}}.+\n)+)', text)
    assert body
    return fields(body[1].splitlines())


def fields(declarations: list[str]) -> list[tuple[str, str]]:
    found = []
    for declaration in filter(str.strip, declarations):
        kind, names = declaration.split(maxsplit=1)
        found += [(kind, name.strip()) for name in names.split(",")]
    return found


@pytest.mark.parametrize("struct", DECLARED)
def test_cython_declares_every_field(struct: str) -> None:
    assert in_cython(struct) == in_c(struct)


def test_all_counters_are_alike() -> None:
    """tmem_get_stats() reads them as an array."""
    assert {kind for kind, _ in in_c("tmem_stats")} == {"uint64_t"}
