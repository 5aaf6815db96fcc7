# SPDX-License-Identifier: BSD-3-Clause
"""`preswapctl trim`: says what it will do, asks, and leaves known pages alone."""

import errno
import json
import os
import subprocess

import nbd
import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import connected
from tests.running import PRESWAPCTL, RunningServer

AT = 8 << 20
CONTENT = b"known" + bytes(64 * PAGE - 5)


@pytest.fixture
def client(server: RunningServer) -> nbd.NBD:
    """Of a new device, of which little is known."""
    client = connected(server)
    client.pwrite(CONTENT, AT)
    return client


def unknown_pages(server: RunningServer) -> int:
    return int(server.json_stats()["devices"]["g1"]["unknown_pages"])


def test_unknown_pages_become_zeros(server: RunningServer, client: nbd.NBD) -> None:
    with pytest.raises(nbd.Error) as failed:
        client.pread(PAGE, AT + len(CONTENT))
    assert failed.value.errnum == errno.EIO
    before = unknown_pages(server)
    done = server.ctl("trim", "g1", "--yes")
    assert before > 0
    assert done.stdout.startswith(f"{before} pages (")
    assert done.stdout.endswith(") of g1 became zeros\n")
    assert bytes(client.pread(PAGE, AT + len(CONTENT))) == bytes(PAGE)
    assert bytes(client.pread(len(CONTENT), AT)) == CONTENT
    assert unknown_pages(server) == 0


def test_trim_json(server: RunningServer) -> None:
    before = unknown_pages(server)
    assert json.loads(server.ctl("--json", "trim", "g1", "--yes").stdout) == {
        "name": "g1",
        "pages": before,
    }


def test_nothing_unknown_is_nothing_to_ask(server: RunningServer) -> None:
    server.ctl("trim", "g1", "--yes")
    assert server.ctl("trim", "g1").stdout == "0 pages (0B) of g1 became zeros\n"


def test_trim_needs_yes_without_a_terminal(server: RunningServer) -> None:
    before = unknown_pages(server)
    done = server.ctl("trim", "g1", check=False)
    assert (done.returncode, "--yes goes ahead" in done.stderr) == (4, True)
    assert unknown_pages(server) == before


@pytest.mark.parametrize(("answer", "status"), [(b"n\n", 4), (b"\n", 4), (b"y\n", 0)])
def test_trim_asks_at_a_terminal(server: RunningServer, answer: bytes, status: int) -> None:
    before = unknown_pages(server)
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [PRESWAPCTL, f"--runtime-dir={server.runtime_dir}", "trim", "g1"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.write(ours, answer)
        _, said = process.communicate(timeout=30)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == status
    assert said.startswith(f"of g1 of default nothing is known of {before} pages (")
    assert "a guest that was restored, resumed or moved here would read zeros" in said
    assert unknown_pages(server) == (0 if status == 0 else before)


def test_trim_of_no_device(server: RunningServer) -> None:
    done = server.ctl("trim", "g2", "--yes", check=False)
    assert done.returncode == 2
    assert "there is no device 'g2'" in done.stderr
