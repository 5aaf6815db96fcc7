# SPDX-License-Identifier: BSD-3-Clause
"""A disk image that two guests read one after the other: the host's disk is read once."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from preswapd.api.figures import ImageFigures
from preswapd.demo.server import as_a_shell_reads
from preswapd.demo.stage import Stage
from preswapd.guest.machine import Guest, Hardware, Software
from preswapd.guest.memory import memory_leaving
from preswapd.units import PAGE_SIZE, format_size

IMAGE = "base"
GUEST_AVAILABLE = 48 << 20
GUEST_LIFE = 180.0
READ_SECONDS = 60.0


@dataclass(frozen=True)
class Reading:
    """What one guest read: whether it was right, and how many of its pages came from where."""

    good: bool
    hits: int
    misses: int


def add_image(stage: Stage) -> None:
    """The text as an image of a server that is about to start."""
    path = image_file(stage)
    path.write_bytes(stage.material.text)
    stage.server.extra.append(f"--image={IMAGE}={path}")


def image_file(stage: Stage) -> Path:
    return stage.server.paths.state_dir.parent / f"{IMAGE}.img"


def share_image(stage: Stage) -> None:
    """A guest that reads the whole image, and then another one; each has an overlay of its own."""
    size = len(stage.material.text)
    pages = size // PAGE_SIZE
    first, second = (read_by_guest(stage, number) for number in (1, 2))
    cached = figures(stage)
    stage.screen.say(
        f"{cached['cached_pages']:,} pages of it in {format_size(cached['cached_bytes'])} of memory"
    )
    stage.check(
        first.good and second.good,
        f"two guests, one after the other, read the {format_size(size)} of one image, each byte"
        " right",
    )
    stage.check(
        second.hits >= pages * 99 // 100 and second.misses * 100 <= pages,
        f"the first had {first.misses:,} of its {pages:,} pages from the host's disk, the second"
        f" {second.misses:,}: it had {second.hits:,} from memory",
    )


def read_by_guest(stage: Stage, number: int) -> Reading:
    overlay = image_file(stage).with_name(f"guest{number}.qcow2")
    disk = stage.server.run("qemu-args", IMAGE, "--bus=virtio", f"--overlay={overlay}")
    stage.screen.command(f"preswapctl qemu-args {IMAGE} --bus=virtio --overlay={overlay.name}")
    memory = memory_leaving(GUEST_AVAILABLE, stage.kernel, stage.cache)
    before = figures(stage)
    with Guest(
        Hardware(memory, disks=as_a_shell_reads(disk)),
        Software(stage.kernel),
        stage.cache,
        life=GUEST_LIFE,
    ) as guest:
        digest = guest.run("sha256sum /dev/vda", READ_SECONDS).output.split()[0]
    after = figures(stage)
    return Reading(
        digest == hashlib.sha256(stage.material.text).hexdigest(),
        hits=after["hits"] - before["hits"],
        misses=after["misses"] - before["misses"],
    )


def figures(stage: Stage) -> ImageFigures:
    stage.server.check_alive()
    return stage.server.client.stats()["images"][IMAGE]
