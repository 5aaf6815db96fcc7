# SPDX-License-Identifier: BSD-3-Clause
"""Guests of other hosts: what `qemu-args --tcp` and `libvirt-xml --tcp` give is what QEMU takes."""

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

import pytest

from preswapd.cli.attach.remote import parse_host
from tests.cli.conftest import Machine, StartMachine
from tests.clients import connected, discard
from tests.conftest import StartServer
from tests.ports import free_port
from tests.running import RunningServer, wait_for
from tests.tls import HOST, Authority, needs_openssl, write_keys

needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not installed"
)


class Served(NamedTuple):
    server: RunningServer
    port: int
    keys: Path  # of a client


@pytest.fixture(params=["x509", "psk"])
def served(request: pytest.FixtureRequest, start_server: StartServer, tmp_path: Path) -> Served:
    mode, port = request.param, free_port()
    keys = tmp_path / "client"
    keys.mkdir()
    if mode == "x509":
        authority = Authority(tmp_path / "ca")
        where = f"--tls-certificates={authority.sign(tmp_path / 'server', 'server')}"
        authority.sign(keys, "client")
    else:
        where = f"--tls-psk-file={write_keys(keys / 'keys.psk', 'vm1')}"
    server = start_server(extra=[f"--listen=127.0.0.1:{port}", f"--tls-mode={mode}", where])
    discard(connected(server)).shutdown()
    return Served(server, port, keys)


def arguments(served: Served) -> list[str]:
    options = [f"--tcp={HOST}:{served.port}", f"--keys-dir={served.keys}"]
    if served.server.client.facts().tls == "psk":
        options.append("--key-name=vm1")
    found: list[str] = json.loads(served.server.ctl("--json", "qemu-args", "g1", *options).stdout)
    return found


def io(machine: Machine, command: str) -> None:
    """qemu-io's commands, on the disk that QEMU has."""
    (block,) = machine.ask("query-block")
    line = f'qemu-io -d {block["qdev"]} "{command}"'
    machine.ask("human-monitor-command", **{"command-line": line})


def bytes_on(server: RunningServer, place: int) -> bytes:
    client = connected(server)
    try:
        return bytes(client.pread(1 << 16, place))
    finally:
        client.shutdown()


@needs_openssl
@needs_qemu
def test_qemu_uses_its_disk_and_comes_back_after_a_kill(
    served: Served, start_machine: StartMachine
) -> None:
    machine = start_machine("-machine", "pc", *arguments(served))
    io(machine, "write -P 7 4M 64k")
    assert bytes_on(served.server, 4 << 20) == bytes([7]) * (1 << 16)
    wait_for(lambda: connections(served.server), lambda number: number == 1)
    served.server.kill()
    served.server.start()
    io(machine, "write -P 8 5M 64k")
    assert bytes_on(served.server, 4 << 20) == bytes([7]) * (1 << 16)
    assert bytes_on(served.server, 5 << 20) == bytes([8]) * (1 << 16)


def connections(server: RunningServer) -> int:
    return int(server.json_stats()["devices"]["g1"]["connections"])


@needs_openssl
def test_arguments(served: Served) -> None:
    found = arguments(served)
    assert found[0] == "-object"
    keys, node = json.loads(found[1]), json.loads(found[found.index("-blockdev") + 1])
    assert keys["dir"] == str(served.keys)
    assert keys["endpoint"] == "client"
    assert node["tls-creds"] == keys["id"]
    assert node["server"] == {"type": "inet", "host": HOST, "port": str(served.port)}
    if keys["qom-type"] == "tls-creds-psk":
        assert keys["username"] == "vm1"
    else:
        assert keys["verify-peer"] is True


@needs_openssl
def test_libvirt(served: Served) -> None:
    where = ["libvirt-xml", "g1", f"--tcp={HOST}:{served.port}"]
    done = served.server.ctl(*where, "--libvirt=9.2.0", "--only=disk", check=False)
    if served.server.client.facts().tls == "psk":
        assert done.returncode == 2
        assert "libvirt gives QEMU certificates and no keys" in done.stderr
        return
    source = ET.fromstring(done.stdout).find("source")
    assert source is not None
    assert source.get("tls") == "yes"
    host = source.find("host")
    assert host is not None
    assert host.attrib == {"name": HOST, "port": str(served.port)}
    done = served.server.ctl(*where, "--libvirt=9.2.0", "--keys-dir=/k", check=False)
    assert "nbd_tls_x509_cert_dir" in done.stderr
    old = served.server.ctl(*where, "--libvirt=9.0.0", "--keys-dir=/k").stdout
    assert "tls-creds-x509" in old


def test_server_without_an_address(module_server: RunningServer) -> None:
    done = module_server.ctl("qemu-args", "g1", "--tcp=host1:10809", check=False)
    assert done.returncode == 4
    assert "this server has no address for TCP" in done.stderr


def test_keys_without_an_address(module_server: RunningServer) -> None:
    done = module_server.ctl("qemu-args", "g1", "--keys-dir=/k", check=False)
    assert (done.returncode, "--keys-dir goes with --tcp alone" in done.stderr) == (2, True)


def test_loopback_without_tls(start_server: StartServer) -> None:
    port = free_port()
    server = start_server(extra=[f"--listen=127.0.0.1:{port}"])
    found = json.loads(server.ctl("--json", "qemu-args", "g1", f"--tcp={HOST}:{port}").stdout)
    assert "-object" not in found
    assert "tls-creds" not in found[1]
    done = server.ctl("qemu-args", "g1", f"--tcp={HOST}:{port}", "--key-name=vm1", check=False)
    assert "the server wants no TLS" in done.stderr


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("host1.example.org:10809", ("host1.example.org", 10809)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
        ("[2001:db8::1]:65535", ("2001:db8::1", 65535)),
    ],
)
def test_host_and_port(text: str, host: tuple[str, int]) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text", ["host1", "host1:", ":1", "host1:0", "host1:65536", "a b:1", "a,b=c:1", "[x]:1", "-a:1"]
)
def test_no_host_and_port(text: str) -> None:
    with pytest.raises(ValueError, match=r"not HOST:PORT|not a port|not a number"):
        parse_host(text)
