# SPDX-License-Identifier: BSD-3-Clause
"""What a store answers may be wrong in any way: a small part of the search of remote_replies."""

import pytest

from tests.faults.remote_replies import FAULTS, search


@pytest.mark.parametrize("seed", [1, 2])
def test_no_wrong_answer_makes_a_wrong_page(seed: int) -> None:
    found = search(replies=3000, seed=seed)
    assert found.faults.total() >= 3000
    assert {fault.__name__ for fault in FAULTS} <= found.faults.keys()
    figures = found.remote.figures()
    assert figures["remote_reads"] > 100
    assert figures["remote_wrong"] > 100
    # What is wrong, missing or overwritten was deleted, but for what couriers took with them, of
    # which there are more where the machine is busy.
    assert len(found.store) < figures["remote_sets"] / 4
