# SPDX-License-Identifier: BSD-3-Clause
"""The body of a request that may be of any length: it is read as it comes."""

from collections.abc import Mapping
from io import BufferedReader

from preswapd.errors import UsageError

# A chunk's length, and what may stand behind it.
LONGEST_LINE = 1024
LONGEST_LENGTH = 15  # digits


class Upload:
    """In chunks, or as many bytes as its head says."""

    def __init__(self, stream: BufferedReader, headers: Mapping[str, str]) -> None:
        """UsageError: where it ends is not said."""
        self.stream = stream
        self.has_ended = False
        length = headers.get("content-length", "")
        encoding = headers.get("transfer-encoding", "").lower()
        self.is_chunked = encoding == "chunked"
        if encoding and not self.is_chunked:
            raise UsageError("a request's body is chunked, or has a Content-Length")
        if not self.is_chunked:
            is_number = length.isascii() and length.isdigit() and len(length) <= LONGEST_LENGTH
            if not is_number:
                raise UsageError("a request's body is chunked, or has a Content-Length")
            self.left = int(length)
            self.has_ended = self.left == 0
        else:
            self.left = 0

    def read(self, length: int) -> bytes:
        """So many bytes, or fewer at its end only.  ConnectionError: the client hung up."""
        pieces: list[bytes] = []
        missing = length
        while missing and not self.has_ended:
            if not self.left and not self.next_chunk():
                break
            piece = self.stream.read(min(self.left, missing))
            if not piece:
                raise ConnectionResetError("its client hung up")
            pieces.append(piece)
            missing -= len(piece)
            self.left -= len(piece)
            if not self.left:
                self.end_piece()
        # Mostly there is one, which is not copied then.
        return b"".join(pieces)

    def end_piece(self) -> None:
        if not self.is_chunked:
            self.has_ended = True
        elif self.line():
            raise UsageError("a chunk is longer than it says")

    def next_chunk(self) -> bool:
        text = self.line().partition(";")[0].strip()
        try:
            self.left = int(text, 16) if text.isalnum() and len(text) <= LONGEST_LENGTH else -1
        except ValueError:
            self.left = -1
        if self.left < 0:
            raise UsageError(f"{text[:20]!r} is not the length of a chunk")
        if self.left:
            return True
        while self.line():
            pass  # what may stand behind the last chunk
        self.has_ended = True
        return False

    def line(self) -> str:
        # Of a head's reader, which bounds what a head may have, the plain function.
        line = BufferedReader.readline(self.stream, LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise ConnectionResetError("its client hung up")
        return line.decode("latin-1").strip()
