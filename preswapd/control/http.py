# SPDX-License-Identifier: BSD-3-Clause
"""The server's end of the control API: HTTP over a Unix socket, one thread a connection.

It runs in the process that serves NBD and must not slow that down: answers are encoded by Python
code, which hands the interpreter lock over every switch interval, and never by one long C call.
"""

import json
import select
import socket
import socketserver
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from preswapd.api.exposition import metrics_text
from preswapd.api.wire import (
    ERRORS,
    JSON_TYPE,
    LINES_TYPE,
    METRICS,
    METRICS_TYPE,
    PROGRESS_SECONDS,
    SAVE_TYPE,
    error_body,
    error_code,
)
from preswapd.control.exchange import Exchange
from preswapd.control.routes import Api, Followed, Reply, Request, Streamed, WrongMethodError
from preswapd.control.upload import Upload
from preswapd.errors import PreswapError, UsageError, with_place
from preswapd.log import ERROR, WARNING, Log, Throttle
from preswapd.preswap.writeback.shrink import Shrink

Json = dict[str, Any]

# Parsing a body is one C call that keeps the interpreter lock, and no request needs more.
LARGEST_BODY = 8192
LONGEST_LENGTH = 9  # digits
CONNECTIONS = 64
# Waits for clients; a signal makes it look at its descriptor anew.
THREAD = "control"
# A client that sends nothing, or does not read, for this long is disconnected.
IDLE_SECONDS = 60
# The same in the middle of a save or a restore: somebody types a password for ssh, say.
STREAM_SECONDS = 600
LINGER_SECONDS = 1.0
HANG_UP_SECONDS = 0.1
# One that has asked nothing for this long makes way for one more than are served.
MAKE_WAY_SECONDS = 1.0


class Idle:
    """The connections whose client has not asked anything yet, or again, or not to the end; the one
    that has been so for longest is the first."""

    def __init__(self) -> None:
        self.changing = threading.Lock()
        self.since: dict[socket.socket, float] = {}

    def add(self, connection: socket.socket) -> None:
        with self.changing:
            self.since[connection] = time.monotonic()

    def remove(self, connection: socket.socket) -> bool:
        """Before it is answered, and before it is closed; False where its end has begun."""
        with self.changing:
            return self.since.pop(connection, None) is not None

    def end_oldest(self) -> float | None:
        """Ends it; or in how many seconds it may be, None where all are being answered."""
        with self.changing:
            for connection, since in self.since.items():
                if (left := since + MAKE_WAY_SECONDS - time.monotonic()) > 0:
                    return left
                # Its thread sees that, as if the client had hung up.
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                del self.since[connection]
                return 0.0
        return None


class ControlServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Serves the API on a socket that listens already."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listening: socket.socket, api: Api, log: Log) -> None:
        super().__init__(str(listening.getsockname()), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.api = api
        self.log = log
        self.free = threading.BoundedSemaphore(CONNECTIONS)
        self.idle = Idle()
        # One answer is made at a time: of 511 devices it takes 7 MiB until it is encoded, and 60
        # clients that asked at once took 450 MiB.  They share one processor: none is later for it.
        self.answering = threading.Lock()
        self.refusals = Throttle()

    def start(self) -> None:
        # It is never shut down, and so need not look now and then whether it was.
        serve = partial(self.serve_forever, poll_interval=cast(float, None))
        threading.Thread(target=serve, name=THREAD, daemon=True).start()

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:
            # Out of descriptors, say: the caller tries again at once, for ever.
            time.sleep(HANG_UP_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.make_room():
            self.shutdown_request(request)
            if self.refusals.passes():
                self.log(
                    WARNING,
                    f"{CONNECTIONS} clients are on the control socket: one more was disconnected",
                )
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.free.release()  # there is no thread that would
            raise

    def make_room(self) -> bool:
        """Whether one more may be served: where there are too many, whoever asks nothing goes."""
        while not self.free.acquire(blocking=False):
            left = self.idle.end_oldest()
            if left is None:
                return False
            # That is how long one whose end has begun may take, too.
            if self.free.acquire(timeout=left or HANG_UP_SECONDS):
                return True
        return True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # What remains here is a connection that broke.
        pass


class Handler(Exchange):
    """One connection: requests come in, routes decide, JSON goes out."""

    timeout = IDLE_SECONDS
    has_upload = False

    @property
    def control(self) -> ControlServer:
        return cast(ControlServer, self.server)

    # --- the interface of Exchange ---

    def begin_request(self) -> None:
        self.control.idle.add(self.connection)

    def finish(self) -> None:
        self.control.idle.remove(self.connection)
        self.close_files()

    def close_files(self) -> None:
        """Closes both files, and so the socket; the base class leaves one open when the client has
        hung up on what was to be sent, until the next garbage collection."""
        try:
            super().finish()
        finally:
            self.rfile.close()

    def send_error(self, status: HTTPStatus, text: str) -> None:
        """For what is not HTTP at all."""
        self.send(status, JSON_TYPE, encoded(error_body("usage", text)))
        self.linger()

    # --- one request ---

    def answer(self) -> None:
        try:
            self.dispatch()
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:
            self.send_failure(error)
            if self.has_upload:
                self.linger()

    def linger(self) -> None:
        """Takes what comes of a request that nobody will read: many a client reads no answer before
        it has sent all, and what lies unread when a socket is closed resets the connection."""
        with suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(LINGER_SECONDS)
            end = time.monotonic() + LINGER_SECONDS
            while self.connection.recv(LARGEST_BODY) and time.monotonic() < end:
                pass

    def dispatch(self) -> None:
        try:
            url = urlsplit(self.path)
        except ValueError as error:
            raise UsageError(f"the request's path cannot be read: {error}") from None
        path = unquote(url.path)
        if path == METRICS and self.command == "GET":
            self.begin()
            with self.control.answering:
                text = metrics_text(self.control.api.all_stats()).encode()
            self.send(200, METRICS_TYPE, text)
            return
        request = self.whole(dict(parse_qsl(url.query)))
        self.begin()
        if self.command == "GET":
            self.send(*self.look(path, request))
            return
        reply = self.control.api.serve(self.command, path, request)
        if isinstance(reply, Followed):
            self.follow(reply)
        elif isinstance(reply, Streamed):
            self.stream(reply)
        else:
            self.send(*as_json(reply))

    def look(self, path: str, request: Request) -> tuple[int, str, bytes]:
        """The answer to what changes nothing."""
        with self.control.answering:
            reply = self.control.api.serve("GET", path, request)
            assert isinstance(reply, Reply)
            return as_json(reply)

    def begin(self) -> None:
        """The request is whole.  Nothing is done for a client that can't be told of it."""
        if not self.control.idle.remove(self.connection):
            raise ConnectionResetError

    def whole(self, query: Mapping[str, str]) -> Request:
        if self.headers.get("content-type") != SAVE_TYPE:
            return Request(query, self.body())
        # Who serves it need not read it to its end.
        self.close_connection = self.has_upload = True
        self.connection.settimeout(STREAM_SECONDS)
        return Request(query, {}, Upload(self.head, self.headers).read)

    def body(self) -> Json:
        """The request's JSON object, empty where there is none."""
        # Whatever is wrong with a body, the next request can't be found behind it.
        keep, self.close_connection = self.close_connection, True
        if "transfer-encoding" in self.headers:
            raise UsageError("a request's body needs a Content-Length")
        length = self.headers.get("content-length", "0")
        is_number = length.isascii() and length.isdigit() and len(length) <= LONGEST_LENGTH
        if not is_number or int(length) > LARGEST_BODY:
            raise UsageError(f"a request's body has at most {LARGEST_BODY} bytes")
        text = self.rfile.read(int(length))
        if len(text) < int(length):
            raise ConnectionResetError("the client hung up in the middle of a request")
        self.close_connection = keep
        return parsed(text)

    # --- sending ---

    def send(self, status: int, content_type: str, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def send_failure(self, error: Exception) -> None:
        body = encoded(self.failure(error))
        if isinstance(error, WrongMethodError):
            self.send(405, JSON_TYPE, body, ("Allow", ", ".join(error.allowed)))
        else:
            self.send(ERRORS[error_code(error)][0], JSON_TYPE, body)

    def failure(self, error: Exception) -> Json:
        """What the client is told; an unexpected error is logged as well."""
        if isinstance(error, PreswapError):
            return error_body(error_code(error), str(error))
        if isinstance(error, OSError):
            where = "" if error.filename is None else f"{error.filename}: "
            return error_body("failed", where + (error.strerror or str(error)))
        self.control.log(ERROR, f"control request failed: {with_place(error)}")
        return error_body("failed", f"internal error, {type(error).__name__}: {error}")

    def stream(self, streamed: Streamed) -> None:
        """To the end of the connection, or of its chunks."""
        self.close_connection = True
        self.connection.settimeout(STREAM_SECONDS)
        with streamed.pieces as pieces:
            self.send_response(200)
            self.send_header("Content-Type", streamed.content_type)
            is_chunked = self.request_version != "HTTP/1.0"
            if is_chunked:
                self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                for piece in pieces:
                    self.write_piece(piece, is_chunked)
                self.wfile.flush()
            except (ConnectionError, TimeoutError):
                raise
            except Exception as error:
                # Its head is sent: that there is no end says that something went wrong.
                self.failure(error)
                raise ConnectionResetError from error
        # Whoever has seen the end may use at once what was in use: a guest starts.
        self.write_piece(b"", is_chunked)
        self.wfile.flush()

    def write_piece(self, piece: bytes | memoryview, is_chunked: bool) -> None:
        """An empty one ends them."""
        if is_chunked:
            self.wfile.write(b"%x\r\n" % len(piece))
        self.wfile.write(piece)
        if is_chunked:
            self.wfile.write(b"\r\n")

    # --- shrinks: the answers that take their time ---

    def follow(self, followed: Followed) -> None:
        """Until its end, with a line now and then.

        A client that hangs up stops the shrink that it asked for; one that has set a limit does
        not, as the limit stays.
        """
        shrink, lines = followed.shrink, Lines(self)
        if followed.first is not None:
            lines.write(followed.first)
        if shrink is None:
            lines.last({"result": None})
            return
        try:
            while not shrink.ended.wait(HANG_UP_SECONDS):
                if hung_up(self.connection):
                    if not followed.is_owner:
                        raise ConnectionResetError
                    shrink.stop()
                # Also before the first page moves: the client waits for a sign of life.
                lines.now_and_then({"progress": asdict(shrink.progress)})
        except (ConnectionError, TimeoutError):
            if followed.is_owner:
                shrink.stop()
                shrink.ended.wait()
            raise
        self.tell_end(shrink, lines)

    def tell_end(self, shrink: Shrink, lines: "Lines") -> None:
        try:
            end = {"result": asdict(shrink.wait())}
        except Exception as error:
            if not lines.begun:
                raise
            end = self.failure(error)
        lines.last(end)


class Lines:
    """An answer of one JSON object a line: chunked, or for HTTP/1.0 until the connection ends."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.begun = False
        self.chunked = handler.request_version != "HTTP/1.0"
        self.next_time = time.monotonic() + PROGRESS_SECONDS

    def now_and_then(self, line: Json) -> None:
        now = time.monotonic()
        if now >= self.next_time:
            self.next_time = now + PROGRESS_SECONDS
            self.write(line)

    def last(self, line: Json) -> None:
        self.write(line)
        if self.chunked:
            self.handler.wfile.write(b"0\r\n\r\n")
            self.handler.wfile.flush()

    def write(self, line: Json) -> None:
        if not self.begun:
            self.begun = True
            self.handler.send_response(200)
            self.handler.send_header("Content-Type", LINES_TYPE)
            if self.chunked:
                self.handler.send_header("Transfer-Encoding", "chunked")
            else:
                self.handler.close_connection = True
            self.handler.end_headers()
        text = encoded(line)
        if self.chunked:
            text = b"%x\r\n%b\r\n" % (len(text), text)
        self.handler.wfile.write(text)
        self.handler.wfile.flush()


def parsed(text: bytes) -> Json:
    if not text:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError("the request's body is not JSON") from None
    if not isinstance(value, dict):
        raise UsageError("the request's body is not a JSON object")
    return value


def as_json(reply: Reply) -> tuple[int, str, bytes]:
    return reply.status, JSON_TYPE, encoded(reply.body)


def encoded(value: Mapping[str, object]) -> bytes:
    """One line of JSON; iterencode is Python code, see above."""
    return ("".join(json.JSONEncoder().iterencode(value)) + "\n").encode()


def hung_up(connection: socket.socket) -> bool:
    """The client has closed its end, or the half that it sends on."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if not poll.poll(0):
        return False
    return connection.recv(1, socket.MSG_PEEK) == b""
