# SPDX-License-Identifier: BSD-3-Clause
"""A real cluster as the remote tier, broken in many ways: every page right, no read waits."""

from collections.abc import Iterator

import pytest

from tests.faults.remote_cluster import FAULTS, PAGES, Course, Fault, begun
from tests.remote.networks import NoNetworkError
from tests.remote.stores import needs_store

pytestmark = needs_store


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Course]:
    """Clients at work, and a store that what is said here happens to; patient, as on a busy machine
    an answer may take long."""
    folder = tmp_path_factory.mktemp("cluster")
    try:
        with begun(folder, seed=1, timeout="200ms") as running:
            running.look_until("remote_reads")
            yield running
    except NoNetworkError as error:
        pytest.skip(f"a network of its own cannot be made: {error}")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_cluster_that_is_broken_makes_no_page_wrong_and_no_read_wait(
    course: Course, fault: Fault
) -> None:
    found = course.suffer(fault)
    print(found)
    assert found.checked >= PAGES
