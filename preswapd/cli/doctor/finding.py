# SPDX-License-Identifier: BSD-3-Clause
"""One result of a check."""

from dataclasses import asdict, dataclass

OK = "ok"
NOTE = "note"  # works, and is worth knowing
FIX = "fix"  # does not work, or loses what it should give


@dataclass(frozen=True)
class Finding:
    status: str
    subject: str
    text: str
    mend: str | None = None

    def to_json(self) -> dict[str, str | None]:
        return asdict(self)

    def as_text(self) -> str:
        line = f"{self.status:4}  {self.subject}: {self.text}"
        return f"{line}\n      -> {self.mend}" if self.mend else line
