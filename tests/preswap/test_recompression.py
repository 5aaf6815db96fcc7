# SPDX-License-Identifier: BSD-3-Clause
"""Pages that nobody touches become smaller by themselves, and are what they were."""

import time
from collections import Counter
from math import inf

import pytest

from preswapd.preswap import recompression
from preswapd.preswap.policy import Policy
from preswapd.preswap.recompression import (
    IDLE_SECONDS,
    LONGEST_REST,
    REST,
    SHARE,
    Pace,
    Recompression,
)
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.running import MIB, Running, read
from tests.tmem.arena_file import CODECS, slots_of
from tests.tmem.pages import make_page

SIZE = MIB
PAGES = range(1, SIZE // PAGE)
CONTENT = b"".join(make_page("letters", page) for page in PAGES)
MOST = 0.85 * len(PAGES)  # the others gain nothing
MS = 1_000_000
DAY = 86400.0


@pytest.fixture
def recompress(monkeypatch: pytest.MonkeyPatch, running: Running) -> Recompression:
    """Of an instance with pages, which need not wait to become old, nor for another pass."""
    monkeypatch.setattr(recompression, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(recompression, "SLACK_SECONDS", 0.0)
    monkeypatch.setattr(recompression, "PIECE_NS", MS)
    running.open(DeviceSpec("g1", SIZE, "lz4"))
    running.connect().pwrite(CONTENT, PAGE)
    running.instance.sysctl.policy.recompress_after = 0.0
    return running.instance.recompression


def run(work: Recompression) -> int:
    """Until there is nothing to do; how many pieces of work there were."""
    pieces = 0
    while work.turn() > 0:
        pieces += 1
    return pieces


def codecs(running: Running) -> Counter[str]:
    """Of how many pages, among those in the first slabs."""
    return Counter(CODECS[slot.codec] for slot in slots_of(running.paths.arena))


def test_idle_pages_take_less_memory(running: Running, recompress: Recompression) -> None:
    before = running.instance.host.stats()
    assert run(recompress) > 0
    running.instance.host.maintain(all=True)
    after = running.instance.host.stats()
    assert after["mem_used_total"] < 0.7 * before["mem_used_total"]
    assert after["recompressed_pages"] > MOST
    assert read(running.connect(), PAGE) == CONTENT
    check_coherence(running.instance)
    running.kill()
    running.open()
    assert read(running.connect(), PAGE) == CONTENT


def test_work_is_cut_into_pieces(running: Running, recompress: Recompression) -> None:
    recompress.turn()
    assert 0 < running.instance.host.stats()["recompressed_pages"] < len(PAGES) // 2


def test_young_pages_stay(running: Running, recompress: Recompression) -> None:
    running.instance.sysctl.policy.recompress_after = DAY
    run(recompress)
    assert codecs(running)["zstd"] == 0
    running.instance.sysctl.policy.recompress_after = None
    run(recompress)
    assert codecs(running)["zstd"] == 0


def test_rewritten_pages_have_their_codec_again(
    running: Running, recompress: Recompression
) -> None:
    run(recompress)
    running.instance.sysctl.policy.recompress_after = DAY
    running.instance.epochs.begin()
    running.connect().pwrite(CONTENT, PAGE)
    run(recompress)
    assert codecs(running)["zstd"] == 0
    assert read(running.connect(), PAGE) == CONTENT
    running.instance.sysctl.policy.recompress_after = 0.0
    run(recompress)
    assert codecs(running)["zstd"] > MOST


def test_what_was_read_is_young(running: Running, recompress: Recompression) -> None:
    """Of a page's puts, gets and reads from disk the last one counts."""
    moment = time.monotonic()
    running.instance.epochs.begin()
    read(running.connect(), 5 * PAGE, PAGE)
    device, enough = running.device, 10**10
    done = device.recompress("zstd", 0, since=moment, before=inf, nanoseconds=enough)
    assert done[:3] == (device.pages, 1, 0)
    done = device.recompress("zstd", 0, since=-inf, before=moment, nanoseconds=enough)
    assert MOST < done[1] < len(PAGES)


def test_nothing_is_looked_at_that_nobody_has_touched(
    running: Running, recompress: Recompression, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a hundred idle servers none takes a processor."""
    run(recompress)
    monkeypatch.setattr(recompression, "PIECE_NS", -1)  # a pass would be an error
    for _ in range(3):
        assert recompress.turn() == recompression.IDLE_SECONDS


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_devices_with_another_codec_are_left_alone(
    running: Running, recompress: Recompression, codec: str
) -> None:
    """Who has said none wants no processor spent, and zstd is dense already."""
    before = codecs(running)
    running.device.compress = codec
    assert run(recompress) == 0
    assert codecs(running) == before


@pytest.mark.parametrize("codec", ["lz4", "none"])
def test_to_a_denser_codec_only(running: Running, recompress: Recompression, codec: str) -> None:
    running.instance.sysctl.policy.recompress_codec = codec
    assert run(recompress) == 0
    running.instance.sysctl.policy.recompress_codec = "zstd"
    assert run(recompress) > 0


def test_not_while_a_shrink_runs(running: Running, recompress: Recompression) -> None:
    policy = Policy(recompress_after=0.0)
    shrinking = [True]
    instance = running.instance
    work = Recompression(instance.host, policy, instance.all_devices, lambda: shrinking[0])
    assert run(work) == 0
    assert codecs(running)["zstd"] == 0
    shrinking[0] = False
    assert run(work) > 0


def test_a_frozen_pool_gives_memory_back_too(running: Running, recompress: Recompression) -> None:
    running.instance.set("preswap.test.frozen", "1")
    assert run(recompress) > 0


def test_what_finds_no_room_is_tried_again(running: Running, recompress: Recompression) -> None:
    """In a pool with pages of one length there is no shorter slot, and memory for none."""
    running.connect().trim(SIZE - PAGE, PAGE)
    page = make_page("letters", 20)
    running.connect().pwrite(page * len(PAGES), PAGE)
    running.instance.host.maintain(all=True)
    limit = running.instance.host.limit
    running.instance.host.limit = running.instance.host.stats()["mem_used_total"]
    assert run_once(recompress)
    assert running.instance.host.stats()["recompressed_pages"] == 0
    running.instance.host.limit = limit
    assert run_once(recompress)
    assert running.instance.host.stats()["recompressed_pages"] == len(PAGES)


def run_once(work: Recompression) -> bool:
    """A pass through one device, from its beginning to its end; whether one was due."""
    was_due = work.turn() > 0
    while work.is_to_pack or any(one.next_page is not None for one in work.passes.values()):
        work.turn()
    return was_due


def test_devices_come_and_go(running: Running, recompress: Recompression) -> None:
    instance = running.instance
    instance.create("more", SIZE)
    instance.devices["more"].connect().pwrite(CONTENT, PAGE)
    recompress.turn()
    instance.remove("g1", force=True)
    run(recompress)
    assert list(recompress.passes) == [instance.devices["more"]]
    assert codecs(running)["zstd"] > MOST


def test_a_device_that_is_being_removed_is_passed_over(
    running: Running, recompress: Recompression
) -> None:
    running.device.stop()
    assert recompress.turn() == recompression.IDLE_SECONDS
    assert codecs(running)["zstd"] == 0


def test_every_device_has_its_turn(running: Running, recompress: Recompression) -> None:
    """Also where the pages of one become old without an end."""
    instance = running.instance
    instance.create("more", SIZE)
    instance.devices["more"].connect().pwrite(CONTENT, PAGE)
    for _ in range(2):
        assert run_once(recompress)
        running.connect().pwrite(CONTENT, PAGE)
    assert instance.host.stats()["recompressed_pages"] > 2 * MOST


def test_clean_device_stays_clean(running: Running, recompress: Recompression) -> None:
    """It changes neither what a page is nor the disk file: after a sync a reboot loses nothing."""
    running.stop()
    running.open()
    running.instance.sysctl.policy.recompress_after = 0.0
    assert run(running.instance.recompression) > 0
    assert codecs(running)["zstd"] > 0
    assert not running.device.is_marked


# --- how much of a processor it takes ---


def test_at_most_a_twentieth_of_a_processor() -> None:
    pace = Pace()
    for worked in (5 * MS, 100, 20 * MS):
        rest = pace.after(worked, worked)
        assert rest == pytest.approx(REST * worked / 1e9)
        assert worked / 1e9 / (worked / 1e9 + rest) == pytest.approx(SHARE)


def test_less_where_processors_are_wanted() -> None:
    pace = Pace()
    rests = [pace.after(5 * MS, 10 * MS) for _ in range(10)]
    assert rests == sorted(rests)
    assert rests[-1] == pytest.approx(LONGEST_REST * 0.005)
    rests = [pace.after(5 * MS, 5 * MS) for _ in range(10)]
    assert rests == sorted(rests, reverse=True)
    assert rests[-1] == pytest.approx(REST * 0.005)


def test_nothing_to_do_is_a_rest(running: Running) -> None:
    """A host with a hundred idle servers must not notice: nothing is looked at in an empty pool."""
    running.open()
    assert running.instance.recompression.turn() == IDLE_SECONDS >= 1
    running.connect().pwrite(make_page("letters", 1), PAGE)
    assert running.instance.recompression.turn() <= IDLE_SECONDS
    assert running.instance.recompression.turn() == IDLE_SECONDS


def test_an_error_does_not_end_in_a_busy_loop(
    running: Running, recompress: Recompression, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def fail() -> float:
        raise RuntimeError

    monkeypatch.setattr(recompress, "turn", fail)
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr(recompression, "IDLE_SECONDS", IDLE_SECONDS)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            recompress.work()
    assert min(slept[1:]) >= 1
