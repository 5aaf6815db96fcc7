# SPDX-License-Identifier: BSD-3-Clause
"""The host's end of the command port, with a guest's end that a thread plays."""

import base64
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from preswapd.guest.channel import Channel, ChannelClosedError, Outcome

Play = Callable[[str, str], bytes]


def answer(number: str, output: str, status: int = 0) -> bytes:
    return f"{number} {status} {base64.b64encode(output.encode()).decode()}\n".encode()


def serve(connection: socket.socket, play: Play) -> None:
    """Answers each request with what `play` makes of its number and command."""
    with connection, connection.makefile("rb") as requests:
        for line in requests:
            number, code = line.decode().split()
            connection.sendall(play(number, base64.b64decode(code).decode()))


@pytest.fixture
def channel_to() -> Iterator[Callable[[Play], Channel]]:
    threads: list[threading.Thread] = []
    channels: list[Channel] = []

    def open_channel(play: Play) -> Channel:
        here, there = socket.socketpair()
        channels.append(Channel(here))
        threads.append(threading.Thread(target=serve, args=(there, play)))
        threads[-1].start()
        return channels[-1]

    yield open_channel
    for channel in channels:
        channel.close()
    for thread in threads:
        thread.join(10)


ChannelTo = Callable[[Play], Channel]


def test_run_returns_status_and_output(channel_to: ChannelTo) -> None:
    channel = channel_to(lambda number, command: answer(number, f"did {command}\n", 3))
    assert channel.run("ls; false", 10) == Outcome(3, "did ls; false\n")


def test_run_takes_commands_one_after_the_other(channel_to: ChannelTo) -> None:
    channel = channel_to(lambda number, command: answer(number, command))
    assert [channel.run(word, 10).output for word in ("one", "two")] == ["one", "two"]


def test_run_without_an_answer_times_out(channel_to: ChannelTo) -> None:
    channel = channel_to(lambda number, command: b"")
    with pytest.raises(TimeoutError):
        channel.run("sleep 1000", 0.05)


def test_run_throws_late_answers_away(channel_to: ChannelTo) -> None:
    late: list[bytes] = []

    def play(number: str, command: str) -> bytes:
        late.append(answer(number, command))
        return b"" if len(late) == 1 else b"".join(late)

    channel = channel_to(play)
    with pytest.raises(TimeoutError):
        channel.run("slow", 0.05)
    assert channel.run("quick", 10).output == "quick"


def test_run_ignores_lines_that_are_no_answer(channel_to: ChannelTo) -> None:
    channel = channel_to(lambda number, command: b"\nrandom: crng init\n" + answer(number, "ok"))
    assert channel.run("x", 10).output == "ok"


def test_run_after_the_other_end_closed() -> None:
    here, there = socket.socketpair()
    there.close()
    channel = Channel(here)
    with pytest.raises(ChannelClosedError):
        channel.run("x", 10)
    channel.close()


def test_greeting_is_answer_zero() -> None:
    here, there = socket.socketpair()
    channel = Channel(here)
    there.sendall(answer("0", "6.1.0\n"))
    assert channel.greeting(10).output == "6.1.0\n"
    channel.close()
    there.close()
