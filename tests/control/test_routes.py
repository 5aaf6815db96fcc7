# SPDX-License-Identifier: BSD-3-Clause
"""Shrinks as the routes show them: one at a time, and what is told of it is true."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preswapd.api.messages import ServerFacts
from preswapd.api.wire import NotFoundError
from preswapd.control.routes import Api, Followed, Reply, Request
from preswapd.errors import RefusedError, UsageError
from preswapd.preswap.settings import DeviceSpec
from preswapd.preswap.writeback.moves import Writeback
from tests.preswap.running import MIB, Running
from tests.running import PATIENCE

FACTS = ServerFacts(1, "1.40", 1, "", True, "", "", "", "")
QUOTA = "preswap.test.g1.quota"


class SlowApi(Api):
    """Shrinks wait until they may move their first page."""

    def __init__(self, running: Running, patch: pytest.MonkeyPatch) -> None:
        super().__init__(running.instance, FACTS)
        self.may_go_on = threading.Event()
        run = Writeback.run

        def wait(work: Writeback) -> Any:
            self.may_go_on.wait()
            return run(work)

        patch.setattr(Writeback, "run", wait)

    def call(self, method: str, path: str = "/v1/shrink", **body: object) -> dict[str, Any]:
        reply = self.serve(method, path, Request({}, body))
        assert isinstance(reply, Reply)
        return dict(reply.body)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowApi]:
    with Running(tmp_path) as running:
        running.paths.runtime_dir.mkdir()
        running.open(DeviceSpec("g1", MIB), DeviceSpec("g2", MIB))
        running.device.connect().pwrite(b"preswapd" * 512 * 5, 4096)
        slow = SlowApi(running, monkeypatch)
        yield slow
        slow.may_go_on.set()


def test_device_that_is_made_while_it_is_asked_for_is_not_there_yet(
    api: SlowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = api.instance
    stats = instance.stats

    def stats_and_create() -> Any:
        found = stats()
        instance.create("g3", MIB)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(instance, "stats", stats_and_create)
        with pytest.raises(NotFoundError, match="no device 'g3'"):
            api.call("GET", "/v1/devices/g3")
    assert api.call("GET", "/v1/devices/g3")["name"] == "g3"


def test_of_two_shrinks_the_second_is_refused(api: SlowApi) -> None:
    """Also before the first one's thread has come to anything, and the first may be stopped."""
    assert api.call("POST", pages=0, wait=False)["running"]
    first = api.instance.shrinks.last
    with pytest.raises(RefusedError, match="under way"):
        api.call("POST", pages=1, wait=False)
    assert (api.instance.shrinks.last, api.call("GET")["error"]) == (first, None)
    assert api.call("DELETE")["running"]
    assert first is not None
    assert first.stopped.is_set()


def test_shrink_without_a_thread_is_not_under_way(
    api: SlowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError):
            api.call("POST", pages=0, wait=False)
    assert not api.call("GET")["running"]
    assert api.call("POST", pages=0, wait=False)["running"]


