# SPDX-License-Identifier: BSD-3-Clause
"""A device's pages in a file: what is restored is what was saved, or nothing is known at all."""

import json
import math
import random
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preswapd.api.save_file import (
    COUNTS,
    END,
    FAILED,
    HEAD,
    NAME,
    PACKED,
    PAGES,
    PREFIX,
    START,
    ZONE,
)
from preswapd.errors import RefusedError
from preswapd.preswap.device._blocks import Packer, Unpacker
from preswapd.preswap.device._device import EXTENT_PAGES, FLAG_FUA, Device
from preswapd.preswap.files.maps import DISK, HOLE, LOST, TMEM, UNKNOWN
from preswapd.preswap.files.zone import zone
from preswapd.preswap.saves.transfers import RestoreFailedError
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.running import MIB, Running, pages_read, read
from tests.preswap.saves import restore, saved
from tests.tmem.pages import make_page

# Large enough for a scan zone of its own.
SIZE = 9 * MIB
WHOLE = SIZE // PAGE
ZONE_PAGES = [page for part in zone(WHOLE) for page in part]
OUTSIDE = [page for page in range(WHOLE) if page not in ZONE_PAGES]
SPECS = [DeviceSpec("g1", SIZE)]
NOISE = random.Random(5)
KINDS = ("unknown", "trimmed", "zeros", "same", "text", "noise", "disk", "lost")

