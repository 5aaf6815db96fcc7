# SPDX-License-Identifier: BSD-3-Clause
"""What both ends of the control API agree on: paths, types of content, errors."""

from collections.abc import Mapping

from preswapd.errors import PartialError, PreswapError, RefusedError, UsageError

PREFIX = "/v1"
METRICS = "/metrics"

JSON_TYPE = "application/json"
# One JSON object a line: progress lines, then one with the result or an error.
LINES_TYPE = "application/x-ndjson"
# What `save` writes and `restore` reads: api/save_file.py.
SAVE_TYPE = "application/x-preswapd-save"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Why a setting that is in force now would not be after a restart; only where that is so.
NOT_KEPT = "not_kept"

# Between two lines of a shrink, once its first pages have moved.
PROGRESS_SECONDS = 0.5


class NotFoundError(UsageError):
    """No such device or path."""


class NotKeptError(PartialError):
    """A setting is in force, with this value, but not for the next start."""

    def __init__(self, key: str, value: int | str, why: str) -> None:
        super().__init__(
            f"{key} is in force, but not kept for a restart of the server: {why}; make room, and it"
            " is kept within seconds"
        )
        self.value = value


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
