# SPDX-License-Identifier: BSD-3-Clause
"""What both ends agree on."""

import pytest

from preswapd.api.messages import ShrinkResult
from preswapd.api.wire import (
    ERRORS,
    NotFoundError,
    error_body,
    error_code,
    error_from,
)
from preswapd.errors import PreswapError, RefusedError, UnreachableError, UsageError


@pytest.mark.parametrize("kind", [NotFoundError, UsageError, RefusedError])
def test_errors_keep_their_class(kind: type[PreswapError]) -> None:
    arrived = error_from(error_body(error_code(kind("why")), "why"))
    assert type(arrived) is kind
    assert str(arrived) == "why"


@pytest.mark.parametrize("error", [PreswapError("x"), UnreachableError("x"), OSError("x")])
def test_other_errors_are_failures(error: Exception) -> None:
    assert error_code(error) == "failed"


def test_code_of_a_newer_server() -> None:
    assert type(error_from(error_body("teapot", "x"))) is PreswapError


@pytest.mark.parametrize("body", [None, [], {}, {"error": "x"}, {"result": {}}])
def test_what_is_no_error(body: object) -> None:
    assert error_from(body) is None


def test_statuses_say_error() -> None:
    assert all(status >= 400 for status, _ in ERRORS.values())


def test_fields_of_a_newer_server_are_ignored() -> None:
    report = ShrinkResult.from_json(
        {"moved": 1, "left": 2, "lost": 0, "complete": True, "reason": None, "new": 1}
    )
    assert report == ShrinkResult(1, 2, 0, True)
