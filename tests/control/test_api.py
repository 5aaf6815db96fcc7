# SPDX-License-Identifier: BSD-3-Clause
"""The control API of a real server, as curl or anything else would use it."""

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import fields
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from preswapd.api.messages import Advice
from tests.clients import BEHIND_ZONE, connected
from tests.conftest import StartServer
from tests.running import PATIENCE, RunningServer, wait_for

Answer = tuple[int, Any]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, of another make than the operator's client."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def request(server: RunningServer, method: str, path: str, body: object = None) -> Answer:
    connection = UnixConnection(server.control_socket, 30)
    try:
        payload = None if body is None else json.dumps(body)
        connection.request(method, path, payload)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def error(answer: Answer) -> tuple[int, str]:
    return answer[0], answer[1]["error"]["code"]


@pytest.fixture
def raw(module_server: RunningServer) -> Iterator[socket.socket]:
    """A connection for bytes that no HTTP library would send."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(module_server.control_socket))
        yield sock


def received(sock: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    return b"".join(iter(lambda: sock.recv(65536), b""))


# --- what it answers ---


def test_stats_are_what_preswapctl_prints(module_server: RunningServer) -> None:
    status, stats = request(module_server, "GET", "/v1/stats")
    assert status == 200
    assert stats.keys() == module_server.json_stats().keys()


def test_devices(module_server: RunningServer) -> None:
    _, found = request(module_server, "GET", "/v1/devices")
    assert found["devices"]["g1"]["size"] == 64 << 20


def test_one_device(module_server: RunningServer) -> None:
    _, device = request(module_server, "GET", "/v1/devices/g1")
    assert (device["name"], device["size"]) == ("g1", 64 << 20)


def test_ages(module_server: RunningServer) -> None:
    for path in ("/v1/ages", "/v1/devices/g1/ages"):
        status, found = request(module_server, "GET", path)
        assert (status, found.keys()) == (200, {"ages"})
        assert found["ages"][0].keys() == {"older_than", "pages", "bytes"}
        _, chosen = request(module_server, "GET", f"{path}?older_than=0,1.5,1800")
        assert [age["older_than"] for age in chosen["ages"]] == [0, 1.5, 1800]
    missing = request(module_server, "GET", "/v1/devices/g3/ages")
    assert error(missing) == (404, "not_found")


def test_advise(module_server: RunningServer) -> None:
    for path in ("/v1/advise", "/v1/devices/g1/advise"):
        status, found = request(module_server, "GET", path)
        assert status == 200
        assert found.keys() == {field.name for field in fields(Advice)}
    missing = request(module_server, "GET", "/v1/devices/g3/advise")
    assert error(missing) == (404, "not_found")


@pytest.mark.parametrize("bounds", ["", "x", "-1", "nan", "inf", "1,,2", "0" + ",1" * 16])
def test_ages_that_are_no_time(module_server: RunningServer, bounds: str) -> None:
    answer = request(module_server, "GET", f"/v1/ages?older_than={bounds}")
    # An empty parameter is none.
    assert answer[0] == (400 if bounds else 200)


def test_shrink_of_what_is_idle(server: RunningServer) -> None:
    connected(server).pwrite(os.urandom(100 * 4096), BEHIND_ZONE)
    *_, last = lines(server, "POST", "/v1/shrink", {"idle": "1h"})
    kept = {"moved": 0, "left": 100, "lost": 0, "complete": True, "reason": None}
    assert last == {"result": kept}
    oldest = "/v1/devices/g1/ages?older_than=1.5"
    wait_for(lambda: request(server, "GET", oldest)[1]["ages"][0]["pages"], lambda n: n == 100)
    *_, last = lines(server, "POST", "/v1/shrink", {"idle": 1, "device": "g1"})
    assert last == {"result": {**kept, "moved": 100, "left": 0}}
    assert request(server, "GET", "/v1/shrink")[1]["idle"] == 1


@pytest.mark.parametrize("idle", [0, -1, True, [], "", "soon", 1e300, "100000d"])
def test_what_is_no_age(module_server: RunningServer, idle: object) -> None:
    answer = request(module_server, "POST", "/v1/shrink", {"idle": idle})
    assert error(answer) == (400, "usage")


def test_pages_or_idle(module_server: RunningServer) -> None:
    answer = request(module_server, "POST", "/v1/shrink", {"idle": 60, "pages": 0})
    assert error(answer) == (400, "usage")


def test_sysctl(module_server: RunningServer) -> None:
    status, values = request(module_server, "GET", "/v1/sysctl")
    assert (status, values["vm.preswap"], values["vm.preswap.g1"]) == (200, 0, 0)
    assert values["preswap.default.g1.compress"] == "lz4"


def test_sysctl_sets(module_server: RunningServer) -> None:
    """A number or a text; what is refused changes nothing."""
    key = "preswap.default.g1.quota"
    for value, now in ((10, 10), ("40K", 10), ("default", "unlimited")):
        body = {"key": key, "value": value}
        assert request(module_server, "PUT", "/v1/sysctl", body) == (200, {key: now})
    wrong: tuple[object, ...] = (True, None, [], "x")
    for bad in wrong:
        refused = {"key": key, "value": bad}
        assert request(module_server, "PUT", "/v1/sysctl", refused)[0] == 400


@pytest.mark.parametrize(
    ("name", "value", "now"),
    [
        ("writeback_room", 6, "6%"),
        ("writeback_room", "6%", "6%"),
        ("writeback_room", 0, "off"),
        ("writeback_idle", 90, 90),
        ("writeback_idle", "2m", 120),
        ("writeback_rate", 1 << 20, 1 << 20),
        ("writeback_rate", "1M", 1 << 20),
        ("recompress_after", "off", "off"),
        ("recompress_codec", "off", "off"),
    ],
)
def test_policy_as_numbers_and_texts(
    module_server: RunningServer, name: str, value: object, now: object
) -> None:
    key = f"preswap.default.{name}"
    body = {"key": key, "value": value}
    assert request(module_server, "PUT", "/v1/sysctl", body) == (200, {key: now})
    assert request(module_server, "GET", "/v1/sysctl")[1][key] == now
    refused = {"key": key, "value": -1}
    status, answer = request(module_server, "PUT", "/v1/sysctl", refused)
    assert (status, answer["error"]["code"]) == (400, "usage")
    assert request(module_server, "GET", "/v1/sysctl")[1][key] == now


@pytest.mark.parametrize("path", ["/v1/server", "/v1/doctor"])
def test_server_knows_its_process(module_server: RunningServer, path: str) -> None:
    """Also under the older name."""
    _, facts = request(module_server, "GET", path)
    assert facts["pid"] == module_server.pid
    assert facts["threads_reason"]
    assert facts == request(module_server, "GET", "/v1/stats")[1]["server"]


def lines(server: RunningServer, method: str, path: str, body: object) -> list[Any]:
    """Of an answer that takes its time."""
    connection = UnixConnection(server.control_socket, 30)
    try:
        connection.request(method, path, json.dumps(body))
        response = connection.getresponse()
        assert response.headers["Content-Type"] == "application/x-ndjson"
        return [json.loads(line) for line in response.read().splitlines()]
    finally:
        connection.close()


def test_setting_that_is_waited_for(server: RunningServer) -> None:
    """First what was set, then what came of it; where no page has to go, that is nothing."""
    connected(server).pwrite(os.urandom(100 * 4096), BEHIND_ZONE)
    body = {"key": "preswap.default.g1.quota", "value": "40K", "wait": True}
    first, *_, last = lines(server, "PUT", "/v1/sysctl", body)
    assert first == {"value": 10}
    moved = {"moved": 90, "left": 10, "lost": 0, "complete": True, "reason": None}
    assert last == {"result": moved}
    assert lines(server, "PUT", "/v1/sysctl", body) == [{"value": 10}, {"result": None}]


def test_setting_that_is_not_waited_for_moves_its_pages_too(server: RunningServer) -> None:
    connected(server).pwrite(os.urandom(100 * 4096), BEHIND_ZONE)
    body = {"key": "preswap.default.g1.quota", "value": 10}
    assert request(server, "PUT", "/v1/sysctl", body) == (200, {"preswap.default.g1.quota": 10})
    wait_for(lambda: request(server, "GET", "/v1/sysctl")[1]["vm.preswap.g1"], lambda n: n == 10)


def test_number_of_pages_is_set_by_a_shrink(server: RunningServer) -> None:
    connected(server).pwrite(os.urandom(100 * 4096), BEHIND_ZONE)
    body = {"key": "vm.preswap.g1", "value": 30, "wait": True}
    *_, last = lines(server, "PUT", "/v1/sysctl", body)
    assert (last["result"]["moved"], last["result"]["left"]) == (70, 30)
    status, _ = request(server, "PUT", "/v1/sysctl", {"key": "vm.preswap", "value": 0})
    assert status == 200
    wait_for(lambda: request(server, "GET", "/v1/sysctl")[1]["vm.preswap"], lambda n: n == 0)


def test_create_and_remove(server: RunningServer) -> None:
    status, device = request(server, "POST", "/v1/devices", {"name": "g2", "size": "1M"})
    assert (status, device["size"]) == (201, 1 << 20)
    assert request(server, "DELETE", "/v1/devices/g2") == (200, {"name": "g2"})
    assert error(request(server, "GET", "/v1/devices/g2")) == (404, "not_found")


def test_shrink_ends_with_its_result(module_server: RunningServer) -> None:
    status, last = request(module_server, "POST", "/v1/shrink", {"pages": 0})
    assert status == 200
    assert last["result"]["complete"] is True


def test_shrink_for_http_1_0_is_not_chunked(raw: socket.socket) -> None:
    raw.sendall(b'POST /v1/shrink HTTP/1.0\r\nContent-Length: 11\r\n\r\n{"pages":0}')
    head, _, body = received(raw).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert json.loads(body)["result"]["complete"] is True


def test_metrics(module_server: RunningServer) -> None:
    connection = UnixConnection(module_server.control_socket, 30)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    assert (response.headers["Content-Type"] or "").startswith("text/plain; version=0.0.4")
    assert b'preswapd_device_size_bytes{instance="default",device="g1"} 67108864' in response.read()
    connection.close()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/sysctl HTTP/1.0\r\n\r\n",
        b"GET /v1/sysctl\r\n\r\n",
        b"GET //v1/sysctl HTTP/1.1\r\nCONNECTION: close\r\n\r\n",
    ],
)
def test_connection_is_closed_where_the_client_wants_it(raw: socket.socket, head: bytes) -> None:
    raw.sendall(head)
    answer, _, body = received(raw).partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert "vm.preswap" in json.loads(body)
    (date,) = (line[6:] for line in answer.decode().splitlines() if line.startswith("Date: "))
    assert date.endswith(" GMT")
    assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < PATIENCE


def test_body_is_asked_for(raw: socket.socket) -> None:
    body = b'{"key": "vm.preswap", "value": "x"}'
    raw.sendall(
        b"PUT /v1/sysctl HTTP/1.1\r\nExpect: 100-continue\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    assert raw.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    raw.sendall(body)
    assert received(raw).startswith(b"HTTP/1.1 400 ")


def test_connection_is_kept(module_server: RunningServer) -> None:
    connection = UnixConnection(module_server.control_socket, 30)
    for path in ("/v1/stats", "/v1/nothing", "/v1/sysctl"):
        connection.request("GET", path)
        sock = connection.sock
        connection.getresponse().read()
        assert connection.sock is sock is not None
    connection.close()


# --- what it refuses ---


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "/", None, (404, "not_found")),
        ("GET", "/v1/nothing", None, (404, "not_found")),
        ("GET", "/v2/stats", None, (404, "not_found")),
        ("GET", "/v1/devices/none", None, (404, "not_found")),
        ("POST", "/v1/devices/none/swapoff", {}, (404, "not_found")),
        ("POST", "/v1/shrink", {"pages": 0, "device": "none"}, (404, "not_found")),
        ("POST", "/v1/stats", {}, (405, "usage")),
        ("PUT", "/v1/devices/g1", {}, (405, "usage")),
        ("POST", "/v1/shrink", {}, (400, "usage")),
        ("POST", "/v1/shrink", {"pages": -1}, (400, "usage")),
        ("POST", "/v1/shrink", {"pages": 1 << 64}, (400, "usage")),
        ("POST", "/v1/shrink", {"pages": True}, (400, "usage")),
        ("POST", "/v1/shrink", {"pages": 1.5}, (400, "usage")),
        ("POST", "/v1/shrink", {"pages": 1, "more": 1}, (400, "usage")),
        ("POST", "/v1/devices", {"name": "g2"}, (400, "usage")),
        ("POST", "/v1/devices", {"name": 2, "size": "1M"}, (400, "usage")),
        ("POST", "/v1/devices", {"name": "../x", "size": "1M"}, (400, "usage")),
        ("POST", "/v1/devices", {"name": "g2", "size": "1X"}, (400, "usage")),
        ("POST", "/v1/devices", {"name": "g2", "size": 1000}, (400, "usage")),
        ("POST", "/v1/devices", {"name": "g2", "size": 0}, (400, "usage")),
        ("POST", "/v1/devices", {"name": "g2", "size": "1M", "compress": "gz"}, (400, "usage")),
        ("POST", "/v1/devices", {"name": "g1", "size": "1M"}, (409, "refused")),
        ("POST", "/v1/devices/g1/mkswap", {"force": "yes"}, (400, "usage")),
        ("POST", "/v1/devices/g1/mkswap?force=yes", {}, (400, "usage")),
        ("DELETE", "/v1/devices/g1?force=yes", None, (400, "usage")),
        ("PUT", "/v1/sysctl", {"key": "vm.preswap", "value": "x"}, (400, "usage")),
        ("PUT", "/v1/sysctl", {"key": "vm.preswap.none", "value": 0}, (404, "not_found")),
        ("PUT", "/v1/sysctl", {"key": "vm.preswap", "value": 0, "wait": 1}, (400, "usage")),
        ("POST", "/v1/devices", [], (400, "usage")),
    ],
)
def test_refused(
    module_server: RunningServer,
    method: str,
    path: str,
    body: object,
    expected: tuple[int, str],
) -> None:
    assert error(request(module_server, method, path, body)) == expected
    assert request(module_server, "GET", "/v1/devices")[1]["devices"].keys() == {"g1"}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET http://[::1/v1/stats HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 70000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET /v1/stats HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /v1/stats HTTP/0.9\r\n\r\n", b"505"),
        (b"BREW /v1/stats HTTP/1.1\r\n\r\n", b"501"),
        (b"POST /v1/shrink HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"POST /v1/shrink HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST /v1/shrink HTTP/1.1\r\nContent-Length: 9" + b"9" * 30 + b"\r\n\r\n", b"400"),
        (b"POST /v1/shrink HTTP/1.1\r\nContent-Length: 00000000010000\r\n\r\n", b"400"),
        (b"POST /v1/shrink HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"POST /v1/shrink HTTP/1.1\r\nContent-Length: 3\r\n\r\n{{{", b"400"),
        (b"POST /v1/shrink HTTP/1.1\r\nContent-Length: 8000\r\n\r\n" + b"[" * 8000, b"400"),
        (b"POST /v1/shrink HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", b"400"),
        (b"GET /v1/stats HTTP/one\r\n\r\n", b"400"),
        (b"GET /v1/stats HTTP/1.1\r\nno header\r\n\r\n", b"400"),
        (b"GET /v1/stats HTTP/1.1\r\nHost : x\r\n\r\n", b"400"),
        (b"GET /v1/stats HTTP/1.1\r\n" + 101 * b"A: 1\r\n" + b"\r\n", b"431"),
    ],
)
def test_bad_bytes_get_an_answer(raw: socket.socket, text: bytes, status: bytes) -> None:
    raw.sendall(text)
    raw.shutdown(socket.SHUT_WR)
    head, _, body = received(raw).partition(b"\r\n\r\n")
    assert head.split()[1] == status
    assert json.loads(body)["error"]["code"] == "usage"


def test_who_still_sends_what_is_refused_gets_the_answer_whole(raw: socket.socket) -> None:
    raw.sendall(b"GET /" + b"x" * 65536)
    begun = raw.recv(1)  # it is refused already
    raw.sendall(b"x" * 10000)
    raw.shutdown(socket.SHUT_WR)
    assert (begun + received(raw)).startswith(b"HTTP/1.1 414 ")


def test_hanging_up_within_a_request(raw: socket.socket, module_server: RunningServer) -> None:
    raw.sendall(b"POST /v1/shrink HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
    raw.shutdown(socket.SHUT_WR)
    assert received(raw) == b""
    assert request(module_server, "GET", "/v1/sysctl")[0] == 200


def test_head_that_is_cut_off_is_no_request(raw: socket.socket) -> None:
    raw.sendall(b"DELETE /v1/devices/g1 HTTP/1.1\r\nHost: x\r\n")
    raw.shutdown(socket.SHUT_WR)
    assert received(raw) == b""


def test_failure_names_the_file(start_server: StartServer) -> None:
    server = start_server()
    (server.shm_dir / "g1.map").unlink()
    (server.shm_dir / "g1.map").mkdir()
    status, answer = request(server, "DELETE", "/v1/devices/g1")
    assert status == 500
    assert answer["error"]["message"] == f"{server.shm_dir}/g1.map: Is a directory"


def test_connections_that_were_hung_up_on_are_closed(server: RunningServer) -> None:
    """At once: garbage collection, which would do it too, may come much later."""

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{server.pid}/fd"))

    request(server, "GET", "/v1/sysctl")
    before = descriptors()
    for _ in range(40):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(server.control_socket))
            sock.sendall(b'POST /v1/shrink HTTP/1.1\r\nContent-Length: 11\r\n\r\n{"pages":0}')
    wait_for(descriptors, lambda now: now <= before, 5)


def test_idle_connections_do_not_keep_others_out(module_server: RunningServer) -> None:
    idle = [socket.socket(socket.AF_UNIX) for _ in range(30)]
    for sock in idle:
        sock.connect(str(module_server.control_socket))
    assert request(module_server, "GET", "/v1/sysctl")[0] == 200
    for sock in idle:
        sock.close()


def test_socket_is_for_its_owner(module_server: RunningServer) -> None:
    assert module_server.control_socket.stat().st_mode & 0o777 == 0o600


def test_other_files_stay_out_of_reach(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    for name in ("..%2f..%2fetc", "%2e%2e", "a%2fb"):
        assert error(request(server, "GET", f"/v1/devices/{name}"))[0] == 404
