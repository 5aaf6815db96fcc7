# SPDX-License-Identifier: BSD-3-Clause
"""doctor: what is said of images, and what to do."""

import json
import shlex
from pathlib import Path
from typing import Any, cast

import pytest

from preswapd.api.figures import Statistics
from preswapd.cli.doctor import images as checks
from preswapd.cli.doctor.finding import FIX, NOTE, OK, Finding
from preswapd.cli.doctor.images import check_images, check_sums
from preswapd.paths import SYSTEM_RUNTIME_ROOT
from tests.precache.running import MIB, content
from tests.running import PRESWAPCTL, RunningServer, run, typed, wait_for

GIB = 1 << 30
HEALTHY = {
    "path": "/srv/base.raw",
    "size": 2 * GIB,
    "state": "cached",
    "direct": True,
    "replaced": False,
    "disk_errors": 0,
    "cached_pages": 100,
    "hits": 0,
    "misses": 0,
    "evicted": 0,
}


def found(limit: int = GIB, why: str | None = None, **image: Any) -> list[Finding]:
    stats = {
        "instance": "images",
        "tmem": {"mem_limit": limit},
        "images": {"base": {**HEALTHY, **image}} if why is None else {},
        "refused_images": {} if why is None else {"base": why},
    }
    place = SYSTEM_RUNTIME_ROOT / "images"
    return list(check_images("instance images", place, cast(Statistics, stats)))


def statuses(**image: Any) -> list[str]:
    return [finding.status for finding in found(**image)]


def test_digests_of_images_that_are_gone(tmp_path: Path) -> None:
    """Are named with the line that removes them; not those of an image that is not served now."""
    names = ["gone.sums", "gone.sums.new", "base.sums", "base.sums.new", "late.sums", "gone.img"]
    for name in [*names, ".sums", "a\nb.sums"]:
        (tmp_path / name).write_bytes(bytes(5000))
    stats = {"images": {"base": HEALTHY}, "refused_images": {"late": "it is missing"}}
    findings = list(check_sums("instance images", tmp_path, cast(Statistics, stats)))
    assert findings[0].text == f"{tmp_path}/gone.sums, 4.9K, is of an image that it does not have"
    assert len(findings) == 2
    for finding in findings:
        assert finding.status == NOTE
        assert finding.command is not None
        assert typed(finding.command).returncode == 0
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*names, ".sums", "a\nb.sums"} - {"gone.sums", "gone.sums.new"}
    assert list(check_sums("instance images", tmp_path / "missing", cast(Statistics, stats))) == []


def test_nothing_without_images() -> None:
    stats = {"instance": "vm1", "tmem": {"mem_limit": GIB}, "devices": {}}
    assert list(check_images("instance vm1", Path("/run"), cast(Statistics, stats))) == []


def test_healthy() -> None:
    (finding,) = found()
    assert finding.as_text() == "ok    instance images, image base: 2G, 100 pages (400K) cached"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({"state": "not settled"}, [OK]),
        ({"state": "changed"}, [FIX]),
        ({"state": "shrunk"}, [FIX]),
        ({"state": "no pool"}, [NOTE]),
        ({"state": "grown"}, [NOTE]),
        ({"replaced": True}, [NOTE]),
        ({"disk_errors": 3}, [FIX, OK]),
        ({"disk_errors": 3, "state": "shrunk"}, [FIX]),
        ({"direct": False}, [OK, NOTE]),
        ({"remote_wrong": 3}, [OK, NOTE]),
        ({"limit": 32 * MIB}, [OK, NOTE]),
        ({"hits": 100, "misses": 1 << 16, "evicted": 1}, [OK, NOTE]),
        ({"hits": 100, "misses": 1 << 16, "evicted": 0}, [OK]),
        ({"hits": 1 << 16, "misses": 100, "evicted": 9999}, [OK]),
    ],
    ids=str,
)
def test_each_state(image: dict[str, Any], expected: list[str]) -> None:
    assert statuses(**image) == expected
    for finding in found(**image):
        assert finding.status == OK or finding.advice


def test_replaced_or_gone(tmp_path: Path) -> None:
    path = tmp_path / "base.raw"
    (finding,) = found(replaced=True, path=str(path))
    assert "is gone, and" in finding.text
    path.touch()
    (finding,) = found(replaced=True, path=str(path))
    assert "is another file, and" in finding.text


