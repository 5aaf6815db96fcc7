# SPDX-License-Identifier: BSD-3-Clause
"""When a certificate ends, as openssl says it too."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preswapd.host.certificates import GENERALIZED_TIME, end_of, ends, ends_in, moment
from tests.tls import LONG_AGO, Authority, needs_openssl


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@needs_openssl
@pytest.mark.parametrize(
    "ends", [LONG_AGO, "20491231235959Z", "20500101000000Z", "21501201000000Z"]
)
def test_end(authority: Authority, tmp_path: Path, ends: str) -> None:
    """Both ways to write a time."""
    authority.sign(tmp_path, "server", ends=ends)
    expected = datetime.strptime(ends, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    assert ends_in(tmp_path / "server-cert.pem") == [expected]


@needs_openssl
def test_ends_of_several(authority: Authority, tmp_path: Path) -> None:
    authority.sign(tmp_path, "server", ends=LONG_AGO)
    both = authority.certificate.read_text() + (tmp_path / "server-cert.pem").read_text()
    first, last = ends(both)
    assert first == datetime(2020, 2, 1, tzinfo=UTC)
    assert last > datetime(2040, 1, 1, tzinfo=UTC)
    old_name = both.replace(" CERTIFICATE-----", " X509 CERTIFICATE-----")
    assert ends(old_name) == [first, last]


def test_century_of_two_digits() -> None:
    assert moment(0x17, "491231235959Z").year == 2049
    assert moment(0x17, "500101000000Z").year == 1950
    assert moment(GENERALIZED_TIME, "20500101000000Z").year == 2050


@pytest.mark.parametrize("text", ["", "no certificate", "-----BEGIN CERTIFICATE-----"])
def test_no_certificate(text: str) -> None:
    with pytest.raises(ValueError, match="it holds no certificate"):
        ends(text)


@given(st.text(max_size=200))
def test_nonsense_is_a_value_error(text: str) -> None:
    """And no other error."""
    with pytest.raises(ValueError, match=r".+"):
        ends(f"-----BEGIN CERTIFICATE-----{text}-----END CERTIFICATE-----")


@needs_openssl
def test_damage_is_a_value_error_or_a_time(authority: Authority) -> None:
    command = ["openssl", "x509", "-outform", "DER", "-in", str(authority.certificate)]
    whole = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    assert end_of(whole).year > 2040
    for place in range(len(whole)):
        for changed in (whole[:place], whole[:place] + b"\xff" + whole[place + 1 :]):
            try:
                end_of(changed)
            except ValueError:
                continue
