# SPDX-License-Identifier: BSD-3-Clause
"""The server's half of HTTP/1.1: requests are read, one after the other, and answers are begun.

The standard library's http.server loads what mail, web pages and TLS need: 3.5 MiB of memory that
each instance would have for itself, a quarter of all that an idle one takes.
"""

import socketserver
import time
from collections.abc import Sequence
from http import HTTPStatus

from preswapd.control.heads import HeadReader, HeadTooLongError

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD")
LONGEST_LINE = 65536
MOST_HEADERS = 100
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class BadRequestError(Exception):
    """It cannot be understood, and where the next one begins is not known."""

    def __init__(self, status: HTTPStatus, text: str | None = None) -> None:
        super().__init__(text or status.phrase)
        self.status = status


class Exchange(socketserver.StreamRequestHandler):
    """One connection, until either end closes it."""

    # Head and body of an answer leave in one piece.
    wbufsize = -1
    server_name = "preswapd"

    command = ""
    path = ""
    request_version = "HTTP/1.1"  # of an answer to what is no request
    close_connection = True
    headers: dict[str, str]

    def setup(self) -> None:
        super().setup()
        self.rfile = self.head = HeadReader(self.rfile.detach())

    def handle(self) -> None:
        self.close_connection = False
        while not self.close_connection:
            self.one_request()

    def one_request(self) -> None:
        self.command = ""
        self.head.begin()
        self.begin_request()
        try:
            if not self.read_head():
                self.close_connection = True
                return
            self.answer()
            self.wfile.flush()
        except BadRequestError as error:
            self.close_connection = True
            self.send_error(error.status, str(error))
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    # --- for who serves ---

    def begin_request(self) -> None:
        """Before each request is waited for."""

    def answer(self) -> None:
        """To the request whose head has been read: `command`, `path`, `headers`."""
        raise NotImplementedError

    def send_error(self, status: HTTPStatus, text: str) -> None:
        """To what is no request."""
        raise NotImplementedError

    # --- a request's head ---

    def read_head(self) -> bool:
        """False where the client has hung up."""
        line = self.head.readline(LONGEST_LINE + 1)
        if len(line) > LONGEST_LINE:
            raise BadRequestError(HTTPStatus.REQUEST_URI_TOO_LONG)
        if not line.strip():
            return False
        self.read_first_line(str(line, "iso-8859-1").split())
        try:
            self.headers = self.read_headers()
        except HeadTooLongError:
            raise BadRequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from None
        wanted = self.headers.get("connection", "").lower()
        if wanted == "close":
            self.close_connection = True
        elif wanted == "keep-alive":
            self.close_connection = False
        if self.headers.get("expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()
        if self.command not in METHODS:
            raise BadRequestError(
                HTTPStatus.NOT_IMPLEMENTED, f"Unsupported method ({self.command!r})"
            )
        return True

    def read_first_line(self, words: Sequence[str]) -> None:
        if len(words) not in (2, 3):
            raise BadRequestError(HTTPStatus.BAD_REQUEST, f"Bad request syntax ({words!r:.200})")
        # A line of two words was HTTP/0.9's, which had answers without a head.
        version = version_of(words[2]) if len(words) == 3 else (1, 0)
        if not (1, 0) <= version < (2, 0):
            raise BadRequestError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        self.request_version = "HTTP/1.0" if version == (1, 0) else "HTTP/1.1"
        self.close_connection = version == (1, 0)
        self.command, self.path = words[:2]
        # Two slashes would begin the name of a host.
        if self.path.startswith("//"):
            self.path = "/" + self.path.lstrip("/")

    def read_headers(self) -> dict[str, str]:
        """By their names in small letters; of equal ones the first."""
        found: dict[str, str] = {}
        for _ in range(MOST_HEADERS + 1):
            line = self.head.readline(LONGEST_LINE + 1)
            if len(line) > LONGEST_LINE:
                raise HeadTooLongError
            if line in (b"\r\n", b"\n"):
                return found
            if not line:
                raise ConnectionResetError("the client hung up in the middle of a request")
            name, colon, value = str(line, "iso-8859-1").partition(":")
            if not colon or not name or name != name.strip():
                raise BadRequestError(HTTPStatus.BAD_REQUEST, f"Bad header line ({line!r:.200})")
            text = value.strip()
            # Of two lengths, who stands between may have believed the other one.
            if found.setdefault(name.lower(), text) != text and name.lower() == "content-length":
                raise BadRequestError(HTTPStatus.BAD_REQUEST, "two values of Content-Length")
        raise HeadTooLongError

    # --- an answer's head ---

    def send_response(self, status: int) -> None:
        phrase = HTTPStatus(status).phrase
        self.wfile.write(f"HTTP/1.1 {status} {phrase}\r\n".encode("latin-1"))
        self.send_header("Server", self.server_name)
        self.send_header("Date", http_date(time.time()))

    def send_header(self, name: str, value: str) -> None:
        self.wfile.write(f"{name}: {value}\r\n".encode("latin-1"))

    def end_headers(self) -> None:
        self.wfile.write(b"\r\n")


def version_of(word: str) -> tuple[int, int]:
    name, _, number = word.partition("/")
    parts = number.split(".")
    if name != "HTTP" or len(parts) != 2 or not all(is_number(part) for part in parts):
        raise BadRequestError(HTTPStatus.BAD_REQUEST, f"Bad request version ({word!r:.200})")
    return int(parts[0]), int(parts[1])


def is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def http_date(seconds: float) -> str:
    """Without the locale's names."""
    at = time.gmtime(seconds)
    day, month = DAYS[at.tm_wday], MONTHS[at.tm_mon - 1]
    return (
        f"{day}, {at.tm_mday:02} {month} {at.tm_year} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
        " GMT"
    )
