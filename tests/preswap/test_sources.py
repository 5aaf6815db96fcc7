# SPDX-License-Identifier: BSD-3-Clause
"""How an operator names another host's device."""

from pathlib import Path

import pytest

from preswapd.errors import UsageError
from preswapd.preswap.moving.client import PORT, Place, last_line, parse_uri

KEYS = "tls-certificates=/etc/keys"
RIGHT: dict[str, tuple[str | tuple[str, int], str]] = {
    "nbd://hosta": (("hosta", PORT), ""),
    "nbd://hosta/": (("hosta", PORT), ""),
    "nbd://hosta:1234/g1": (("hosta", 1234), "g1"),
    "nbd://[::1]:1234/g1": (("::1", 1234), "g1"),
    "nbd+unix:///g1?socket=/run/a.sock": ("/run/a.sock", "g1"),
    "nbd+unix://?socket=/run/a.sock": ("/run/a.sock", ""),
    "nbd+unix:///g%31?socket=/run/with%20blank": ("/run/with blank", "g1"),
}


@pytest.mark.parametrize("uri", RIGHT)
def test_uri(uri: str) -> None:
    assert parse_uri(uri) == Place(uri, *RIGHT[uri])


def test_uri_with_tls() -> None:
    uri = f"nbds://hosta/g1?{KEYS}"
    assert parse_uri(uri) == Place(uri, ("hosta", PORT), "g1", Path("/etc/keys"), "hosta")
    uri = f"nbds://192.0.2.1:99/g1?tls-hostname=hosta&{KEYS}"
    assert parse_uri(uri) == Place(uri, ("192.0.2.1", 99), "g1", Path("/etc/keys"), "hosta")


WRONG = {
    "": "names no device",
    "g1": "names no device",
    "http://hosta/g1": "names no device",
    "nbd:///g1": "names no device",
    "nbd://hosta:0/g1": "names no device",
    "nbd://hosta:99999/g1": "no NBD URI",
    "nbd://[::1/g1": "no NBD URI",
    "nbd+unix:///g1": "names no device",
    "nbd+unix://hosta/g1?socket=/run/a.sock": "names no device",
    "nbds+unix:///g1?socket=/run/a.sock": "names no device",
    # The server opens it, and was started elsewhere.
    "nbd+unix:///g1?socket=a.sock": "begins with /",
    "nbd+unix:///g1?socket=%00abstract": "begins with /",
    "nbd+unix:///g1?socket=/a&socket=/b": "twice",
    "nbd+unix:///g1?socket=": "or nothing",
    # What would not be heeded is said.
    "nbd://hosta/g1?socket=/run/a.sock": "names no device",
    "nbd://hosta/g1?life": "bad query",
    "nbd://hosta/g1?tls-hostname=hosta": "for nbds",
    "nbd://me@hosta/g1": "neither a user",
    "nbd://hosta/g1#x": "neither a user",
    "nbd://hosta/g1%3Flife": "no device has",
    "nbd://hosta/g1%0A": "no device has",
    "nbd://hosta/gr%C3%B6%C3%9Fe": "no device has",
    "nbds://hosta/g1": "tls-certificates=DIRECTORY",
    "nbds://hosta/g1?tls-certificates=keys": "begins with /",
    "nbds://hosta/g1?tls-certificates=/etc/keys&tls-verify-peer=false": "names no device",
    "nbds://vm1@hosta/g1?tls-psk-file=/etc/keys.psk": "certificates",
    f"nbds://hosta/g1?{KEYS}&tls-hostname=": "or nothing",
}


@pytest.mark.parametrize("uri", WRONG)
def test_no_uri_of_a_device(uri: str) -> None:
    with pytest.raises(UsageError, match=WRONG[uri]):
        parse_uri(uri)


def test_of_an_error_with_lines_of_code_its_words_are_told() -> None:
    """As nbdkit from 1.42 on has them of an older release of preswapd."""
    text = "x.py: open: error: Traceback:\n  File x.py\n    ~~~^^^\nRefusedError: no export\n\n"
    assert last_line(text) == "RefusedError: no export"
    assert last_line("") == ""
