# SPDX-License-Identifier: BSD-3-Clause
"""AES-256-GCM as NIST SP 800-38D has it; the block cipher is that of the command openssl."""

import subprocess
from collections.abc import Iterable

BLOCK = 16
REDUCTION = 0xE1 << 120


def aes(key: bytes, blocks: bytes) -> bytes:
    """Each block on its own."""
    command = ["openssl", "enc", "-aes-256-ecb", "-nopad", "-K", key.hex()]
    return subprocess.run(command, input=blocks, check=True, capture_output=True).stdout


def multiply(a: int, b: int) -> int:
    """In GF(2^128), the most significant bit first."""
    product = 0
    for bit in range(127, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (REDUCTION if b & 1 else 0)
    return product


def padded(text: bytes) -> bytes:
    return text + bytes(-len(text) % BLOCK)


def blocks(text: bytes) -> Iterable[int]:
    return (int.from_bytes(text[at : at + BLOCK]) for at in range(0, len(text), BLOCK))


def seal(key: bytes, nonce: bytes, plain: bytes, beside: bytes) -> tuple[bytes, bytes]:
    """The cipher text, and the tag of it and of what stands beside it."""
    count = -(-len(plain) // BLOCK)
    counters = b"".join(nonce + i.to_bytes(4) for i in range(1, count + 2))
    hash_key, first, stream = split(aes(key, bytes(BLOCK) + counters))
    cipher = bytes(a ^ b for a, b in zip(plain, stream, strict=False))
    lengths = (len(beside) * 8).to_bytes(8) + (len(cipher) * 8).to_bytes(8)
    digest = 0
    for block in blocks(padded(beside) + padded(cipher) + lengths):
        digest = multiply(digest ^ block, int.from_bytes(hash_key))
    return cipher, (digest ^ int.from_bytes(first)).to_bytes(BLOCK)


def split(text: bytes) -> tuple[bytes, bytes, bytes]:
    return text[:BLOCK], text[BLOCK : 2 * BLOCK], text[2 * BLOCK :]
