# SPDX-License-Identifier: BSD-3-Clause
"""What the kernel says of itself."""

from pathlib import Path

import pytest

from preswapd.host.kernel import boot_id, is_on


def test_boot_is_the_same_all_along() -> None:
    assert len(boot_id()) == 36
    assert boot_id() == boot_id()


@pytest.mark.parametrize(
    ("text", "on"), [("Y\n", True), ("1\n", True), ("N\n", False), ("0\n", False), ("", False)]
)
def test_parameter(tmp_path: Path, text: str, on: bool) -> None:
    parameter = tmp_path / "enabled"
    parameter.write_text(text)
    assert is_on(parameter) is on


def test_parameter_of_a_module_that_is_not_loaded(tmp_path: Path) -> None:
    assert is_on(tmp_path / "enabled") is False
