# SPDX-License-Identifier: BSD-3-Clause
"""Saves and restores of an instance in this process."""

from io import BytesIO

from preswapd.preswap.saves.transfers import Restored
from tests.preswap.running import Running


def saved(running: Running, name: str = "g1") -> bytes:
    with running.instance.transfers.save(name) as saving:
        return b"".join(bytes(block) for block in saving.blocks())


def restore(running: Running, save: bytes, name: str = "g1") -> Restored:
    return running.instance.transfers.restore(name, BytesIO(save).read)
