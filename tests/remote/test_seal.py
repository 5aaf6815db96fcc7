# SPDX-License-Identifier: BSD-3-Clause
"""A page is sealed as the model says, and opens as itself only."""

import ctypes
import errno
import hmac
import random
from collections.abc import Iterator

import pytest

from tests.remote import gcm
from tests.remote.native import DEVICE_BYTES, NONCE_BYTES, SEAL_BYTES, Of, Packed, built

KEY = bytes(range(32))
SESSION = bytes(range(100, 116))
DEVICE = bytes(range(200, 200 + DEVICE_BYTES))
LZ4 = 3


class Seal:
    """The C's, as calls with bytes."""

    def __init__(self, library: ctypes.CDLL, key: bytes = KEY, session: bytes = SESSION) -> None:
        self.library = library
        self.state = ctypes.create_string_buffer(4096)
        assert library.seal_init(self.state, key, b"session", session, len(session)) == 0

    def page(
        self,
        plain: bytes,
        page: int,
        version: int,
        device: bytes = DEVICE,
        codec: int = LZ4,
        nonce: bytes | None = None,
    ) -> bytes:
        head, body = ctypes.create_string_buffer(SEAL_BYTES), ctypes.create_string_buffer(4096)
        kept = ctypes.create_string_buffer(plain, len(plain))
        packed = Packed(ctypes.addressof(kept), len(plain), codec)
        of = Of(device, page, version, nonce)
        err = self.library.seal_page(self.state, ctypes.byref(of), ctypes.byref(packed), head, body)
        assert err == 0
        return head.raw + body.raw[: len(plain)]

    def nonce(self, plain: bytes, page: int, codec: int = LZ4) -> bytes:
        kept = ctypes.create_string_buffer(plain, len(plain))
        packed = Packed(ctypes.addressof(kept), len(plain), codec)
        of, nonce = Of(DEVICE, page, 0, None), ctypes.create_string_buffer(NONCE_BYTES)
        err = self.library.seal_nonce(self.state, ctypes.byref(of), ctypes.byref(packed), nonce)
        assert err == 0
        return nonce.raw

    def open(
        self,
        value: bytes,
        page: int,
        version: int,
        device: bytes = DEVICE,
        nonce: bytes | None = None,
    ) -> tuple[bytes, int] | None:
        to, packed = ctypes.create_string_buffer(4096), Packed()
        of = Of(device, page, version, nonce)
        head, body = value[:SEAL_BYTES], value[SEAL_BYTES:]
        err = self.library.seal_open(
            self.state, ctypes.byref(of), head, body, len(body), to, ctypes.byref(packed)
        )
        assert err in (0, -errno.EBADMSG)
        return None if err else (to.raw[: packed.length], packed.codec)

    def names(self, versions: list[int]) -> list[bytes]:
        array = (ctypes.c_uint64 * len(versions))(*versions)
        names = ctypes.create_string_buffer(16 * len(versions))
        assert self.library.seal_names(self.state, array, len(versions), names) == 0
        return [names.raw[at : at + 16] for at in range(0, len(names.raw), 16)]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return built(tmp_path_factory.mktemp("seal"))


@pytest.fixture
def seal(library: ctypes.CDLL) -> Iterator[Seal]:
    made = Seal(library)
    yield made
    library.seal_destroy(made.state)


def key_of(what: str) -> bytes:
    return hmac.digest(KEY, f"preswapd session {what} ".encode() + SESSION, "sha256")


def beside(plain: bytes, page: int, version: int, codec: int) -> bytes:
    head = bytes([codec]) + len(plain).to_bytes(2, "little")
    return DEVICE + page.to_bytes(8, "little") + version.to_bytes(8, "little") + head


def model(plain: bytes, page: int, version: int, codec: int, nonce: bytes | None = None) -> bytes:
    known = beside(plain, page, version, codec)
    nonce = nonce or bytes(4) + version.to_bytes(8, "little")
    cipher, tag = gcm.seal(key_of("pages"), nonce, plain, known)
    return known[-3:] + tag + cipher


