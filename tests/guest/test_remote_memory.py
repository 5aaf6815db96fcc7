# SPDX-License-Identifier: BSD-3-Clause
"""A real guest whose cold memory lives in a cluster: nodes die, and every byte is right."""

from pathlib import Path

import pytest

from preswapd.guest.kernel import Kernel
from tests.guest.remote_memory import all_killed, begun, node_killed
from tests.remote.stores import needs_store

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(400), needs_store]


def test_guest_whose_memory_is_in_a_cluster_that_breaks_sees_nothing(
    kernel: Kernel, guest_cache: Path, tmp_path: Path
) -> None:
    with begun(kernel, guest_cache, tmp_path, seed=1) as course:
        course.turn(node_killed)
        course.turn(all_killed)
        print(course.end())
