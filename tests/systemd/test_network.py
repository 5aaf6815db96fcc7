# SPDX-License-Identifier: BSD-3-Clause
"""A guest of another host, and a store there, as the guides say, against the unit as it is
installed: docs/guides/network.md, docs/guides/store.md."""

import json
import re
import shutil
from collections.abc import Iterator

import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE
from tests.remote.stores import needs_store
from tests.running import wait_for
from tests.systemd.booted import CHECKOUT, Booted, NotPossibleError
from tests.systemd.test_service import (
    NOISE,
    client,
    found_store,
    install_units,
    start_store,
    status_of_store,
)
from tests.tls import needs_openssl

# One systemd for all of them.
pytestmark = [pytest.mark.xdist_group("systemd"), needs_openssl]

GUIDE = (CHECKOUT / "docs/guides/network.md").read_text()
UNIT = "preswapd@vm1"
CTL = ("/opt/preswapd/bin/preswapctl", "--json", "--instance")
CONFIG = 'pool-size = "16M"\n[device.swap0]\nsize = "64M"\n'
CLIENT = (
    "import nbd, sys; h = nbd.NBD(); h.set_uri_allow_local_file(True); h.connect_uri(sys.argv[1])"
)
URI = "nbds://192.0.2.1:10809/swap0?tls-certificates=/etc/keys"


