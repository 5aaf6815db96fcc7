# SPDX-License-Identifier: BSD-3-Clause
"""What an operator sets while the server runs: it holds at once, and over restarts."""

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from preswapd.api.messages import ShrinkProgress
from preswapd.api.settings import NO_LIMIT, VM_REMOTE
from preswapd.errors import RefusedError, UsageError
from preswapd.preswap.policy import AUTO, Policy
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.disk_model import pages_of
from tests.preswap.running import MIB, Running, read
from tests.tmem.test_memory import mounted

PAGES = 64
LIMIT = "preswap.test.pool_limit"
GOVERNED = "preswap.test.governed_limit"
FROZEN = "preswap.test.frozen"
QUOTA = "preswap.test.g1.quota"
COMPRESS = "preswap.test.g1.compress"
ROOM, IDLE, RATE = (f"preswap.test.writeback_{name}" for name in ("room", "idle", "rate"))
AFTER, CODEC = (f"preswap.test.recompress_{name}" for name in ("after", "codec"))
TEXT = b"compresses well ".ljust(64, b".") * (PAGE // 64)


@pytest.fixture
def opened(running: Running) -> Running:
    running.paths.runtime_dir.mkdir()
    running.open(DeviceSpec("g1", MIB))
    return running


def values(running: Running) -> dict[str, int | str]:
    return running.instance.sysctl.values(running.instance.devices)


def write_all(running: Running, tag: int) -> None:
    running.connect().pwrite(pages_of(tag, PAGES * PAGE), PAGE)


def test_defaults(opened: Running) -> None:
    assert values(opened) == {
        VM_REMOTE: 0,
        LIMIT: 8 * MIB,
        GOVERNED: "off",
        FROZEN: 0,
        QUOTA: "unlimited",
        COMPRESS: "lz4",
        ROOM: "5%",
        IDLE: "off",
        RATE: 32 * MIB,
        AFTER: 600,
        CODEC: "zstd",
    }
    assert opened.instance.sysctl.policy == Policy()


SAID = ((ROOM, "10 %"), (IDLE, "auto"), (RATE, "off"), (AFTER, "2h"), (CODEC, "lz4"))
FOLLOWED = Policy(0.1, AUTO, None, 7200, "lz4")


def test_policy_is_what_was_set(opened: Running) -> None:
    """And the same object all the time: whoever follows it holds it."""
    policy = opened.instance.sysctl.policy
    for key, text in SAID:
        opened.instance.set(key, text)
    assert policy == FOLLOWED
    opened.instance.set(CODEC, "off")
    assert (policy.recompress_after, values(opened)[AFTER]) == (None, 7200)
    opened.instance.set(CODEC, "zstd")
    assert (policy.recompress_after, policy.recompress_codec) == (7200, "zstd")
    for key, _ in SAID:
        opened.instance.set(key, "off")
    assert policy == Policy(0.0, None, None, None)
    for key, _ in SAID:
        opened.instance.set(key, "default")
    assert policy == Policy()
    assert opened.instance.sysctl.policy is policy


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_restart_keeps_the_policy(opened: Running, end: str) -> None:
    """Over another configuration, which counts again with "default"."""
    for key, text in SAID:
        opened.instance.set(key, text)
    before = values(opened)
    getattr(opened, end)()
    opened.settings = replace(opened.settings, writeback_idle=1800, recompress_codec="off")
    opened.open()
    assert (values(opened), opened.instance.sysctl.policy) == (before, FOLLOWED)
    for key, _ in SAID:
        opened.instance.set(key, "default")
    assert opened.instance.sysctl.policy == Policy(writeback_idle=1800, recompress_after=None)
    getattr(opened, end)()
    opened.open()
    assert opened.instance.sysctl.policy == Policy(writeback_idle=1800, recompress_after=None)
    assert (values(opened)[IDLE], values(opened)[CODEC]) == (1800, "off")


@dataclass
class Switch:
    """Of the remote tier, all that an operator sets."""

    enabled: bool = True


def test_remote_tier_is_switched(opened: Running) -> None:
    instance, tier = opened.instance, Switch()
    instance.sysctl.remote = tier
    assert values(opened)[VM_REMOTE] == 1
    assert instance.set(VM_REMOTE, "0") == (0, None, None)
    assert not tier.enabled
    instance.set(VM_REMOTE, "default")
    assert tier.enabled


def test_remote_tier_that_is_not_there(opened: Running) -> None:
    with pytest.raises(UsageError, match=r"vm\.remote: no store is in use"):
        opened.instance.set(VM_REMOTE, "1")
    assert opened.instance.set(VM_REMOTE, "0").value == 0
    opened.stop()
    opened.open()
    assert values(opened)[VM_REMOTE] == 0


def test_quota_sends_the_rest_to_disk(opened: Running) -> None:
    assert opened.instance.set(QUOTA, "10") == (10, None, None)
    write_all(opened, 1)
    assert (opened.device.preswap_pages, opened.device.disk_pages) == (10, PAGES - 10 + 1)
    assert read(opened.connect(), PAGE, PAGES * PAGE) == pages_of(1, PAGES * PAGE)


def test_quota_holds_after_a_shrink(opened: Running) -> None:
    opened.instance.set(QUOTA, "40K")
    write_all(opened, 1)
    opened.instance.shrink(0, "g1")
    write_all(opened, 2)
    assert opened.device.preswap_pages == 10
    opened.instance.shrink(0)
    write_all(opened, 3)
    assert opened.device.preswap_pages == 10


def test_frozen_takes_no_new_pages(opened: Running) -> None:
    connection = opened.connect()
    connection.pwrite(pages_of(1, PAGE), PAGE)
    opened.instance.set(FROZEN, "1")
    connection.pwrite(pages_of(2, 2 * PAGE), PAGE)
    assert opened.device.preswap_pages == 1
    assert read(connection, PAGE, 2 * PAGE) == pages_of(2, 2 * PAGE)
    opened.instance.set(FROZEN, "0")
    connection.pwrite(pages_of(3, 2 * PAGE), PAGE)
    assert opened.device.preswap_pages == 2


def test_codec_of_pages_to_come(opened: Running) -> None:
    connection = opened.connect()
    connection.pwrite(TEXT, PAGE)
    opened.instance.set(COMPRESS, "none")
    connection.pwrite(TEXT, 2 * PAGE)
    assert opened.instance.host.stats()["huge_pages"] == 1
    assert read(connection, PAGE, 2 * PAGE) == 2 * TEXT


def test_pool_limit(opened: Running) -> None:
    opened.instance.set(LIMIT, "4M")
    assert opened.instance.host.stats()["mem_limit"] == 4 * MIB


def in_force(opened: Running) -> tuple[int, bool]:
    found = opened.instance.stats()["tmem"]
    return found["mem_limit"] // MIB, found["governed"]


def test_lower_of_both_limits_holds(opened: Running) -> None:
    assert in_force(opened) == (8, False)
    opened.instance.set(GOVERNED, "6M")
    assert in_force(opened) == (6, True)
    opened.instance.set(LIMIT, "5M")
    assert in_force(opened) == (5, False)
    assert (values(opened)[LIMIT], values(opened)[GOVERNED]) == (5 * MIB, 6 * MIB)
    opened.instance.set(LIMIT, "default")
    assert in_force(opened) == (6, True)
    opened.instance.set(GOVERNED, "100G")  # more than any pool here: it takes nothing away
    assert in_force(opened) == (8, False)
    opened.instance.set(GOVERNED, "8M")
    assert in_force(opened) == (8, False)
    opened.instance.set(GOVERNED, "4M")
    opened.instance.set(GOVERNED, "off")
    assert in_force(opened) == (8, False)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_restart_keeps_the_governed_limit(opened: Running, end: str) -> None:
    """Also one above what the operator has set, whose raising it outlives."""
    opened.instance.set(LIMIT, "5M")
    opened.instance.set(GOVERNED, "6M")
    getattr(opened, end)()
    opened.open()
    assert in_force(opened) == (5, False)
    opened.instance.set(LIMIT, "default")
    assert in_force(opened) == (6, True)


def test_governed_limit_ends_with_the_hosts_run(opened: Running) -> None:
    opened.instance.set(GOVERNED, "6M")
    text = opened.paths.kept_settings.read_text()
    opened.stop()
    opened.paths.kept_settings.write_text(text.replace('boot_id": "', 'boot_id": "another '))
    opened.open()
    assert in_force(opened) == (8, False)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_restart_keeps_what_was_set(opened: Running, end: str) -> None:
    for key, text in ((LIMIT, "5M"), (FROZEN, "1"), (QUOTA, "7"), (COMPRESS, "zstd")):
        opened.instance.set(key, text)
    before = values(opened)
    getattr(opened, end)()
    opened.open()
    assert values(opened) == before
    assert opened.instance.host.stats()["mem_limit"] == 5 * MIB
    write_all(opened, 1)
    assert opened.device.preswap_pages == 0


def test_default_brings_the_configuration_back(opened: Running) -> None:
    before = values(opened)
    for key, text in ((LIMIT, "5M"), (FROZEN, "1"), (QUOTA, "7"), (COMPRESS, "zstd")):
        opened.instance.set(key, text)
        opened.instance.set(key, "default")
    assert values(opened) == before
    opened.kill()
    opened.open()
    assert values(opened) == before


def test_configured_codec_takes_effect_at_the_next_start(opened: Running) -> None:
    opened.kill()
    opened.open(DeviceSpec("g1", MIB, "zstd"))
    assert values(opened)[COMPRESS] == "zstd"
    opened.instance.set(COMPRESS, "none")
    opened.kill()
    opened.open()
    assert values(opened)[COMPRESS] == "none"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_configured_quota_holds_from_the_start(running: Running, end: str) -> None:
    running.paths.runtime_dir.mkdir()
    running.open(DeviceSpec("g1", MIB, quota=10))
    write_all(running, 1)
    assert (values(running)[QUOTA], running.device.preswap_pages) == (10, 10)
    running.instance.set(QUOTA, "20")
    write_all(running, 2)
    getattr(running, end)()
    running.open()
    write_all(running, 3)
    assert (values(running)[QUOTA], running.device.preswap_pages) == (20, 20)
    running.instance.set(QUOTA, "default")
    running.fitted()
    assert (values(running)[QUOTA], running.device.preswap_pages) == (10, 10)
    assert read(running.connect(), PAGE, PAGES * PAGE) == pages_of(3, PAGES * PAGE)


def test_configured_quota_is_that_of_a_device_made_anew(running: Running) -> None:
    running.paths.runtime_dir.mkdir()
    running.open(DeviceSpec("g1", MIB, quota=10))
    running.instance.set(QUOTA, "unlimited")
    running.instance.remove("g1")
    running.instance.create("g1", MIB)
    write_all(running, 1)
    assert (values(running)[QUOTA], running.device.preswap_pages) == (10, 10)


def test_lowered_quota_of_the_configuration_is_kept_by_a_start(running: Running) -> None:
    running.paths.runtime_dir.mkdir()
    running.open(DeviceSpec("g1", MIB))
    write_all(running, 1)
    running.kill()
    running.open(DeviceSpec("g1", MIB, quota=10))
    running.instance.maintain()
    running.fitted()
    assert running.device.preswap_pages == 10
    assert read(running.connect(), PAGE, PAGES * PAGE) == pages_of(1, PAGES * PAGE)


def test_device_made_anew_has_no_old_settings(opened: Running) -> None:
    opened.instance.set(QUOTA, "7")
    opened.instance.remove("g1")
    opened.instance.create("g1", MIB)
    assert values(opened)[QUOTA] == "unlimited"
    opened.kill()
    opened.open()
    assert values(opened)[QUOTA] == "unlimited"


def test_device_whose_name_begins_with_that_of_a_removed_one(running: Running) -> None:
    running.paths.runtime_dir.mkdir()
    running.open(DeviceSpec("g1", MIB), DeviceSpec("g1.x", MIB))
    running.instance.set("preswap.test.g1.x.quota", "7")
    running.instance.remove("g1")
    running.kill()
    running.open()
    assert values(running)["preswap.test.g1.x.quota"] == 7


def test_device_made_anew_after_a_removal_that_failed(
    opened: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "the disk fails")

    opened.instance.set(QUOTA, "7")
    with monkeypatch.context() as patch:
        patch.setattr("preswapd.preswap.files.removing.remove_disk_file", fail)
        with pytest.raises(OSError, match="the disk fails"):
            opened.instance.remove("g1")
    opened.instance.create("g1", MIB)
    assert values(opened)[QUOTA] == "unlimited"
    assert opened.device.max_pages == NO_LIMIT


def test_quota_that_is_set_during_a_shrink_does_not_end_its_hold(opened: Running) -> None:
    write_all(opened, 1)

    def loosen(step: ShrinkProgress) -> None:
        opened.instance.set(QUOTA, "20")
        write_all(opened, 2)

    assert opened.instance.shrink(0, "g1", progress=loosen).complete
    assert opened.device.preswap_pages == 0
    write_all(opened, 3)
    assert opened.device.preswap_pages == 20


def test_lower_pool_limit_packs_before_it_answers(running: Running) -> None:
    """Otherwise whoever looks next would send pages to disk that have room."""
    running.paths.runtime_dir.mkdir()
    running.settings = replace(running.settings, pool_size=32 * MIB)
    instance = running.open(DeviceSpec("g1", 32 * MIB))
    instance.compress_later()
    running.connect().pwrite(TEXT * 2560, 5 * MIB)
    assert instance.host.stats()["mem_used_total"] > 8 * MIB
    instance.set(LIMIT, "4M")
    assert instance.host.stats()["mem_used_total"] < 4 * MIB
    assert running.device.preswap_pages == 2560


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (LIMIT, "1K"),
        (LIMIT, "100T"),
        (LIMIT, "much"),
        (FROZEN, "2"),
        (QUOTA, "-1"),
        (QUOTA, ""),
        (COMPRESS, "gzip"),
        (ROOM, "60%"),
        (ROOM, ""),
        (IDLE, "0"),
        (IDLE, "1w"),
        (RATE, "0"),
        (AFTER, "auto"),
        (CODEC, "none"),
        (GOVERNED, "1M"),
        (GOVERNED, "none"),
        ("preswap.test.g2.quota", "1"),
        ("preswap.test", "1"),
        ("", ""),
    ],
)
def test_bad_values_change_nothing(opened: Running, key: str, text: str) -> None:
    before = values(opened)
    with pytest.raises(UsageError):
        opened.instance.set(key, text)
    assert values(opened) == before
    assert not opened.paths.kept_settings.exists()


