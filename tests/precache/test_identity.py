# SPDX-License-Identifier: BSD-3-Clause
"""What was cached of a file that was changed is never served again."""

import os
from pathlib import Path

from preswapd.precache.image.identity import Identity
from preswapd.units import PAGE_SIZE as PAGE
from tests.precache.conftest import SIZE
from tests.precache.running import MIB, Shown, content, read

CONTENT = content(SIZE)


def test_change_is_seen_by_the_next_read(image: Shown) -> None:
    """Before anybody has looked."""
    client = image.connect()
    read(client, 0, MIB)
    image.change(b"new" * 100, 5 * PAGE)
    assert read(client, 5 * PAGE, 300) == b"new" * 100
    assert read(client, 0, PAGE) == CONTENT[:PAGE]
    assert image.stats["hits"] == 0


def test_change_drops_what_was_cached_and_says_so_once(image: Shown) -> None:
    read(image.connect(), 0, MIB)
    for n in range(3):
        image.change(bytes([n]), 0)
        image.watched.look()
    assert image.stats["cached_pages"] == image.host.stats()["ephemeral_pages"] == 0
    assert not image.stats["cached"]
    assert [line for line in image.log if "was changed" in line] == image.log


def test_changed_image_is_cached_again_when_it_has_settled(image: Shown) -> None:
    client = image.connect()
    read(client, 0, MIB)
    image.change(b"new", 0)
    image.watched.look()
    read(client, 0, MIB)
    assert image.stats["cached_pages"] == 0
    image.settle()
    assert image.stats["cached"]
    assert "cached again" in image.log[-1]
    for _ in range(2):
        assert read(client, 0, PAGE)[:4] == b"new" + CONTENT[3:4]
    assert image.stats["hits"] == 1


def test_image_that_keeps_changing_is_not_cached(image: Shown) -> None:
    for n in range(5):
        image.change(bytes([n]), 0)
        image.clock[0] += 1.5
        image.watched.look()
        assert not image.stats["cached"]
        assert read(image.connect(), 0, 1) == bytes([n])


def test_touched_file_is_another(image: Shown) -> None:
    """Its bytes are the same, which nobody can know."""
    read(image.connect(), 0, MIB)
    image.change(CONTENT[:1], 0)
    image.settle()
    assert image.stats["cached_pages"] == 0


def test_shrunk_image(image: Shown, path: Path) -> None:
    client = image.connect()
    read(client, 0, SIZE)
    os.truncate(path, MIB)
    image.watched.look()
    assert read(client, 0, MIB) == CONTENT[:MIB]
    image.settle()
    assert not image.stats["cached"], "what it lacks must be an error, also once it has settled"
    os.truncate(path, SIZE)
    image.settle()
    assert read(client, 0, SIZE) == CONTENT[:MIB] + bytes(SIZE - MIB)
    assert image.stats["cached"]


def test_grown_image_keeps_its_size(image: Shown, path: Path) -> None:
    client = image.connect()
    os.truncate(path, 2 * SIZE)
    image.change(b"behind", SIZE + 10)
    image.settle()
    for _ in range(2):
        assert read(client, 0, SIZE) == CONTENT
    assert image.stats["hits"] > 0
    assert client.size == SIZE


def test_replaced_image_is_served_as_it_was(image: Shown, path: Path) -> None:
    client = image.connect()
    other = path.with_name("other")
    other.write_bytes(bytes(SIZE))
    os.rename(other, path)
    image.settle()
    image.settle()
    for _ in range(2):
        assert read(client, 0, SIZE) == CONTENT
    assert image.stats["replaced"]
    assert sum("is not the file any more" in line for line in image.log) == 1


def test_removed_image_is_served_as_it_was(image: Shown, path: Path) -> None:
    path.unlink()
    image.settle()
    assert read(image.connect(), 0, SIZE) == CONTENT
    assert image.stats["replaced"]


def test_young_file_is_cached_only_when_a_change_would_show() -> None:
    young = Identity(1, 2, 3, 50, 0, 100, 500_000_000)
    assert not young.is_older(102.4)
    assert young.is_older(102.5)


def test_uuids_differ_in_every_part() -> None:
    base = Identity(1, 2, 3, 4, 5, 6, 7)
    changed = [base._replace(**{part: 99}) for part in base._fields]
    assert len({one.uuid() for one in [base, *changed]}) == 8


def test_pool_number_that_is_given_away_shows_nothing_of_another_image(image: Shown) -> None:
    """The pool of a changed image is destroyed, and another image's gets its number."""
    client = image.connect()
    read(client, 0, MIB)
    number = image.watched.image.pool
    image.change(b"new", 0)
    image.watched.look()
    assert image.host.new_pool(b"another image's!", 2) == number
    page = b"another's" + bytes(PAGE - 9)
    for index in range(64):
        for obj in range(16):
            image.host.put_page(number, obj, index, page)
    assert read(client, PAGE, MIB - PAGE) == CONTENT[PAGE:MIB]


def test_frozen_image_takes_no_new_pages(image: Shown) -> None:
    client = image.connect()
    read(client, 0, PAGE)
    image.watched.look(frozen=True)
    read(client, 0, MIB)
    assert image.stats["cached_pages"] == 1
    image.watched.look(frozen=False)
    read(client, 0, MIB)
    assert image.stats["cached_pages"] == MIB // PAGE
