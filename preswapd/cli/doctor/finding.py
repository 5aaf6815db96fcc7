# SPDX-License-Identifier: BSD-3-Clause
"""One result of a check."""

from dataclasses import dataclass

OK = "ok"
NOTE = "note"  # works, and is worth knowing
FIX = "fix"  # does not work, or loses what it should give


@dataclass(frozen=True)
class Finding:
    """`mend` says what to do; `command` does it, typed as it is."""

    status: str
    subject: str
    text: str
    mend: str | None = None
    command: str | None = None

    @property
    def advice(self) -> str | None:
        return ": ".join(part for part in (self.mend, self.command) if part) or None

    def to_json(self) -> dict[str, str | None]:
        return {
            "status": self.status,
            "subject": self.subject,
            "text": self.text,
            "mend": self.advice,
            "command": self.command,
        }

    def as_text(self) -> str:
        line = f"{self.status:4}  {self.subject}: {self.text}"
        return f"{line}\n      -> {self.advice}" if self.advice else line