def test_the_model_is_that_of_the_standard() -> None:
    """Test case 16 of the GCM specification."""
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    plain = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    beside = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    cipher, tag = gcm.seal(key, bytes.fromhex("cafebabefacedbaddecaf888"), plain, beside)
    assert tag.hex() == "76fc6ece0f4e1768cddf8853bb2d551b"
    assert cipher.hex().startswith(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
    )


@pytest.mark.parametrize("length", [1, 8, 15, 16, 17, 1000, 4095, 4096])
def test_a_page_is_sealed_as_in_the_model(seal: Seal, length: int) -> None:
    rng = random.Random(length)
    plain, page, version = rng.randbytes(length), rng.getrandbits(40), rng.getrandbits(50)
    value = seal.page(plain, page, version, codec=length % 5)
    assert value == model(plain, page, version, length % 5)
    assert seal.open(value, page, version) == (plain, length % 5)


@pytest.mark.parametrize("length", [1, 100, 4096])
def test_a_nonce_is_of_all_that_is_sealed(seal: Seal, length: int) -> None:
    plain = random.Random(length).randbytes(length)
    nonce = seal.nonce(plain, 7)
    text = beside(plain, 7, 0, LZ4) + plain
    assert nonce == hmac.digest(key_of("nonces"), text, "sha256")[:NONCE_BYTES]
    other = bytes([plain[0] ^ 1]) + plain[1:]
    assert len({nonce, seal.nonce(other, 7), seal.nonce(plain, 8), seal.nonce(plain, 7, 4)}) == 4
    value = seal.page(plain, 7, 0, nonce=nonce)
    assert value == model(plain, 7, 0, LZ4, nonce)
    assert seal.open(value, 7, 0, nonce=nonce) == (plain, LZ4)
    assert seal.open(value, 7, 0) is None


def test_names_are_as_in_the_model(seal: Seal) -> None:
    versions = [*range(1, 200), 2**50, 2**51 - 1]
    plain = b"".join(version.to_bytes(8, "little") + bytes(8) for version in versions)
    names = seal.names(versions)
    assert b"".join(names) == gcm.aes(key_of("names"), plain)
    assert len(set(names)) == len(versions)
    assert names == [seal.names([version])[0] for version in versions]


@pytest.mark.parametrize("length", [8, 100])
def test_each_bit_that_flips_is_found(seal: Seal, length: int) -> None:
    value = seal.page(random.Random(1).randbytes(length), 7, 9)
    for bit in range(len(value) * 8):
        changed = bytearray(value)
        changed[bit // 8] ^= 1 << bit % 8
        assert seal.open(bytes(changed), 7, 9) is None, f"bit {bit}"


def test_what_is_cut_or_longer_is_found(seal: Seal) -> None:
    value = seal.page(bytes(100), 7, 9)
    for length in range(SEAL_BYTES, len(value)):
        assert seal.open(value[:length], 7, 9) is None
    assert seal.open(value + b"\0", 7, 9) is None
    assert seal.open(value + bytes(5000), 7, 9) is None


def test_it_is_no_other_page_version_or_device(seal: Seal) -> None:
    value = seal.page(bytes(100), 7, 9)
    assert seal.open(value, 7, 9)
    assert seal.open(value, 8, 9) is None
    assert seal.open(value, 7, 10) is None
    assert seal.open(value, 7, 9, bytes(DEVICE_BYTES)) is None


def test_it_is_of_no_other_session_or_key(library: ctypes.CDLL, seal: Seal) -> None:
    value = seal.page(bytes(100), 7, 9)
    for other in (Seal(library, session=bytes(16)), Seal(library, key=bytes(32))):
        assert other.open(value, 7, 9) is None
        assert other.names([9]) != seal.names([9])
        library.seal_destroy(other.state)


def test_equal_pages_are_sealed_to_what_has_nothing_in_common(seal: Seal) -> None:
    values = [seal.page(bytes(64), 7, version)[SEAL_BYTES:] for version in range(1, 50)]
    pieces = [value[at : at + 16] for value in values for at in range(0, 64, 16)]
    assert len(set(pieces)) == len(pieces)