Pages = list[bytes | None]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Instances with one device each, of which nothing is known."""
    with ExitStack() as stack:
        number = iter(range(1000))

        def made(pool_size: int = 32 * MIB, compress: str = "lz4", size: int = SIZE) -> Running:
            tmp, spec = tmp_path / str(next(number)), DeviceSpec("g1", size)
            tmp.mkdir()
            running = stack.enter_context(Running(tmp, [spec], pool_size, compress))
            running.open(known=False)
            return running

        yield made


def filled(running: Running, kinds: dict[int, str]) -> None:
    """Each of these pages as it says; the server has been restarted since."""
    client = running.connect()
    for page, kind in kinds.items():
        if kind == "trimmed":
            client.trim(PAGE, page * PAGE, 0)
        elif kind not in ("unknown", "lost"):
            client.pwrite(content(page, kind), page * PAGE, FLAG_FUA if kind == "disk" else 0)
    client.close()
    running.kill()
    with running.paths.map("g1").open("r+b") as file:
        for page, kind in kinds.items():
            if kind == "lost":
                file.seek(page)
                file.write(bytes([LOST]))
    running.open()


def content(page: int, kind: str) -> bytes:
    if kind == "zeros":
        return bytes(PAGE)
    if kind == "same":
        return page.to_bytes(8, "little") * (PAGE // 8)
    if kind == "text":
        return f"page {page} ".encode().ljust(16) * (PAGE // 16)
    return random.Random(page).randbytes(PAGE)


def expected(kinds: dict[int, str]) -> Pages:
    """Outside of the zone."""
    known = {
        page: bytes(PAGE) if kind == "trimmed" else content(page, kind)
        for page, kind in kinds.items()
        if kind not in ("unknown", "lost")
    }
    return [known.get(page) for page in OUTSIDE]


def outside(running: Running) -> Pages:
    client = running.connect()
    found = pages_read(client)
    client.close()
    return [found[page] for page in OUTSIDE]


def in_zone(running: Running) -> list[bytes]:
    client = running.connect()
    found = [read(client, page * PAGE, PAGE) for page in ZONE_PAGES]
    client.close()
    return found


def states(device: Device) -> list[int]:
    found = device.state_bytes()
    return [found[page] for page in OUTSIDE]


ALL_KINDS = {OUTSIDE[at * 7]: kind for at, kind in enumerate(KINDS * 4)}


@pytest.mark.parametrize("codec", ["lz4", "zstd", "none"])
@pytest.mark.parametrize("to", ["lz4", "zstd", "none"])
def test_every_kind_of_page(make: Callable[..., Running], codec: str, to: str) -> None:
    source, target = make(compress=codec), make(compress=to)
    filled(source, ALL_KINDS)
    assert {LOST, UNKNOWN, HOLE, TMEM, DISK} == set(states(source.device))
    save = saved(source)
    restored = restore(target, save)
    assert outside(target) == expected(ALL_KINDS) == outside(source)
    # A page that was lost is not known, and no more than that.
    assert {UNKNOWN, HOLE, TMEM} == set(states(target.device))
    assert restored.report.lost == 4
    assert restored.report.zeros == 4
    assert restored.report.pages == sum(
        kind not in ("unknown", "trimmed", "lost") for kind in ALL_KINDS.values()
    )
    assert (restored.saved.device, restored.saved.pages) == ("g1", WHOLE)
    check_coherence(target.instance)


def test_save_changes_nothing(make: Callable[..., Running]) -> None:
    """Not even of a device that is clean, whose saved map holds."""
    running = make()
    filled(running, ALL_KINDS)
    running.stop()
    running.open()
    before, was_marked = running.snapshot(), running.device.is_marked
    assert not was_marked
    ages = running.device.ages([0.0])
    saved(running)
    assert running.snapshot() == before
    assert not running.device.is_marked
    assert running.device.ages([0.0]) == ages


def test_zone_goes_with_it(make: Callable[..., Running]) -> None:
    """The header that the guest knows, and what else it has there."""
    source, target = make(), make()
    client = source.connect()
    for page in (ZONE_PAGES[0], ZONE_PAGES[5], ZONE_PAGES[-1]):
        client.pwrite(content(page, "noise"), page * PAGE, 0)
    client.close()
    restore(target, saved(source))
    assert in_zone(target) == in_zone(source)
    assert in_zone(target)[0] == content(0, "noise")
    # Zeros take no blocks.
    assert (target.paths.state_dir / "g1.img").stat().st_blocks * 512 < 64 * PAGE
    # And outlives a reboot, as a zone does.
    before = in_zone(target)
    target.reboot()
    target.open(known=False)
    assert in_zone(target) == before
    assert outside(target) == [None] * len(OUTSIDE)


def test_pool_without_room(make: Callable[..., Running]) -> None:
    source, target = make(), make(pool_size=MIB)
    kinds = dict.fromkeys(OUTSIDE, "noise")
    filled(source, kinds)
    restore(target, saved(source))
    assert target.device.disk_pages > len(OUTSIDE) // 2
    assert outside(target) == expected(kinds)


def test_restored_pages_outlive_restart_and_a_synced_one_a_reboot(
    make: Callable[..., Running],
) -> None:
    source, target = make(), make()
    filled(source, ALL_KINDS)
    restore(target, saved(source))
    target.kill()
    target.open()
    assert outside(target) == expected(ALL_KINDS)
    assert target.instance.begin_sync().wait().complete
    target.reboot()
    target.open()
    assert outside(target) == expected(ALL_KINDS)
    assert target.sidecar().restore == ""


def test_save_of_what_was_restored_is_the_same(make: Callable[..., Running]) -> None:
    source, target, third = make(), make(compress="zstd"), make()
    filled(source, ALL_KINDS)
    restore(target, saved(source))
    restore(third, saved(target))
    assert outside(third) == expected(ALL_KINDS)
    assert in_zone(third) == in_zone(source)


# --- refused: nothing is changed ---


def test_refused_while_a_client_is_connected(make: Callable[..., Running]) -> None:
    running = make()
    save = saved(running)
    client = running.connect()
    for refused in (lambda: saved(running), lambda: restore(running, save)):
        with pytest.raises(RefusedError, match=r"a client is connected to g1: .*virsh save"):
            refused()
    client.close()
    restore(running, save)


def test_refused_while_a_client_may_come_back(make: Callable[..., Running]) -> None:
    running = make()
    save = saved(running)
    running.instance.clients.silent.add("g1")
    with pytest.raises(RefusedError, match=r"has not come back: .*\(--force\)"):
        saved(running)
    with pytest.raises(RefusedError, match=r"has not come back: .*\(--force\)"):
        restore(running, save)
    running.instance.transfers.restore("g1", BytesIO(save).read, force=True)


@pytest.mark.parametrize("kind", ["trimmed", "text", "disk", "lost"])
def test_refused_where_anything_is_known(make: Callable[..., Running], kind: str) -> None:
    running = make()
    save = saved(running)
    filled(running, {OUTSIDE[3]: kind})
    before = running.device.state_bytes()
    with pytest.raises(RefusedError, match=r"1 page \(4K\) of g1 are known already, or lost"):
        restore(running, save)
    assert running.device.state_bytes() == before
    running.instance.swapoff("g1")
    restore(running, save)


def test_nobody_gets_in_meanwhile(make: Callable[..., Running]) -> None:
    """Neither a client, nor an operator who changes what its pages are."""
    running = make()
    instance = running.instance
    save = saved(running)
    tried: list[bool] = []

    def read_and_try(length: int) -> bytes:
        if not tried:
            tried.append(True)
            check_shut(running, "is being restored")
            done = instance.begin_sync().wait()
            assert (done.complete, done.reason) == (False, "g1: it is being restored")
            assert not running.sidecar().clean
        return stream.read(length)

    stream = BytesIO(save)
    instance.transfers.restore("g1", read_and_try)
    with instance.transfers.save("g1") as saving:
        next(saving.blocks())
        check_shut(running, "is being saved")
        assert instance.begin_sync().wait().complete
    running.connect().close()
    assert tried
    assert instance.begin_sync().wait().complete


def check_shut(running: Running, why: str) -> None:
    instance = running.instance
    with pytest.raises(OSError, match="g1 is shut to clients"):
        running.connect()
    assert instance.transfers.why_shut("g1") == f"g1 {why}"
    for change in (
        lambda: instance.remove("g1", force=True),
        lambda: instance.mkswap("g1", force=True),
        lambda: instance.swapoff("g1"),
        lambda: instance.trim("g1"),
        lambda: saved(running),
        lambda: restore(running, b""),
    ):
        with pytest.raises(RefusedError, match=f"g1 {why}"):
            change()


# --- it fails: nothing is known ---


def check_fails(target: Running, save: bytes, why: str = "") -> None:
    before = in_zone(target)
    with pytest.raises(RestoreFailedError, match=rf"^g1 was not restored: .*{why}.*is known$"):
        restore(target, save)
    assert set(states(target.device)) == {UNKNOWN}
    assert outside(target) == [None] * len(OUTSIDE)
    assert in_zone(target) == before
    assert target.sidecar().restore == ""


@pytest.fixture
def save(make: Callable[..., Running]) -> bytes:
    source = make()
    filled(source, ALL_KINDS)
    return saved(source)


def test_what_is_no_save(make: Callable[..., Running], save: bytes) -> None:
    target = make()
    check_fails(target, b"", "it is empty")
    check_fails(target, b"# Domain save\n" * 100, "it is no save of a device")
    newer = save.replace(PREFIX, b"preswapd-save 9\n", 1)
    check_fails(target, newer, "another version of preswapd: upgrade preswapd here")
    check_fails(target, save[: len(PREFIX)], "it ends too early")
    check_fails(target, save[:-1], "it ends too early")
    check_fails(target, save + b"\0", "there is more behind its end")
    restore(target, save)


def test_of_another_size(make: Callable[..., Running], save: bytes) -> None:
    other = make(size=MIB)
    why = "it is of a device of 9M, and g1 has 1M: `preswapctl create NAME 9M` makes one"
    with pytest.raises(RestoreFailedError, match=why):
        restore(other, save)
    assert other.device.stats()["unknown_pages"] == MIB // PAGE - 1


def test_any_bit_that_is_flipped_in_what_is_read_first(
    make: Callable[..., Running], save: bytes
) -> None:
    target = make()
    for bit in range(8 * (len(PREFIX) + HEAD.size + 40)):
        check_refused_at_once(target, flipped(save, bit))


def check_refused_at_once(target: Running, save: bytes) -> None:
    with pytest.raises(RestoreFailedError):
        restore(target, save)
    assert set(states(target.device)) == {UNKNOWN}


def flipped(save: bytes, bit: int) -> bytes:
    found = bytearray(save)
    found[bit // 8] ^= 1 << bit % 8
    return bytes(found)


def blocks_of(save: bytes) -> list[bytes]:
    found, at = [], len(PREFIX)
    while at < len(save):
        length = HEAD.size + HEAD.unpack_from(save, at)[1]
        found.append(save[at : at + length])
        at += length
    return found


def test_blocks_in_another_order_or_of_another_save(
    make: Callable[..., Running], save: bytes
) -> None:
    source, target = make(), make()
    filled(source, dict.fromkeys(OUTSIDE[::40], "text"))
    blocks, others = blocks_of(save), blocks_of(saved(source))
    assert PREFIX + b"".join(blocks) == save
    last = len(blocks) - 1
    for wrong in (
        [*blocks[:1], *blocks[2:]],
        [*blocks[:2], blocks[1], *blocks[2:]],
        [blocks[0], blocks[2], blocks[1], *blocks[3:]],
        [*blocks[:1], *others[1:2], *blocks[2:]],
        [*blocks[:last], others[-1]],
        [*others[:1], *blocks[1:]],
        [*blocks[:1], *blocks[last:]],
        [*blocks, *blocks],
    ):
        check_fails(target, PREFIX + b"".join(wrong))


@given(st.data())
def test_random_devices_and_random_damage(data: st.DataObject) -> None:
    """What comes back is what was there, or nothing."""
    pages = st.dictionaries(st.sampled_from(OUTSIDE), st.sampled_from(KINDS), max_size=40)
    kinds = data.draw(pages)
    pool = data.draw(st.sampled_from([MIB, 32 * MIB]))
    with ExitStack() as stack:
        here, there = (stack.enter_context(a_device(size)) for size in (32 * MIB, pool))
        filled(here, kinds)
        save = saved(here)
        damage = data.draw(st.sampled_from(["cut", "flip", "write over", "put in"]))
        # Its length is not always the same: the swap header is random.
        at = len(save) * data.draw(st.integers(0, 9999)) // 10000
        if damage == "cut":
            wrong = save[:at]
        elif damage == "flip":
            wrong = flipped(save, at * 8 + data.draw(st.integers(0, 7)))
        else:
            piece = data.draw(st.binary(min_size=1, max_size=64))
            over = len(piece) if damage == "write over" else 0
            wrong = save[:at] + piece + save[at + over :]
        if wrong != save:
            check_fails(there, wrong)
        if data.draw(st.booleans()):
            there.kill()
            there.open()
        restore(there, save)
        assert outside(there) == expected(kinds)
        assert in_zone(there) == in_zone(here)
        check_coherence(there.instance)


@given(st.data())
def test_forged_blocks(data: st.DataObject) -> None:
    """Their checksums are right, and what is in them need not be: all or nothing all the same."""
    with a_device(32 * MIB) as running:
        save = PREFIX + b"".join(forged(data, blocks_of(saved(running))))
        before = in_zone(running)
        try:
            restored = restore(running, save)
        except RestoreFailedError:
            assert set(states(running.device)) == {UNKNOWN}
            assert in_zone(running)[0].endswith(b"SWAPSPACE2")
        else:
            found = states(running.device)
            assert restored.report.pages == len(found) - found.count(UNKNOWN) - found.count(HOLE)
            assert restored.report.zeros == found.count(HOLE)
            assert in_zone(running)[1:] == before[1:]
        check_coherence(running.instance)


def forged(data: st.DataObject, blocks: list[bytes]) -> Iterator[bytes]:
    """Those of a device of which nothing is known, with others between them."""
    packer, room = Packer(PREFIX), bytearray(1 << 21)
    yield packer.plain(START, data.draw(st.sampled_from([blocks[0][HEAD.size :], b"{}", b"[1"])))
    counts = [0, 0]
    for _ in range(data.draw(st.integers(0, 3))):
        first = data.draw(st.sampled_from([256, 512, 1024, 1025, 2048, 1 << 63]))
        kinds = data.draw(st.lists(st.sampled_from([0, 0, 1, 2, 2, 3]), max_size=300))
        kinds += [0] * data.draw(st.sampled_from([0, max(0, 256 - len(kinds))]))
        raw = bytes(kinds) + b"f" * PAGE * (kinds.count(2) - data.draw(st.sampled_from([0, 0, 1])))
        kind = data.draw(st.sampled_from([PAGES, PAGES, ZONE, 77]))
        if raw:
            yield bytes(room[: packer.packed(kind, first, raw, room)])
        counts[0] += kinds.count(2)
        counts[1] += kinds.count(1)
    for block in blocks[1:-1]:
        _, length, first, size, _ = HEAD.unpack_from(block)
        whole = bytearray(size)
        Unpacker(PREFIX).unpack(block[HEAD.size : HEAD.size + length], whole)
        yield bytes(room[: packer.packed(ZONE, first, whole, room)])
    yield packer.plain(END, COUNTS.pack(*counts, 0, len(ZONE_PAGES)))


Taken = list[tuple[int, int, bytes]]  # kind, first page, what is in it


def taken_apart(save: bytes) -> Taken:
    found = []
    for block in blocks_of(save):
        kind, _, first, size, _ = HEAD.unpack_from(block)
        content = block[HEAD.size :]
        if kind in (PAGES, ZONE):
            whole = bytearray(size)
            Unpacker(PREFIX).unpack(content, whole)
            content = bytes(whole)
        found.append((kind, first, content))
    return found


def put_together(blocks: Taken, prefix: bytes = PREFIX) -> bytes:
    """With checksums that are right."""
    packer, room = Packer(prefix), bytearray(1 << 21)
    text = prefix
    for kind, first, content in blocks:
        if kind in (PAGES, ZONE):
            text += room[: packer.packed(kind, first, content, room)]
        elif kind == PACKED:
            room[HEAD.size : HEAD.size + len(content)] = content
            text += room[: packer.stored(kind, first, raw_of(content), room, len(content))]
        else:
            text += packer.plain(kind, content)
    return text


def raw_of(packed: bytes) -> int:
    codecs = packed[:EXTENT_PAGES]
    return EXTENT_PAGES + (len(codecs) - codecs.count(0)) * PAGE


def test_save_of_the_first_format(make: Callable[..., Running]) -> None:
    """All pages in it are bytes."""
    source, target = make(compress="none"), make()
    kinds = {page: kind for page, kind in ALL_KINDS.items() if kind not in ("zeros", "same")}
    filled(source, kinds)
    blocks = taken_apart(saved(source))
    assert PACKED not in {kind for kind, _, _ in blocks}
    restore(target, put_together(blocks, NAME + b"1\n"))
    assert outside(target) == expected(kinds)


@pytest.mark.parametrize("to", ["lz4", "zstd", "none"])
@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_pages_stay_as_they_are_compressed(
    make: Callable[..., Running], codec: str, to: str
) -> None:
    """Unless the device that they come to is to have them denser, or not compressed."""
    source, target, written = make(compress=codec), make(compress=to), make(compress=to)
    kinds = dict.fromkeys(OUTSIDE[:40], "text")
    filled(source, kinds)
    filled(written, kinds)
    save = saved(source)
    assert [kind for kind, _, _ in taken_apart(save)][1] == PACKED
    restore(target, save)
    as_is = (codec, to) in (("lz4", "lz4"), ("zstd", "zstd"), ("zstd", "lz4"))
    like = source if as_is else written
    for figure in ("compr_data_size", "huge_pages", "stored_pages"):
        assert target.instance.host.stats()[figure] == like.instance.host.stats()[figure]
    assert outside(target) == expected(kinds)


def test_quota_of_what_is_compressed(make: Callable[..., Running]) -> None:
    source, target = make(), make()
    kinds = dict.fromkeys(OUTSIDE[:400], "text")
    filled(source, kinds)
    target.instance.set("preswap.test.g1.quota", "100")
    restore(target, saved(source))
    assert target.device.preswap_pages == 100
    assert target.device.disk_pages == 1 + 300
    assert outside(target) == expected(kinds)
    check_coherence(target.instance)


def test_damaged_page_is_left_out(make: Callable[..., Running]) -> None:
    source, target = make(), make()
    kinds = dict.fromkeys(OUTSIDE[:3], "text")
    filled(source, kinds)
    source.kill()
    text = f"page {OUTSIDE[1]} ".encode()
    with source.paths.arena.open("r+b") as file:
        at = file.read(32 * MIB).index(text)
        file.seek(at)
        file.write(b"PAGE")
    source.open()
    restored = restore(target, saved(source))
    assert (restored.report.pages, restored.report.lost) == (2, 1)
    assert outside(target) == expected({**kinds, OUTSIDE[1]: "lost"})


def test_pages_that_become_smaller_and_move_meanwhile(make: Callable[..., Running]) -> None:
    """Between any two blocks, and while one is made."""
    source, target = make(), make(compress="zstd")
    client = source.connect()
    for page in OUTSIDE:
        client.pwrite(make_page("letters", page), page * PAGE, 0)
    client.close()
    device, taken = source.device, bytearray()

    def recompress() -> None:
        page = 0
        while page < WHOLE:
            page = device.recompress("zstd", page, since=0, before=math.inf, nanoseconds=10**9)[0]

    with ThreadPoolExecutor() as pool, source.instance.transfers.save("g1") as saving:
        recompressing = pool.submit(recompress)
        for block in saving.blocks():
            taken += block
            source.instance.shrink(max(0, device.preswap_pages - 100))
        recompressing.result()
    assert device.preswap_pages < len(OUTSIDE) - 500
    kinds = {kind for kind, _, _ in taken_apart(bytes(taken))}
    assert kinds == {START, PACKED, PAGES, ZONE, END}
    restore(target, bytes(taken))
    assert outside(target) == [make_page("letters", page) for page in OUTSIDE]


def test_length_that_is_not_that_of_its_pages(
    make: Callable[..., Running], save: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever follows a restore is shown it."""
    monkeypatch.setattr("tests.preswap.test_saves.raw_of", lambda packed: 1 << 63)
    check_fails(make(), put_together(taken_apart(save)), "it is damaged")


