# SPDX-License-Identifier: BSD-3-Clause
"""A store that answers what cannot be: its connection is given up, and each request is answered
once, under its own id and place."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from preswapd.remote.courier.node import MOST_SAID
from tests.remote.courier.carried import (
    AWAY,
    ERROR,
    FOUND,
    STORED,
    RunningCourier,
    name_of,
    written,
)
from tests.remote.courier.conftest import StartCourier
from tests.remote.courier.fake import HANG_UP, PROBE, FakeStore, bulk, right, value_of
from tests.running import wait_until

NAMES = [name_of(number) for number in range(1, 9)]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeStore]:
    with FakeStore(tmp_path) as store:
        yield store


@pytest.fixture
def courier(fake: FakeStore, start_courier: StartCourier) -> RunningCourier:
    return start_courier(fake.url, timeout_ms=500).ready()


def on_get(data: bytes) -> Callable[[list[bytes]], bytes]:
    """An answer to gets, but not to those by which a new connection is tried."""
    return lambda words: data if words[0] == b"GET" and words[1] != PROBE else right(words)


def is_right(courier: RunningCourier) -> bool:
    answers = courier.get(*NAMES)
    return [answer.payload for answer in answers] == [value_of(name) for name in NAMES]


def test_what_a_right_one_answers(courier: RunningCourier) -> None:
    assert is_right(courier)
    assert courier.set(NAMES[0], b"x") == STORED


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n",
        b"\0\0\0\0",
        b"$5\r\n1234567\r\n",
        b"$-7\r\n",
        b"$x\r\n",
        b":5\r\n",
        b"*1\r\n$1\r\nx\r\n",
        b"*2\r\n*2\r\n:1\r\n:2\r\n+OK\r\n",
        b"*-1\r\n$1",
        b"%1\r\n+a\r\n+b\r\n",
        b">1\r\n+message\r\n",
        b"#t\r\n",
        b",1.5\r\n",
        b"_\r\n:1\r\n",
        b"*1\r\n" * 100,
        # A name is in the environment of what its test starts, and older pytest does not cut it.
        pytest.param(bulk(bytes(4201)), id="a byte too long"),
        pytest.param(bulk(bytes(100_000)), id="much too long"),
        bulk(b"a page") + b"garbage\r\n",
        b"$100\r\nhalf of it" + HANG_UP,
        HANG_UP,
        b"-\r\n" + HANG_UP,
    ],
)
def test_answers_that_are_none(data: bytes, fake: FakeStore, courier: RunningCourier) -> None:
    fake.answer = on_get(data)
    for _ in range(3):
        courier.get(*NAMES)
    fake.answer = right
    wait_until(lambda: is_right(courier), "right answers")


def test_answers_that_do_not_come(fake: FakeStore, courier: RunningCourier) -> None:
    fake.answer = lambda words: b"" if words[-1] != PROBE else right(words)
    assert {answer.status for answer in courier.get(*NAMES)} == {AWAY}
    courier.wait_for_error("does not answer within 500 ms")
    fake.answer = right
    wait_until(lambda: is_right(courier), "right answers")


def test_gets_that_are_not_answered_while_all_else_is(
    fake: FakeStore, courier: RunningCourier
) -> None:
    """What a ping brings back is not a page."""
    fake.answer = on_get(b"")
    assert {answer.status for answer in courier.get(*NAMES)} <= {AWAY, ERROR}
    courier.wait_for(lambda status: bool(status["error"]), "error")
    fake.answer = right
    wait_until(lambda: is_right(courier), "right answers")


def test_half_an_answer(fake: FakeStore, courier: RunningCourier) -> None:
    halves = [b"$100\r\nhalf of it"]
    fake.answer = lambda words: halves.pop() if halves and words[0] == b"GET" else b""
    assert {answer.status for answer in courier.get(*NAMES)} == {AWAY}
    fake.answer = right
    wait_until(lambda: is_right(courier), "right answers")


def test_an_answer_without_an_end(fake: FakeStore, start_courier: StartCourier) -> None:
    """It is not given up for being late: on a busy machine so much takes seconds."""
    courier = start_courier(fake.url, timeout_ms=30_000).ready()
    fake.answer = on_get(b"$500000000\r\n" + bytes(9 << 20))
    assert {answer.status for answer in courier.get(*NAMES)} == {AWAY}
    courier.wait_for_error("does not end")
    fake.answer = right
    wait_until(lambda: is_right(courier), "right answers")


def test_a_list_of_a_thousand_million(fake: FakeStore, courier: RunningCourier) -> None:
    fake.answer = on_get(b"*1000000000\r\n")
    assert {answer.status for answer in courier.get(*NAMES)} <= {AWAY, ERROR}
    courier.wait_for_error("emory")
    fake.answer = right
    wait_until(lambda: is_right(courier), "right answers")


def test_one_while_it_is_connected(fake: FakeStore, start_courier: StartCourier) -> None:
    """Whatever comes of an attempt, there is another one."""
    lists = [b"*1000000000\r\n"]
    fake.answer = lambda words: lists.pop() if lists and words[-1] == PROBE else right(words)
    start_courier(fake.url, timeout_ms=500).ready()
    assert not lists


def test_what_nobody_asked(fake: FakeStore, courier: RunningCourier) -> None:
    fake.say(bulk(b"a page"))
    courier.wait_for_error("what was not asked")
    wait_until(lambda: is_right(courier), "right answers")


def test_one_answer_too_many(fake: FakeStore, courier: RunningCourier) -> None:
    fake.answer = on_get(bulk(b"first") + bulk(b"second"))
    [answer] = courier.get(NAMES[0])
    assert (answer.status, answer.payload) == (FOUND, b"first")
    # The second one belongs to nobody: it is not the next request's.
    fake.answer = right
    courier.wait_for_error("what was not asked")
    wait_until(lambda: is_right(courier), "right answers")


def test_one_answer_too_few(fake: FakeStore, courier: RunningCourier) -> None:
    """What no protocol without ids can see at once is seen at the next look at the node: until
    then what is answered does not open under the name that it was asked by."""
    left_out = [b"GET"]

    def answer(words: list[bytes]) -> bytes:
        if words[0] in left_out and words[1] != PROBE:
            left_out.clear()
            return b""
        return right(words)

    fake.answer = answer
    ids = [courier.new_id() for _ in range(5)]
    for id_ in ids:
        courier.send("g", id_, NAMES[0])
    for id_ in ids[:-1]:
        courier.answers(id_, 1)
    # The last one waits, for one that is another's or for the connection's end.
    [answer_] = courier.answers(ids[-1], 1)
    assert answer_.status in (AWAY, ERROR, FOUND)
    courier.wait_for(lambda status: bool(status["error"]), "error")
    wait_until(lambda: is_right(courier), "right answers")


@pytest.mark.parametrize(
    "data", [b":1\r\n", b"$-1\r\n", b"+QUEUED\r\n", bulk(b"a page"), b"*0\r\n"]
)
def test_a_set_that_is_answered_by_something_else(
    data: bytes, fake: FakeStore, courier: RunningCourier
) -> None:
    fake.answer = lambda words: data if words[0] == b"SET" else right(words)
    assert courier.set(NAMES[0], b"x") != STORED
    fake.answer = right
    wait_until(lambda: courier.set(NAMES[0], b"x") == STORED, "a set")


@pytest.mark.parametrize(
    "error",
    [
        b"MOVED",
        b"MOVED 1",
        b"MOVED x y:z",
        b"MOVED 99999 127.0.0.1:1",
        b"MOVED -1 127.0.0.1:1",
        b"MOVED 1 127.0.0.1:99999",
        b"MOVED 1 :",
        b"ASK 1 []:1",
        b"ASK 5 127.0.0.1:1",
        b"MOVED 5 127.0.0.1:1",
        b"\xff\xfe",
    ],
)
def test_redirections_to_nowhere(error: bytes, fake: FakeStore, courier: RunningCourier) -> None:
    fake.answer = on_get(b"-" + error + b"\r\n")
    for _ in range(5):
        assert {answer.status for answer in courier.get(*NAMES)} <= {AWAY, ERROR}
    fake.answer = right
    wait_until(lambda: is_right(courier), "right answers")


@pytest.mark.parametrize(
    "data",
    [
        b"+OK\r\n",
        b":1\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n:99999\r\n*2\r\n$1\r\nx\r\n:1\r\n",
        b"*1\r\n*3\r\n:5\r\n:1\r\n*2\r\n$1\r\nx\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\nx\r\n:0\r\n",
        b"*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n:1\r\n:1\r\n",
        b"*1\r\n*2\r\n:0\r\n:1\r\n",
        b"*1\r\n*3\r\n$1\r\na\r\n:1\r\n*2\r\n$1\r\nx\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n,inf\r\n*2\r\n$1\r\nx\r\n:1\r\n",
        b"*1\r\n-ERR no\r\n",
        b"%1\r\n+a\r\n+b\r\n",
    ],
)
def test_maps_that_are_none(data: bytes, fake: FakeStore, start_courier: StartCourier) -> None:
    fake.answer = lambda words: data if words[0] == b"CLUSTER" else right(words)
    courier = start_courier(fake.url, timeout_ms=500)
    courier.wait_for(lambda status: bool(status["error"]), "error")
    assert courier.statuses[-1]["state"] == "away"
    fake.answer = right
    courier.ready()
    assert is_right(courier)


@pytest.mark.parametrize(
    "data",
    [
        b"+OK\r\n",
        bulk(bytes(range(256))),
        b"$-1\r\n",
        bulk(b"maxmemory:x\r\n"),
        bulk(b"maxmemory:%b\r\n" % (b"9" * 5000)),
    ],
)
def test_info_that_is_none(data: bytes, fake: FakeStore, start_courier: StartCourier) -> None:
    fake.answer = lambda words: data if words[0] == b"INFO" else right(words)
    courier = start_courier(fake.url, timeout_ms=500)
    courier.wait_for(lambda status: len(courier.statuses) > 2, "statuses")
    fake.answer = right
    wait_until(lambda: is_right(courier), "right answers")


@pytest.mark.parametrize("password", ["open  sesame", "sesame" * 100])
def test_a_password_that_is_said_back(
    password: str, fake: FakeStore, start_courier: StartCourier, tmp_path: Path
) -> None:
    """As a server does that has no such command, up to a length: what it says is logged and
    shown."""

    def answer(words: list[bytes]) -> bytes:
        if words[0] != b"AUTH":
            return right(words)
        said = b" ".join(b"'%b'" % word for word in words[1:])[:128]
        return b"-ERR unknown command 'AUTH', with args beginning with: %b\r\n" % said

    fake.answer = answer
    courier = start_courier(fake.url, password_file=written(password, tmp_path))
    courier.wait_for_error("unknown command 'AUTH', with args beginning with: '(password)")
    assert "sesame" not in str(courier.statuses)


def test_a_store_that_says_too_much_of_itself(fake: FakeStore, start_courier: StartCourier) -> None:
    """A longer frame than there is would be the courier's end."""
    long = bulk(b"redis_version:%b\r\n" % (b"7" * (1 << 20)))
    fake.answer = lambda words: long if words[0] == b"INFO" else right(words)
    courier = start_courier(fake.url, timeout_ms=500)
    courier.wait_for_error("too much of itself")
    assert courier.statuses[-1]["state"] == "ok"
    assert courier.statuses[-1]["nodes"] == []


