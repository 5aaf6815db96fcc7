# SPDX-License-Identifier: BSD-3-Clause
"""What the long run of migrations rests on (migrations.py); it boots no guest here."""

import socket
from pathlib import Path

import pytest

from tests.guest.migrations import FAILURES, HARMS, WrongError, check_rounds, planned
from tests.guest.relay import Relay
from tests.guest.stamped import Seen
from tests.running import wait_until


@pytest.mark.parametrize(
    "wrong",
    [
        Seen("c", 9, 1, 0, 0, 0),
        Seen("c", 9, 0, 1, 0, 0),
        Seen("w", 9, 0, 0, 1, 0),
        Seen("c", 9, 0, 0, 0, 1),
        Seen("c", 9, 0, 0, 0, 0),
    ],
)
def test_wrong_page_is_seen(wrong: Seen) -> None:
    right = Seen("w", 10, 0, 0, 0, 0)
    check_rounds([right, right], 10)
    with pytest.raises(WrongError, match="round 1 of the guest"):
        check_rounds([right, wrong], 10)


def test_each_failure_meets_each_harm() -> None:
    whole = len(FAILURES) * len(HARMS)
    assert len({planned(number) for number in range(whole)}) == whole
    ten = [planned(number) for number in range(10)]
    assert {failure for failure, _ in ten} == set(FAILURES)
    assert {harm for _, harm in ten} == set(HARMS)


def test_network_is_cut_and_mended(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, Relay(tmp_path / "at", tmp_path / "to") as relay:
        server.bind(str(tmp_path / "to"))
        server.listen()
        with connected(relay) as client, server.accept()[0] as end:
            client.sendall(b"there")
            assert end.recv(100) == b"there"
            end.sendall(b"back")
            assert client.recv(100) == b"back"
            relay.cut()
            assert (client.recv(100), end.recv(100)) == (b"", b"")
        with connected(relay) as client:
            assert client.recv(100) == b""
        relay.mend()
        with connected(relay) as client, server.accept()[0] as end:
            client.close()
            wait_until(lambda: end.recv(100) == b"", "the end to arrive")


def connected(relay: Relay) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(str(relay.at))
    return made