def block(begin: str) -> str:
    """The lines of the guide that begin so, to the end of their block."""
    found = re.search(rf"```\w*\n({re.escape(begin)}.+?)```", GUIDE, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def host() -> Iterator[Booted]:
    """Its address is the guide's; `elsewhere` is a network namespace with another one."""
    try:
        with Booted() as booted:
            install_units(booted)
            try:
                join(booted)
            except AssertionError as error:
                raise NotPossibleError(f"no second network can be had: {error}") from None
            yield booted
    except NotPossibleError as error:
        pytest.skip(str(error))


def join(host: Booted) -> None:
    ssl = host.path("/etc/ssl")
    ssl.mkdir()
    shutil.copy("/etc/ssl/openssl.cnf", ssl)
    for line in (
        "ip link set lo up",
        "ip netns add elsewhere",
        "ip link add here type veth peer name there netns elsewhere",
        "ip address add 192.0.2.1/24 dev here",
        "ip link set here up",
        "ip -n elsewhere address add 192.0.2.2/24 dev there",
        "ip -n elsewhere link set there up",
    ):
        host.run(*line.split())


def size_seen_elsewhere(host: Booted) -> str:
    """Nothing where nobody answers."""
    enter = ("ip", "netns", "exec", "elsewhere", "timeout", "5")
    return host.run(*enter, "nbdinfo", "--size", URI, check=False).strip()


def is_confined(host: Booted, unit: str) -> bool:
    """Whether this systemd can keep a unit from other hosts; it says so where it cannot."""
    return not any("firewall" in line for line in host.journal(unit))


def findings(host: Booted, vm: str = "vm1") -> list[dict[str, str]]:
    said = json.loads(host.run(*CTL, vm, "doctor", check=False))
    checks: list[dict[str, str]] = said["checks"]
    return checks


@pytest.mark.skipif(shutil.which("nbdinfo") is None, reason="nbdinfo is not installed")
def test_as_the_guide_says(host: Booted) -> None:
    made = block("umask 077\nopenssl").replace("DNS:host1.example.org", "IP:192.0.2.1")
    host.run("sh", "-ec", f"mkdir -m 700 /etc/keys; cd /etc/keys\n{made}")
    host.run("sh", "-ec", f"cd /etc/keys\n{block('install -d -g preswapd')}")
    settings = block("listen = ")
    host.path("/etc/preswapd/vm1.toml").write_text(
        f"{settings.split('[tls]')[0]}{CONFIG}[tls]{settings.split('[tls]')[1]}"
    )
    host.run("systemctl", "enable", "--now", UNIT)
    facts = json.loads(host.run(*CTL, "vm1", "stats"))["server"]
    assert (facts["listen"], facts["listen_error"]) == ("192.0.2.1:10809", None)

    if is_confined(host, UNIT):
        assert size_seen_elsewhere(host) == ""
    (closed,) = (each for each in findings(host) if "keep all other hosts" in each["text"])
    command = closed["mend"].partition(": ")[2].replace("NETWORK", "192.0.2.0/24")
    host.run("sh", "-ec", command)
    drop_in = host.path(f"/etc/systemd/system/{UNIT}.service.d/listen.conf")
    assert drop_in.read_text() == block("[Service]\nIPAddressAllow")
    assert block("[Service]\nIPAddressAllow") in (CHECKOUT / "systemd/listen.conf").read_text()
    assert size_seen_elsewhere(host) == str(64 << 20)
    assert not any("keep all other hosts" in each["text"] for each in findings(host))
    keys = [each for each in findings(host) if "/etc/preswapd/vm1.tls" in each["text"]]
    assert [each["status"] for each in keys] == ["ok", "ok"]

    # Key rotation: the page outlives it, and the old CA's certificate counts no more.
    enter = ("ip", "netns", "exec", "elsewhere")
    write = f"h.pwrite(bytes([7]) * {PAGE}, 8 << 20)"
    host.run(*enter, "/usr/bin/python3", "-c", f"{CLIENT}; {write}", URI)
    old = URI.replace("/etc/keys", "/etc/old")
    host.run("sh", "-ec", f"mv /etc/keys /etc/old; mkdir /etc/keys; cd /etc/keys\n{made}")
    install = block("install -d -g preswapd").partition("\n")[2]
    host.run("sh", "-ec", f"cd /etc/keys\n{install}\nsystemctl restart {UNIT}")
    read = f"assert h.pread({PAGE}, 8 << 20) == bytes([7]) * {PAGE}"
    host.run(*enter, "/usr/bin/python3", "-c", f"{CLIENT}; {read}", URI)
    assert host.run(*enter, "timeout", "5", "nbdinfo", "--size", old, check=False) == ""
    wait_for(lambda: host.journal(UNIT), lambda lines: any("was refused" in each for each in lines))

    # A key that its user cannot read keeps no guest of this host from its disk.
    host.run("chmod", "600", "/etc/preswapd/vm1.tls/server-key.pem")
    host.run("systemctl", "restart", UNIT)
    (wrong,) = (each for each in findings(host) if "guests cannot connect" in each["text"])
    assert "server-key.pem: Permission denied: let user" in wrong["text"]
    assert any(
        "clients can connect to /run/preswapd/vm1" in each["text"] for each in findings(host)
    )


@needs_store
def test_store_on_another_host(host: Booted) -> None:
    """The unit does not reach it; with the drop-in that is shipped, for its network, it does."""
    start_store(host, "192.0.2.2", "ip", "netns", "exec", "elsewhere")
    host.path("/etc/preswapd/vm2.toml").write_text(
        f'{CONFIG}[remote]\nurl = "redis://192.0.2.2"\ntimeout = "1s"\n'
    )
    unit = "preswapd@vm2"
    host.run("systemctl", "enable", "--now", unit)
    if is_confined(host, unit):
        error = wait_for(lambda: (status_of_store(host, "vm2")["store"] or {}).get("error"), bool)
        assert error == "Timeout connecting to server"
        (away,) = (each for each in findings(host, "vm2") if "is away" in each["text"])
        assert "a unit needs a drop-in to reach it" in away["mend"]

    shipped = (CHECKOUT / "systemd/remote.conf").read_text()
    guide = (CHECKOUT / "docs/guides/store.md").read_text()
    setting = "[Service]\nIPAddressAllow=10.0.0.0/24\n"
    assert setting in shipped
    assert f"```ini\n{setting}```" in guide
    folder = host.path(f"/etc/systemd/system/{unit}.service.d")
    folder.mkdir()
    (folder / "remote.conf").write_text(shipped.replace("10.0.0.0/24", "192.0.2.0/24"))
    (said_by_guide,) = re.findall(r"`(systemctl daemon-reload && .+?)`", guide)
    host.run("sh", "-ec", said_by_guide.replace("vm1", "vm2"))
    found_store(host, "vm2")
    client(host, "vm2").pwrite(NOISE, BEHIND_ZONE)
    host.run(*CTL, "vm2", "shrink", "0")
    assert bytes(client(host, "vm2").pread(len(NOISE), BEHIND_ZONE)) == NOISE
    assert json.loads(host.run(*CTL, "vm2", "stats"))["remote"]["remote_reads"] == 64