def test_an_error_that_explains_a_lot(fake: FakeStore, start_courier: StartCourier) -> None:
    """What is wrong is said first, and lines of a log and of doctor have an end."""
    fake.answer = lambda words: b"-ERR what is wrong %b\r\n" % (b"and more " * 40_000)
    courier = start_courier(fake.url, timeout_ms=500)
    error = courier.wait_for_error("ERR what is wrong and more")["error"]
    assert len(error) <= MOST_SAID + 1


@pytest.mark.parametrize("password", [None, "sesame"])
def test_one_that_lets_nobody_in(
    password: str | None, fake: FakeStore, start_courier: StartCourier, tmp_path: Path
) -> None:
    """It says why before it is asked, and hangs up: as Redis does without a password of hosts
    that are not its own, which is the first that many see of it."""
    fake.greeting = b"-DENIED Redis is running in protected mode\r\n" + HANG_UP
    file = password and written(password, tmp_path)
    courier = start_courier(fake.url, password_file=file)
    courier.wait_for_error("DENIED Redis is running in protected mode")


def test_anything_at_all(fake: FakeStore, start_courier: StartCourier) -> None:
    """Whatever comes, each request is answered once, and what is found was said by the store."""
    courier = start_courier(fake.url, timeout_ms=50, probe_s=0.2).ready()
    rng = random.Random(12)
    pieces = [
        b"$",
        b"*",
        b"+",
        b"-",
        b":",
        b"\r\n",
        b"5",
        b"-1",
        b"OK",
        b"MOVED 1 a:1",
        b"\0",
        b"%2",
    ]

    def answer(words: list[bytes]) -> bytes:
        if rng.random() < 0.7 or words[-1] == PROBE:
            return right(words)
        return b"".join(rng.choices(pieces, k=rng.randint(0, 6)))

    fake.answer = answer
    for number in range(2000):
        names = rng.sample(NAMES, rng.randint(1, len(NAMES)))
        assert len(courier.get(*names)) == len(names)
        if number % 5 == 0:
            courier.set(names[0], b"x")
    fake.answer = right
    wait_until(lambda: is_right(courier), "right answers")
    assert courier.process.poll() is None
