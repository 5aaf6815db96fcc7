# SPDX-License-Identifier: BSD-3-Clause
"""When certificates end, which their owner has to know, read without a library."""

import binascii
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from preswapd.host import plain_files

BLOCK = re.compile(
    r"-----BEGIN (?:X509 )?CERTIFICATE-----(.+?)-----END (?:X509 )?CERTIFICATE-----", re.DOTALL
)

# Tags of DER (X.690).
SEQUENCE, VERSION, UTC_TIME, GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
# In the first part of a certificate, before its times: serial number, algorithm, issuer.
BEFORE_THE_TIMES = 3


def ends_in(path: Path) -> list[datetime]:
    """Of all certificates in a PEM file, the first one first; OSError, or ValueError where there is
    none."""
    return ends(plain_files.read(path).decode(errors="replace"))


def ends(text: str) -> list[datetime]:
    found = sorted(end_of(binascii.a2b_base64(block)) for block in BLOCK.findall(text))
    if not found:
        raise ValueError("it holds no certificate")
    return found


def end_of(certificate: bytes) -> datetime:
    """Of DER (RFC 5280, section 4.1)."""
    try:
        _, whole = next(elements(certificate))
        _, signed = next(elements(whole))
        parts = list(elements(signed))
        if parts[0][0] == VERSION:
            del parts[0]
        tag, times = parts[BEFORE_THE_TIMES]
        if tag != SEQUENCE:
            raise ValueError("it has no times where a certificate has them")
        _, (kind, end) = elements(times)
        return moment(kind, end.decode("ascii"))
    except (IndexError, StopIteration):
        raise ValueError("it is cut off") from None


def moment(kind: int, text: str) -> datetime:
    if kind == UTC_TIME:
        # Two digits of the year, of the century from 1950 on.
        text = f"{'19' if text >= '50' else '20'}{text}"
    elif kind != GENERALIZED_TIME:
        raise ValueError("its end is no time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each, one after the other."""
    place = 0
    while place < len(data):
        tag, length, place = data[place], data[place + 1], place + 2
        if length & 0x80:
            count = length & 0x7F
            length, place = int.from_bytes(data[place : place + count], "big"), place + count
        if place + length > len(data):
            raise IndexError
        yield tag, data[place : place + length]
        place += length
