"""What both ends of the control API agree on: paths, limits, errors and the shape of answers."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from preswapd.errors import PreswapError, RefusedError, UsageError

PREFIX = "/v1"
METRICS = "/metrics"

JSON_TYPE = "application/json"
# One JSON object a line: progress lines, then one with the result or an error.
LINES_TYPE = "application/x-ndjson"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

VM_PRESWAP = "vm.preswap"

# Between two lines of a shrink, once its first pages have moved.
PROGRESS_SECONDS = 0.5


class NotFoundError(UsageError):
    """No such device or path."""


# The `code` of an error, its HTTP status, and what the client raises for it.  The first that fits
# an exception is its code, so the narrower class stands before the wider.
ERRORS: Mapping[str, tuple[int, type[PreswapError]]] = {
    "not_found": (404, NotFoundError),
    "usage": (400, UsageError),
    "refused": (409, RefusedError),
    "failed": (500, PreswapError),
}


def error_body(code: str, message: str) -> dict[str, object]:
    return {"error": {"code": code, "message": message}}


def error_code(error: BaseException) -> str:
    """The code under which an exception travels."""
    return next((code for code, (_, kind) in ERRORS.items() if isinstance(error, kind)), "failed")


def error_from(body: object) -> PreswapError | None:
    """The exception that an answer's body stands for, None where it is no error."""
    if not isinstance(body, dict) or not isinstance(body.get("error"), dict):
        return None
    code, message = body["error"].get("code"), body["error"].get("message")
    _, kind = ERRORS.get(str(code), ERRORS["failed"])
    return kind(str(message))


class Message:
    """A dataclass that travels as a JSON object; a newer peer's further fields are ignored."""

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value for name, value in body.items() if name in names})


@dataclass(frozen=True)
class ShrinkStep(Message):
    """How far a shrink is, in pages: the server's ShrinkProgress on its way to a client."""

    moved: int
    left: int
    target: int


@dataclass(frozen=True)
class ShrinkStatus(Message):
    """The shrink that is under way, or the last one since the server's start."""

    running: bool
    moved: int = 0
    left: int = 0
    target: int = 0
    device: str | None = None
    result: Mapping[str, Any] | None = None  # a ShrinkReport, once it has ended
    error: str | None = None


@dataclass(frozen=True)
class ShrinkReport(Message):
    """How a shrink ended, in pages: the server's ShrinkResult."""

    moved: int  # from tmem to disk
    left: int  # still in tmem
    lost: int  # could not be read back from tmem
    complete: bool
    reason: str | None = None  # why it is not complete


@dataclass(frozen=True)
class SwapoffReport(Message):
    """What a swapoff flush dropped, in pages: the server's SwapoffResult."""

    pages: int  # from tmem
    disk_pages: int
    recent_io_seconds: float | None = None  # since the device's last request before it


@dataclass(frozen=True)
class ServerFacts(Message):
    """What the server knows of its own process, for `stats` and `doctor`."""

    pid: int
    nbdkit: str
    threads: int
    threads_reason: str
    structured_replies: bool
    structured_replies_reason: str
    runtime_dir: str
    shm_dir: str
    state_dir: str
    start_time: float = 0.0  # seconds since 1970
