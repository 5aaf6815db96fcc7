# SPDX-License-Identifier: BSD-3-Clause
"""Transcendent memory: pools of pages in memory that the host may refuse, or take back.

The contract, with its coherency rules, is in docs/tmem.md.
"""

from preswapd.tmem._tmem import (
    COMPRESS,
    EXCLUSIVE_GETS,
    PAGE_SIZE,
    PERSISTENT,
    SHARED,
    Host,
)

__all__ = ["COMPRESS", "EXCLUSIVE_GETS", "PAGE_SIZE", "PERSISTENT", "SHARED", "Host"]
