# SPDX-License-Identifier: BSD-3-Clause
"""Answers of the control API as a strict client reads them."""

import re

HEAD = re.compile(
    rb"HTTP/1\.[01] ([1-5][0-9][0-9]) [ -~]*\r\n((?:[!-9;-~]+: [ -~]*\r\n)*)\r\n",
)
CHUNK = re.compile(rb"([0-9a-f]+)\r\n")
CONTINUE = 100


class Wrong(Exception):
    """What must not happen, whatever the input."""


def statuses(answers: bytes) -> list[int]:
    """Of all answers on a connection that was closed; Wrong when they are no HTTP."""
    found = []
    while answers:
        head = HEAD.match(answers)
        if head is None:
            raise Wrong(f"no answer: {answers[:200]!r}")
        found.append(int(head[1]))
        answers = answers[head.end() :]
        fields = headers(head[2])
        if found[-1] != CONTINUE and not is_behind_head_only(answers):
            answers = answers[body_length(fields, answers) :]
    return found


def headers(text: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for line in text.splitlines():
        name, _, value = line.partition(b": ")
        if name in found:
            raise Wrong(f"{name!r} twice")
        found[name] = value
    return found


def is_behind_head_only(rest: bytes) -> bool:
    """HEAD is answered without a body, and no body here begins like an answer."""
    return rest == b"" or rest.startswith(b"HTTP/")


def body_length(fields: dict[bytes, bytes], rest: bytes) -> int:
    if fields.get(b"Transfer-Encoding") == b"chunked":
        return chunked_length(rest)
    length = int(fields[b"Content-Length"])
    if length > len(rest):
        raise Wrong("an answer is cut off")
    return length


def chunked_length(rest: bytes) -> int:
    at = 0
    while chunk := CHUNK.match(rest, at):
        length = int(chunk[1], 16)
        at = chunk.end() + length + 2
        if length == 0:
            return at
    raise Wrong("a chunk is cut off")