@contextmanager
def no_room(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing can be written in the runtime directory, also not by root."""

    def fail(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("preswapd.preswap.sysctl.write_file", fail)
        yield


def test_what_cannot_be_kept_is_in_force(opened: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """And told, and kept as soon as there is room."""
    with no_room(monkeypatch):
        now, _, why = opened.instance.set(QUOTA, "7")
        assert (now, opened.device.max_pages) == (7, 7)
        assert why == f"{opened.paths.kept_settings}: No space left on device"
        assert "is in force, and not kept for the next start" in opened.log[-1]
        opened.instance.set(FROZEN, "1")
        opened.instance.set(LIMIT, "4M")
        before = values(opened)
        opened.instance.maintain()
        assert not opened.paths.kept_settings.exists()
    opened.instance.next_keeping = 0.0
    opened.instance.maintain()
    assert opened.log[-1] == "the settings are kept for the next start again"
    opened.kill()
    opened.open()
    assert values(opened) == before


def test_next_setting_keeps_those_before_it(
    opened: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with no_room(monkeypatch):
        opened.instance.set(QUOTA, "7")
    assert opened.instance.set(FROZEN, "1").not_kept is None
    opened.kill()
    opened.open()
    assert (values(opened)[QUOTA], values(opened)[FROZEN]) == (7, 1)


def test_what_was_kept_and_removed_is_kept_again(opened: Running) -> None:
    opened.instance.set(QUOTA, "7")
    opened.paths.kept_settings.unlink()
    opened.instance.next_keeping = 0.0
    opened.instance.maintain()
    opened.kill()
    opened.open()
    assert values(opened)[QUOTA] == 7


def test_removed_device_is_forgotten_as_soon_as_there_is_room(
    opened: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.instance.set(QUOTA, "7")
    with no_room(monkeypatch):
        opened.instance.remove("g1")
    opened.instance.next_keeping = 0.0
    opened.instance.maintain()
    opened.instance.create("g1", MIB)
    opened.kill()
    opened.open()
    assert values(opened)[QUOTA] == "unlimited"


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "{", '{"preswap.test.g1.quota": "x"}'])
def test_damaged_file_is_told_and_does_not_stop_a_start(opened: Running, text: str) -> None:
    opened.kill()
    opened.paths.kept_settings.write_text(text)
    opened.open()
    assert values(opened)[QUOTA] == "unlimited"
    assert ["is ignored" in line for line in opened.log] == [True]


def test_settings_end_with_the_hosts_run(opened: Running) -> None:
    """Also where the runtime directory lies on a disk."""
    opened.instance.set(QUOTA, "2")
    opened.kill()
    found = json.loads(opened.paths.kept_settings.read_text())
    opened.paths.kept_settings.write_text(json.dumps({**found, "boot_id": "the boot before"}))
    opened.open()
    assert values(opened)[QUOTA] == "unlimited"
    opened.instance.set("preswap.test.frozen", "1")
    opened.kill()
    opened.open()
    assert (values(opened)[QUOTA], values(opened)["preswap.test.frozen"]) == ("unlimited", 1)
    assert not any("is ignored" in line for line in opened.log)


def test_settings_of_devices_that_are_gone(opened: Running, tmp_path: Path) -> None:
    opened.kill()
    opened.paths.kept_settings.write_text(
        '{"preswap.test.g9.quota": "1", "preswap.test.g1.quota": "2"}'
    )
    opened.open()
    assert values(opened)[QUOTA] == 2
    (complaint,) = (line for line in opened.log if "is ignored" in line)
    assert complaint.endswith("preswap.test.g9.quota is ignored: there is no such setting")
    assert os.listdir(opened.paths.runtime_dir) == ["tuning.json"]


def test_shared_memory_that_is_enlarged_needs_a_restart(tmp_path: Path) -> None:
    """The arena's addresses are as many as it was large at the start."""
    with mounted(tmp_path / "shm", "size=24M") as base, Running(tmp_path, base=base / "in") as one:
        one.paths.runtime_dir.mkdir()
        one.open()
        write_all(one, 1)
        remount = ["mount", "-o", "remount,size=120M", str(base)]
        subprocess.run(remount, check=True)
        with pytest.raises(RefusedError, match="restart the server, which loses no page"):
            one.instance.set(LIMIT, "96M")
        assert values(one)[LIMIT] == 8 * MIB
        one.kill()
        one.open()
        assert one.instance.set(LIMIT, "96M").value == 96 * MIB
        assert read(one.connect(), PAGE, PAGES * PAGE) == pages_of(1, PAGES * PAGE)