def test_limit_without_a_thread_is_set_and_tried_again(
    api: SlowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preswapd.preswap.writeback.fitting.RETRY_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        assert api.call("PUT", "/v1/sysctl", key=QUOTA, value=1) == {QUOTA: 1}
    assert not api.call("GET")["running"]
    api.instance.fitting.turn()
    assert (api.call("GET")["running"], api.call("GET")["setting"]) == (True, QUOTA)


def no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(("device", "left"), [(None, 5), ("g1", 5), ("g2", 0)])
def test_left_is_of_the_device(api: SlowApi, device: str | None, left: int) -> None:
    assert api.call("POST", pages=0, device=device, wait=False)["left"] == left


def test_sync_is_shown_like_a_shrink(api: SlowApi) -> None:
    shown = api.call("POST", "/v1/sync", device="g1", wait=False)
    assert (shown["running"], shown["sync"], shown["device"]) == (True, True, "g1")
    assert (shown["left"], shown["target"], shown["setting"]) == (5, 0, None)
    with pytest.raises(RefusedError, match="a sync is under way already"):
        api.call("POST", "/v1/sync", wait=False)
    with pytest.raises(RefusedError, match="a sync is under way already"):
        api.call("POST", pages=0, wait=False)
    api.may_go_on.set()
    assert api.instance.shrinks.last is not None
    assert api.instance.shrinks.last.wait().complete
    assert api.call("POST", pages=0, wait=False)["sync"] is False


def test_sync_follows_the_fits_before_it(api: SlowApi) -> None:
    api.call("PUT", "/v1/sysctl", key=QUOTA, value=1)
    shown = api.call("POST", "/v1/sync", wait=False)
    assert (shown["sync"], shown["waiting"]) == (False, ["vm.preswap"])


def test_sync_and_trim_of_what_there_is_not(api: SlowApi) -> None:
    for path, body in (("/v1/sync", {"device": "g3"}), ("/v1/devices/g3/trim", {})):
        with pytest.raises(NotFoundError, match="there is no device 'g3'"):
            api.call("POST", path, **body)
    for path in ("/v1/sync", "/v1/devices/g1/trim"):
        with pytest.raises(UsageError, match="unknown field 'pages'"):
            api.call("POST", path, pages=1)


# --- what a setting brings about ---


def test_lowered_limit_is_shown_like_any_shrink(api: SlowApi) -> None:
    assert api.call("PUT", "/v1/sysctl", key=QUOTA, value=1) == {QUOTA: 1}
    shown = api.call("GET")
    assert (shown["running"], shown["setting"], shown["device"]) == (True, QUOTA, "g1")
    assert (shown["left"], shown["target"], shown["waiting"]) == (5, 1, [])
    assert api.call("POST", pages=0, wait=False)["waiting"] == ["vm.preswap"]
    with pytest.raises(RefusedError, match="under way already"):
        api.call("POST", pages=0, wait=False)


def test_limit_that_waits_for_a_shrink_is_shown(api: SlowApi) -> None:
    api.call("POST", pages=4, wait=False)
    api.call("PUT", "/v1/sysctl", key=QUOTA, value=1)
    shown = api.call("GET")
    assert (shown["setting"], shown["waiting"]) == (None, [QUOTA])


@pytest.mark.parametrize(("key", "value"), [(QUOTA, 1), ("vm.preswap", 1), ("vm.preswap.g1", "4K")])
def test_client_that_waits_for_its_setting(api: SlowApi, key: str, value: int | str) -> None:
    body = {"key": key, "value": value, "wait": True}
    followed = api.serve("PUT", "/v1/sysctl", Request({}, body))
    assert isinstance(followed, Followed)
    assert not followed.is_owner
    assert followed.shrink is not None
    api.may_go_on.set()
    assert followed.shrink.ended.wait(PATIENCE)
    assert api.instance.pages_in_tmem("g1") == 1


def test_setting_that_needs_no_page_to_go(api: SlowApi) -> None:
    body = {"key": QUOTA, "value": 5, "wait": True}
    assert api.serve("PUT", "/v1/sysctl", Request({}, body)) == (None, False, {"value": 5})


@pytest.mark.parametrize("value", ["x", "-1", "default"])
def test_pages_that_are_no_number(api: SlowApi, value: str) -> None:
    with pytest.raises(UsageError, match=r"^vm\.preswap: "):
        api.call("PUT", "/v1/sysctl", key="vm.preswap", value=value)


# --- force ---


def test_force_is_a_parameter_of_the_query(api: SlowApi) -> None:
    """Of mkswap in the body too, which is the older form."""
    connection = api.instance.devices["g1"].connect()
    path = "/v1/devices/g1/mkswap"
    for query, body in (({}, {}), ({"force": "0"}, {"force": False})):
        with pytest.raises(RefusedError, match="a client is connected"):
            api.serve("POST", path, Request(query, body))
    for query, body in (({"force": "1"}, {}), ({}, {"force": True})):
        assert api.serve("POST", path, Request(query, body)) == (200, {"name": "g1"})
    with pytest.raises(UsageError, match="force must be 0 or 1"):
        api.serve("DELETE", "/v1/devices/g1", Request({"force": "yes"}, {}))
    assert api.serve("DELETE", "/v1/devices/g1", Request({"force": "1"}, {}))
    connection.close()
