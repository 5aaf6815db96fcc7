# SPDX-License-Identifier: BSD-3-Clause
"""The governor's own socket: what it does, as JSON and as Prometheus reads it.  It takes no
orders."""

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any, cast

from preswapd.api.governor import GOVERNOR_PATH, GovernorStatus, governor_text
from preswapd.api.wire import JSON_TYPE, METRICS, METRICS_TYPE, error_body

# A client that sends nothing, or does not read, for this long is disconnected.
IDLE_SECONDS = 10


class StatusServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers on a socket that listens already, in threads beside the governor's own."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listening: socket.socket, status: Callable[[], GovernorStatus]) -> None:
        super().__init__(str(listening.getsockname()), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.status = status

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, name="status", daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # What remains here is a connection that broke.
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "preswapd"
    sys_version = ""
    timeout = IDLE_SECONDS
    wbufsize = -1

    def do_GET(self) -> None:
        status = cast(StatusServer, self.server).status
        if self.path == GOVERNOR_PATH:
            self.send(200, JSON_TYPE, encoded(status()))
        elif self.path == METRICS:
            self.send(200, METRICS_TYPE, governor_text(status()).encode())
        else:
            self.send(404, JSON_TYPE, encoded(error_body("not_found", f"there is no {self.path}")))

    def send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "status socket"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: there is no line for each request."""


def encoded(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value) + "\n").encode()
