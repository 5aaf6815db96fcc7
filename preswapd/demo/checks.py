# SPDX-License-Identifier: BSD-3-Clause
"""What must hold for the demonstration to succeed: each a sentence and whether it was so."""

from dataclasses import dataclass, field

from preswapd.errors import PreswapError


class DemoError(PreswapError):
    """A step could not be carried out, so that nothing after it can be checked."""


@dataclass(frozen=True)
class Check:
    """A sentence that says what was seen, with its figures."""

    sentence: str
    good: bool


@dataclass
class Checks:
    """All checks in the order in which they were made."""

    made: list[Check] = field(default_factory=list)

    def that(self, good: bool, sentence: str) -> Check:
        """Keeps it; a check that fails stops nothing, so that the rest is seen too."""
        self.made.append(Check(sentence, good))
        return self.made[-1]

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.made if not check.good]
