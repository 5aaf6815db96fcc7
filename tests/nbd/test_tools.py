# SPDX-License-Identifier: BSD-3-Clause
"""The tools that others point at an NBD server: nbdinfo, nbdcopy, qemu-img, qemu-io, fio."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import connected, discard
from tests.conftest import StartServer
from tests.nbd.conftest import MIB, SIZE
from tests.running import RunningServer, run

pytestmark = [
    pytest.mark.xdist_group("nbd-tools"),
    *(
        pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")
        for tool in ("nbdinfo", "nbdcopy", "qemu-img", "qemu-io", "fio")
    ),
]


def output(*command: str, timeout: float = 60) -> str:
    done = run(command, timeout=timeout)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An image like a used swap disk: text, noise, zeros and same-filled pages."""
    path = tmp_path / "disk"
    noise = random.Random(4).randbytes(8 * MIB)
    with path.open("wb") as file:
        file.write(b"text that compresses".ljust(64) * (4 * MIB // 64))
        file.write(noise)
        file.seek(40 * MIB)
        file.write(b"\7" * 4 * MIB + noise[: 3 * PAGE])
        file.truncate(SIZE)
    return path


@pytest.fixture(params=["32M", "4M"], ids=["ample", "small"])
def empty(request: pytest.FixtureRequest, start_server: StartServer) -> RunningServer:
    server = start_server(pool_size=request.param)
    discard(connected(server)).shutdown()
    return server


# --- nbdinfo ---


def test_nbdinfo_size(module_server: RunningServer) -> None:
    assert output("nbdinfo", "--size", module_server.nbd_uri()) == f"{SIZE}\n"


def test_nbdinfo_json(module_server: RunningServer) -> None:
    (export,) = json.loads(
        output("nbdinfo", "--json", "--no-content", module_server.nbd_uri("g1"))
    )["exports"]
    assert (export["export-size"], export["is_read_only"]) == (SIZE, False)
    assert export["block_size_preferred"] == PAGE


def test_nbdinfo_list(module_server: RunningServer) -> None:
    found = json.loads(output("nbdinfo", "--list", "--json", module_server.nbd_uri()))
    assert [export["export-name"] for export in found["exports"]] == ["g1"]


@pytest.mark.parametrize("what", ["flush", "fua", "trim", "zero", "fast-zero"])
def test_nbdinfo_can(module_server: RunningServer, what: str) -> None:
    output("nbdinfo", "--can", what, module_server.nbd_uri())


def test_nbdinfo_cannot_multi_conn(module_server: RunningServer) -> None:
    """Of two that write, the newer one's connection is the one that counts."""
    assert run(["nbdinfo", "--can", "multi-conn", module_server.nbd_uri()]).returncode == 2


def test_nbdinfo_map(module_server: RunningServer) -> None:
    """Without structured replies there is none; with them what was trimmed is a hole."""
    discard(connected(module_server)).shutdown()
    done = run(["nbdinfo", "--map", "--json", module_server.nbd_uri()])
    if module_server.json_stats()["server"]["structured_replies"]:
        assert {0, 3} <= {extent["type"] for extent in json.loads(done.stdout)}
    else:
        assert done.returncode == 1
        assert "base:allocation" in done.stderr


# --- whole images in and out ---


def test_nbdcopy_of_unknown_pages_fails(server: RunningServer, tmp_path: Path) -> None:
    """A copy with zeros in their places would be taken for the disk."""
    done = run(["nbdcopy", server.nbd_uri(), str(tmp_path / "back")])
    assert done.returncode == 1
    assert "Input/output error" in done.stderr


def test_nbdcopy_in_and_out(empty: RunningServer, disk: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    output("nbdcopy", str(disk), empty.nbd_uri())
    output("nbdcopy", empty.nbd_uri(), str(back))
    assert back.read_bytes() == disk.read_bytes()


def test_nbdcopy_over_what_was_there(empty: RunningServer, disk: Path, tmp_path: Path) -> None:
    """Its zeroes must clear what the first copy wrote."""
    blank, back = tmp_path / "blank", tmp_path / "back"
    with blank.open("wb") as file:
        file.truncate(SIZE)
    output("nbdcopy", str(disk), empty.nbd_uri())
    output("nbdcopy", str(blank), empty.nbd_uri())
    output("nbdcopy", empty.nbd_uri(), str(back))
    assert back.read_bytes() == bytes(SIZE)


def test_qemu_img_convert_and_compare(empty: RunningServer, disk: Path, tmp_path: Path) -> None:
    uri, raw, back = empty.nbd_uri("g1"), ("-f", "raw", "-O", "raw"), tmp_path / "back"
    output("qemu-img", "convert", "-n", *raw, str(disk), uri)
    output("qemu-img", "compare", "-f", "raw", "-F", "raw", str(disk), uri)
    output("qemu-img", "convert", *raw, uri, str(back))
    assert back.read_bytes() == disk.read_bytes()


def test_qemu_img_info(module_server: RunningServer) -> None:
    found = json.loads(
        output("qemu-img", "info", "-f", "raw", "--output=json", module_server.nbd_uri())
    )
    assert found["virtual-size"] == SIZE


# --- patterns ---


def qemu_io(server: RunningServer, *commands: str) -> None:
    """Ends with status 1 when a pattern is not there."""
    arguments = [word for command in commands for word in ("-c", command)]
    output("qemu-io", "-f", "raw", "-t", "none", "-d", "unmap", server.nbd_uri(), *arguments)


def test_qemu_io_patterns(empty: RunningServer) -> None:
    qemu_io(
        empty,
        "write -P 0x11 1M 6M",
        "write -P 0x22 1048832 512",
        "write -z 2M 1M",
        "discard 3M 1M",
        "write -f -P 0x33 5M 64k",
        "flush",
        "read -P 0x11 1M 256",
        "read -P 0x22 1048832 512",
        "read -P 0x11 1049344 4k",
        "read -P 0 2M 2M",
        "read -P 0x11 4M 1M",
        "read -P 0x33 5M 64k",
    )


def test_qemu_io_splits_what_is_longer_than_a_request(empty: RunningServer) -> None:
    qemu_io(
        empty, "write -P 7 4096 40M", "read -P 7 4096 40M", "write -z 4096 40M", "read -P 0 4k 40M"
    )
    assert empty.json_stats()["devices"]["g1"]["write_requests"] >= 20
    assert "at once" not in empty.log


def test_qemu_io_unaligned_patterns(empty: RunningServer) -> None:
    qemu_io(
        empty,
        "write -P 0x41 4097 10001",
        "write -P 0x42 9999 3",
        "write -z 12000 513",
        "read -P 0x41 4097 5902",
        "read -P 0x42 9999 3",
        "read -P 0x41 10002 1998",
        "read -P 0 12000 513",
        "read -P 0x41 12513 1585",
        "read -P 0 14098 2000",
    )


def test_qemu_io_asynchronous_overlaps(empty: RunningServer) -> None:
    writes = [f"aio_write -P {number} {number * 16}k 64k" for number in range(1, 60)]
    reads = [f"read -P {number} {number * 16}k 16k" for number in range(1, 60)]
    qemu_io(empty, *writes, "aio_flush", *[f"write {w[10:]}" for w in writes], *reads)


def fio(server: RunningServer, *options: str) -> list[Any]:
    """Its jobs; the first one writes 32M at random and verifies them."""
    text = output(
        "fio",
        "--ioengine=nbd",
        f"--uri={server.nbd_uri('g1')}",
        "--output-format=json",
        "--iodepth=16",
        "--randseed=11",
        "--name=verify",
        "--rw=randwrite",
        "--offset=1M",
        "--size=32M",
        "--verify=crc32c",
        "--verify_fatal=1",
        # A file in the working directory otherwise.
        "--verify_state_save=0",
        *options,
        timeout=100,
    )
    jobs = json.loads(text[text.index("{") :])["jobs"]
    assert [job["error"] for job in jobs] == [0] * len(jobs)
    assert jobs[0]["read"]["total_ios"] > 0
    return list(jobs)


def test_fio_verifies_random_writes(empty: RunningServer) -> None:
    fio(empty, "--bsrange=4k-64k", "--buffer_compress_percentage=50")


def test_fio_verifies_odd_sizes(empty: RunningServer) -> None:
    fio(empty, "--bsrange=512-9k", "--bs_unaligned", "--io_size=8M")


def test_fio_verifies_among_trims(empty: RunningServer) -> None:
    """Trims by the client of another device at the same time."""
    empty.ctl("create", "g2", "64M")
    trimmer = ("--name=trimmer", "--rw=randtrim", f"--uri={empty.nbd_uri('g2')}")
    _, job = fio(empty, "--bs=4k", *trimmer)
    assert job["trim"]["total_ios"] > 0