def test_page_that_comes_twice(make: Callable[..., Running]) -> None:
    source, target = make(), make()
    filled(source, {OUTSIDE[0]: "text", OUTSIDE[1]: "noise"})
    start, packed, bare, *rest, end = taken_apart(saved(source))
    assert (packed[0], bare[0]) == (PACKED, PAGES)
    first = packed[1]
    kinds = bytearray(bare[2][:EXTENT_PAGES])
    kinds[OUTSIDE[0] - first] = 2
    twice = (PAGES, first, bytes(kinds) + bytes(2 * PAGE))
    counts = COUNTS.unpack(end[2])
    wrong = (END, 0, COUNTS.pack(counts[0] + 1, *counts[1:]))
    check_fails(target, put_together([start, packed, twice, *rest, wrong]), "it is damaged")


@given(st.data())
def test_forged_compressed_pages(data: st.DataObject) -> None:
    """Whatever is said to be a compressed page is one, or nothing is known."""
    with a_device(data.draw(st.sampled_from([MIB, 32 * MIB]))) as running:
        blocks = taken_apart(saved(running))
        codecs, pieces, right = bytearray(EXTENT_PAGES), b"", {}
        for page in sorted(data.draw(st.sets(st.integers(0, EXTENT_PAGES - 1), max_size=5))):
            codec, piece, whole = data.draw(st.sampled_from(PIECES))
            codecs[page] = codec
            length = len(piece) + data.draw(st.sampled_from([0, 0, 0, 0, 1, -1, 60000]))
            pieces += max(0, length).to_bytes(2, "little") + piece
            right[page] = whole if length == len(piece) else None
        first = data.draw(st.sampled_from([3, 5, 0, 4])) * EXTENT_PAGES
        packed = bytes(codecs) + pieces + data.draw(st.sampled_from([b"", b"", b"more"]))
        end = (END, 0, COUNTS.pack(len(right), 0, 0, len(ZONE_PAGES)))
        save = put_together([blocks[0], (PACKED, first, packed), *blocks[1:-1], end])
        try:
            restore(running, save)
        except RestoreFailedError:
            assert set(states(running.device)) == {UNKNOWN}
        else:
            assert len(packed) == EXTENT_PAGES + len(pieces)
            assert outside(running) == [right.get(page - first) for page in OUTSIDE]
            assert None not in right.values()
        check_coherence(running.instance)


