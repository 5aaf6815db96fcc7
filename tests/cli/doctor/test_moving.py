# SPDX-License-Identifier: BSD-3-Clause
"""What doctor says of a device that moves from one host to another."""

from typing import Any, cast

import pytest

from preswapd.api.figures import DeviceFigures
from preswapd.api.messages import PullStatus
from preswapd.cli.doctor.finding import FIX, NOTE, OK, Finding
from preswapd.cli.doctor.moving import check_moving

URI = "nbd://hosta/g1"
AT_REST = {"guest": "here", "source": "", "pending_pages": 0}
PULLING = {"guest": "here", "source": URI, "pending_pages": 5}


def found(figures: dict[str, Any], **status: Any) -> list[Finding]:
    pull = PullStatus(URI, **{"taken": True, "pending": 5, "fetched": 1, **status})
    return list(
        check_moving(
            "device g1",
            cast(DeviceFigures, figures),
            pull if figures.get("source") else None,
            lambda *words: " ".join(words),
        )
    )


@pytest.mark.parametrize("figures", [AT_REST, {}])
def test_device_at_rest_or_of_an_older_server(figures: dict[str, Any]) -> None:
    assert found(figures) == []


def test_taken_by_another_host() -> None:
    (one,) = found({**AT_REST, "guest": "gone"})
    assert (one.status, one.command) == (NOTE, "swapoff")


def test_being_fetched() -> None:
    (one,) = found(PULLING)
    assert one.status == OK
    assert "5 pages (20K) are on nbd://hosta/g1 still" in one.text


def test_its_guest_is_coming() -> None:
    (one,) = found({**PULLING, "guest": "coming"}, taken=False)
    assert (one.status, "until its guest comes" in one.text) == (NOTE, True)


def test_source_is_away() -> None:
    (one,) = found(PULLING, trouble="no answer in time")
    assert (one.status, one.command) == (FIX, "pull --abandon")
    assert "cannot be had now: no answer in time" in one.text


def test_source_is_still_to_be_told() -> None:
    told = {**PULLING, "pending_pages": 0}
    assert found(told, pending=0, complete=True) == []
    (one,) = found(told, pending=0, complete=True, trouble="no answer in time")
    assert (one.status, one.command) == (NOTE, "pull --abandon")


def test_nothing_says_where_its_pages_are() -> None:
    (one,) = found({**PULLING, "source": ""})
    assert (one.status, one.command) == (FIX, "pull --abandon")
