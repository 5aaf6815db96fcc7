# SPDX-License-Identifier: BSD-3-Clause
"""What `preswapctl pull` and `list` say of a device whose pages are on another host."""

from typing import Any, cast

import pytest

from preswapd.api.client import Client
from preswapd.api.figures import DeviceFigures
from preswapd.api.messages import PullStatus
from preswapd.cli.look.list import moving
from preswapd.cli.steer.pull import followed, sentence, stakes
from preswapd.errors import PartialError

URI = "nbd://hosta/g1"


def status(**changes: Any) -> PullStatus:
    return PullStatus(**{"source": URI, "taken": True, "pending": 5, "fetched": 3, **changes})


def test_sentence() -> None:
    left = f"g1: 5 pages (20K) are still on {URI}"
    assert sentence("g1", status()) == f"{left}, 3 pages (12K) were fetched"
    assert sentence("g1", status(fetched=0, rate=1 << 20)) == f"{left}, at 1M/s at most"
    assert sentence("g1", status(fetched=0, trouble="no answer in time")) == (
        f"{left}; nothing comes now: no answer in time"
    )
    assert sentence("g1", status(fetched=0, taken=False)).endswith("so none is kept")


def test_all_is_here_and_the_source_has_still_to_hear_of_it() -> None:
    """Until then it keeps the pages, and its operator finds a device that was taken."""
    here = status(pending=0, complete=True)
    text = f"g1 has all its pages; {URI} has still to hear of it"
    assert sentence("g1", here) == text
    away = status(pending=0, complete=True, trouble="no answer in time")
    assert sentence("g1", away) == f"{text}: no answer in time"
    assert sentence("g1", PullStatus("", True, 0, 0, complete=True)) == "g1 has all its pages"


def listed(**figures: Any) -> str | None:
    return moving("g1", cast(DeviceFigures, {"guest": "here", "source": URI, **figures}))


def test_list() -> None:
    assert listed(source="") is None
    assert (
        listed(pending_pages=5) == f"5 pages (20K) of g1 are still on {URI}: `preswapctl pull g1`"
    )
    assert listed(pending_pages=0) == f"g1 has all its pages, and {URI} keeps them until it is told"
    assert "another host has taken g1" in str(listed(guest="gone", source=""))


def test_ctrl_c_ends_the_waiting_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("preswapd.cli.steer.pull.time.sleep", interrupted)
    with pytest.raises(PartialError, match="goes on without you: g1: 5 pages"):
        followed(cast(Client, None), "g1", status())


def test_what_is_given_up() -> None:
    text = stakes("g1", status())
    assert "5 pages (20K) of g1 are only on nbd://hosta/g1" in text
    assert "`preswapctl swapoff g1` there" in text
    text = stakes("g1", status(taken=False))
    assert "is not to come here" in text
