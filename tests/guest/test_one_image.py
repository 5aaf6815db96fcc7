# SPDX-License-Identifier: BSD-3-Clause
"""Two real guests from one image, one of which swaps in the same instance: one_image.py, small."""

from pathlib import Path

import pytest

from preswapd.guest.kernel import Kernel
from tests.guest.one_image import WrongError, all_steps, farm, image, read_by_one
from tests.guest.swapping import MIB, pages

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(500)]

SIZE = 8  # MiB


def test_guests_of_one_image_read_its_file_once_and_right(
    kernel: Kernel, guest_cache: Path, tmp_path: Path
) -> None:
    path = image(tmp_path / "base.raw", SIZE)
    alone = read_by_one(path, tmp_path, kernel, guest_cache)
    assert alone >= SIZE * MIB // 4096
    with farm(path, tmp_path, kernel, guest_cache) as farmed:
        all_steps(farmed, 2, tmp_path, alone)
        assert farmed.figures()["evicted"] > 0, "the pool was large enough for both"


def test_wrong_byte_is_seen(kernel: Kernel, guest_cache: Path, tmp_path: Path) -> None:
    path = image(tmp_path / "base.raw", 3)
    with (
        farm(path, tmp_path, kernel, guest_cache) as farmed,
        farmed.guest(tmp_path, "alone") as guest,
    ):
        assert farmed.content[:MIB] == pages(0)
        farmed.content[2 * MIB + 77] ^= 1
        with pytest.raises(WrongError, match="guest 0 read a wrong byte of MiB 2"):
            farmed.check([guest], written=False)
