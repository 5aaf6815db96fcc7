# SPDX-License-Identifier: BSD-3-Clause
"""The few commands that a store is told, as bytes.

Written by hand: a client library's command objects cost a read more than the store does.
"""

from preswapd.remote.courier.frames import NAME_BYTES

END = b"\r\n"
# RESP has its own bound for a word's length in digits; ours are short.
Buffer = bytes | memoryview


def word(content: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(content), content)


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(map(word, words))


ASKING = command(b"ASKING")
INFO = command(b"INFO")
CLUSTER_SLOTS = command(b"CLUSTER", b"SLOTS")


class Commands:
    """Those on keys, which are a prefix and a page's name."""

    def __init__(self, prefix: bytes, ttl_ms: int) -> None:
        key = b"$%d\r\n%b" % (len(prefix) + NAME_BYTES, prefix)
        self._get = b"*2\r\n" + word(b"GET") + key
        self._delete = b"*2\r\n" + word(b"DEL") + key
        lasting = word(b"PX") + word(b"%d" % ttl_ms) if ttl_ms else b""
        self._set = b"*%d\r\n" % (5 if ttl_ms else 3) + word(b"SET") + key
        self._set_end = END + lasting

    def get(self, name: Buffer) -> bytes:
        return b"".join((self._get, name, END))

    def set(self, name: Buffer, value: Buffer) -> bytes:
        return b"".join((self._set, name, b"\r\n$%d\r\n" % len(value), value, self._set_end))

    def delete(self, name: Buffer) -> bytes:
        return b"".join((self._delete, name, END))