# Codec, bytes, and the page that they are, if they are one.
PIECES = [
    (1, b"8 bytes.", b"8 bytes." * (PAGE // 8)),
    (1, b"7 bytes", None),
    (2, b"r" * PAGE, b"r" * PAGE),
    (2, b"r" * 100, None),
    # A literal, a match of 4090 bytes, 5 literals.
    (3, b"\x1fz\x01\x00" + b"\xff" * 15 + b"\xf6" + b"\x50zzzzz", b"z" * PAGE),
    (3, b"\x1fz\x01\x00" + b"\xff" * 15 + b"\xf5" + b"\x50zzzzz", None),
    (3, b"", None),
    (4, b"no zstd", None),
    (5, b"8 bytes.", None),
    (200, b"", None),
]


def test_zone_that_is_counted_and_not_there(make: Callable[..., Running], save: bytes) -> None:
    """It would be of two devices."""
    target = make()
    blocks = taken_apart(save)
    assert put_together(blocks) == save
    at = next(at for at, block in enumerate(blocks) if block[0] == ZONE)
    wrong = put_together(blocks[:at] + blocks[at + 1 :])
    with pytest.raises(RestoreFailedError, match="it is damaged; none of its pages is known"):
        restore(target, wrong)
    assert set(states(target.device)) == {UNKNOWN}
    assert in_zone(target)[0].endswith(b"SWAPSPACE2")
    restore(target, save)


def test_zone_where_there_is_none(make: Callable[..., Running], save: bytes) -> None:
    """What is kept to the end has a bound: it is refused before anything behind it is read."""
    target = make()
    blocks = taken_apart(save)
    at = next(at for at, block in enumerate(blocks) if block[0] == ZONE)
    extent = next(
        first
        for first in range(0, WHOLE, EXTENT_PAGES)
        if not set(range(first, first + EXTENT_PAGES)) & set(ZONE_PAGES)
    )
    more = (ZONE, extent, bytes([2]) * EXTENT_PAGES + NOISE.randbytes(EXTENT_PAGES * PAGE))
    start = put_together([*blocks[:at], more])
    stream = BytesIO(start + bytes(MIB))
    with pytest.raises(RestoreFailedError, match="which has another scan zone"):
        target.instance.transfers.restore("g1", stream.read)
    assert stream.tell() == len(start)
    assert set(states(target.device)) == {UNKNOWN}


@pytest.mark.parametrize(
    "lie",
    [
        {"time": 1e300},
        {"time": float("nan")},
        {"time": float("inf")},
        {"time": -1},
        {"time": "now"},
        {"device": "\x1b[2Jg1"},
        {"device": 1},
        {"instance": ["vm1"]},
        {"instance": "vm1\nrestored"},
        {"preswapd": None},
        {"pages": 0},
        {"pages": -5},
        {"pages": 1 << 70},
        {"pages": True},
    ],
)
def test_what_no_save_says_of_itself(
    make: Callable[..., Running], save: bytes, lie: dict[str, object]
) -> None:
    """Nobody is told that it was restored, and then fails to say when."""
    blocks = taken_apart(save)
    start = json.dumps({**json.loads(blocks[0][2]), **lie}).encode()
    wrong = put_together([(START, 0, start), *blocks[1:]])
    check_fails(make(), wrong, "it does not say what was saved")


def test_reason_is_fit_for_a_log(make: Callable[..., Running], save: bytes) -> None:
    blocks = taken_apart(save)
    wrong = put_together([blocks[0], (FAILED, 0, b"g1:\n\x1b[2J\xff error")])
    check_fails(make(), wrong, r"g1:\?\?\[2J\ufffd error; none")


def a_device(pool_size: int) -> Running:
    base = Path(tempfile.mkdtemp(prefix="preswapd-test-", dir="/dev/shm"))
    running = Running(base, SPECS, pool_size, base=base)
    running.open(known=False)
    return running


def test_stop_in_the_middle_of_a_restore(make: Callable[..., Running], save: bytes) -> None:
    """It writes what it writes of the others, and the next start knows nothing of this one."""
    running = make()
    begun, go_on = threading.Event(), threading.Event()
    stream = BytesIO(save)

    def slowly(length: int) -> bytes:
        if stream.tell() > len(save) // 2:
            begun.set()
            go_on.wait()
        return stream.read(length)

    def restoring() -> None:
        with pytest.raises(RestoreFailedError):
            running.instance.transfers.restore("g1", slowly)

    thread = threading.Thread(target=restoring)
    thread.start()
    begun.wait()
    running.instance.close()
    assert not running.sidecar().clean
    files = running.snapshot()
    assert files
    # The process would be gone by now.
    running.device.resume()
    stream.seek(len(save))
    go_on.set()
    thread.join()
