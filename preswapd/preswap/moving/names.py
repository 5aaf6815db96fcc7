# SPDX-License-Identifier: BSD-3-Clause
"""What two servers say to each other over NBD: docs/moving.md, "Between two servers".

The target asks for exports that no guest asks for: a device's name, what is wanted, and for whom.
"""

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

# What is wanted.  An answer is a small export whose content is JSON.
LIFE = "life"  # an answer: which life may be pulled from, or why none
TAKE = "take"  # an answer: it serves this arrival alone from now on
RELEASE = "release"  # an answer: this arrival has all of it, and its pages go
PULL = "pull"  # the device, read-only
MAP = "map"  # what each page is, a byte each
READ_AT_LENGTH = (PULL, MAP)

# Answers to TAKE and RELEASE.
DONE = "done"
OTHER_LIFE = "other life"  # the pages that were announced are gone for good
ELSEWHERE = "elsewhere"  # another arrival has taken it

# Each answer also says who gives it: `home`, which stays over reboots.  That a life is over is for
# its own home to say, not for whoever happens to answer at the same address.
ANSWER_BYTES = 512
# A device's name has no such sign.
NAME = re.compile(
    r"(?P<device>[^?]*)\?(?P<word>life|(?:take|release|pull|map)"
    r"=(?P<life>[0-9a-f]{16})/(?P<arrival>[0-9a-f]{16}))"
)


class Wanted(NamedTuple):
    device: str
    word: str
    life: int = 0
    arrival: int = 0

    @property
    def export(self) -> str:
        if self.word == LIFE:
            return f"{self.device}?{LIFE}"
        return f"{self.device}?{self.word}={self.life:016x}/{self.arrival:016x}"


def parse(export: str) -> Wanted | None:
    """None: it is no such name."""
    found = NAME.fullmatch(export)
    if found is None:
        return None
    word = found["word"].partition("=")[0]
    numbers = (int(found[name] or "0", 16) for name in ("life", "arrival"))
    return Wanted(found["device"], word, *numbers)


def answer(body: Mapping[str, object]) -> bytes:
    """As short texts only are in it, it fits."""
    content = json.dumps(body).encode()
    assert len(content) < ANSWER_BYTES
    return content.ljust(ANSWER_BYTES)


def answered(content: bytes) -> dict[str, object]:
    """ValueError: that was no answer."""
    body = json.loads(content)
    if not isinstance(body, dict):
        raise ValueError
    return body
