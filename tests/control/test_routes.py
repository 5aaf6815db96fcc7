"""Shrinks as the routes keep them: one at a time, and what is told of it is true."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preswapd.api.wire import ServerFacts
from preswapd.control.routes import Api, Reply, Request
from preswapd.errors import RefusedError
from preswapd.preswap.settings import DeviceSpec
from preswapd.preswap.shrink import ShrinkResult
from tests.preswap.running import MIB, Running
from tests.running import PATIENCE

FACTS = ServerFacts(1, "1.40", 1, "", True, "", "", "", "")


class SlowApi(Api):
    """Shrinks wait until they may end."""

    def __init__(self, running: Running, patch: pytest.MonkeyPatch) -> None:
        super().__init__(running.instance, FACTS)
        self.may_end = threading.Event()
        patch.setattr(running.instance, "shrink", self.wait)

    def wait(self, *args: Any, **more: Any) -> ShrinkResult:
        self.may_end.wait()
        return ShrinkResult(0, 0, 0, complete=True)

    def call(self, method: str, **body: object) -> dict[str, Any]:
        reply = self.serve(method, "/v1/shrink", Request({}, body))
        assert isinstance(reply, Reply)
        return dict(reply.body)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowApi]:
    with Running(tmp_path) as running:
        running.open(DeviceSpec("g1", MIB), DeviceSpec("g2", MIB))
        running.device.connect().pwrite(b"preswapd" * 512 * 5, 4096)
        slow = SlowApi(running, monkeypatch)
        yield slow
        slow.may_end.set()
        if slow.last_shrink is not None:
            slow.last_shrink.ended.wait(PATIENCE)


def test_of_two_shrinks_the_second_is_refused(api: SlowApi) -> None:
    """Also before the first one's thread has come to anything, and the first may be stopped."""
    assert api.call("POST", pages=0, wait=False)["running"]
    first = api.last_shrink
    with pytest.raises(RefusedError, match="under way"):
        api.call("POST", pages=1, wait=False)
    assert (api.last_shrink, api.call("GET")["error"]) == (first, None)
    assert api.call("DELETE")["running"]
    assert first is not None
    assert first.cancelled.is_set()


def test_shrink_without_a_thread_is_not_under_way(
    api: SlowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError):
            api.call("POST", pages=0, wait=False)
    assert not api.call("GET")["running"]
    assert api.call("POST", pages=0, wait=False)["running"]


@pytest.mark.parametrize(("device", "left"), [(None, 5), ("g1", 5), ("g2", 0)])
def test_left_is_of_the_device(api: SlowApi, device: str | None, left: int) -> None:
    assert api.call("POST", pages=0, device=device, wait=False)["left"] == left