def test_writable() -> None:
    (finding,) = found(writable=True)
    assert finding.text == "2G, writable, 100 pages (400K) cached"
    (finding,) = found(writable=True, replaced=True)
    assert "overlay" not in f"{finding.text} {finding.advice}"


def test_path_that_the_unit_does_not_write_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its drop-in is written so that systemd reads the path as it is."""
    path = tmp_path / "a disk of 5%.raw"
    path.write_bytes(b"")
    why = f"{path} cannot be written to: Read-only file system: in a unit of systemd's ..."
    (finding,) = found(why=why)
    assert finding.command is not None
    written = f'ReadWritePaths="{tmp_path}/a disk of 5%%.raw"'
    assert written in finding.command
    assert "preswapd@images.service" in finding.command
    assert run(["/bin/sh", "-nc", finding.command]).returncode == 0
    # A file system that is read-only for all has no such way.
    monkeypatch.setattr(checks, "is_writable_here", lambda path: False)
    assert found(why=why)[0].command is None


def test_drop_in_that_is_named(tmp_path: Path) -> None:
    command = checks.drop_in(Path("/run/preswapd/vm1"), "ReadWritePaths=/srv/vm1.raw")
    script = shlex.split(command)[-1] if command.startswith("sudo") else command
    script = script.partition(" && systemctl")[0].replace("/etc/systemd/system", str(tmp_path))
    assert run(["/bin/sh", "-c", script]).returncode == 0
    (made,) = tmp_path.rglob("images.conf")
    assert made.read_text() == "[Service]\nReadWritePaths=/srv/vm1.raw\n"


def test_older_server_says_less() -> None:
    stats = {"instance": "images", "tmem": {"mem_limit": GIB}, "images": {"base": {**HEALTHY}}}
    del stats["images"]["base"]["state"], stats["images"]["base"]["direct"]  # type: ignore[index]
    findings = check_images("instance images", Path("/run"), cast(Statistics, stats))
    assert [finding.status for finding in findings] == [OK]


def test_hidden_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit does not see what we see."""
    path = tmp_path / "my base.raw"
    path.write_bytes(b"")
    why = f"{path} is missing"
    (finding,) = found(why=why)
    assert (finding.status, finding.command) == (FIX, None)
    monkeypatch.setattr(checks, "HOMES", [tmp_path.resolve().parent])
    for reason in (why, f"{path} cannot be read: Permission denied"):
        (finding,) = found(why=reason)
        assert finding.command is not None
        assert "ProtectHome=read-only" in finding.command
        assert "preswapd@images.service" in finding.command
        assert run(["/bin/sh", "-nc", finding.command]).returncode == 0
    path.unlink()
    assert found(why=why)[0].command is None


def test_real_server(tmp_path: Path) -> None:
    base = tmp_path / "base.raw"
    base.write_bytes(content(4 * MIB))
    options = [f"--image=base={base}", f"--image=late={base}.late"]
    with RunningServer(tmp_path, {}, "32M", options) as server:
        wait_for(lambda: server.image("base")["cached"], bool)

        def told() -> dict[str, dict[str, str]]:
            command = [PRESWAPCTL, f"--runtime-dir={server.runtime_dir}", "--json", "doctor"]
            listed = json.loads(run(command).stdout)["checks"]
            subject = "instance default, image "
            return {
                one["subject"].removeprefix(subject): one
                for one in listed
                if one["subject"].startswith(subject)
            }

        sums = server.state_dir / "gone.sums"
        sums.touch()
        assert f"rm {sums}" in server.ctl("doctor", check=False).stdout
        before = told()
        assert (before["base"]["status"], before["late"]["status"]) == (OK, FIX)
        text = f"it is not served: {base}.late is missing: "
        assert before["late"]["text"].startswith(text)
        with open(base, "r+b") as file:
            file.truncate(2 * MIB)
        wait_for(lambda: server.image("base")["state"], lambda s: s == "shrunk")
        shrunk = told()["base"]
        assert shrunk["status"] == FIX
        assert run(shlex.split(shrunk["command"])).returncode == 0
        wait_for(lambda: server.image("base")["cached"], bool)
        assert told()["base"]["status"] == OK
