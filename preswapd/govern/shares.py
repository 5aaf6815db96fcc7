# SPDX-License-Identifier: BSD-3-Clause
"""So much memory, and who gets how much of it: a floor each, and the rest by weight.

Only numbers go in and come out, here and in policy.py: what they do can be tried for simulated
days.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

MIB = 1 << 20
# What an arena needs for anything: the smallest that a pool's limit may be.
LEAST = 4 * MIB
# When there is not enough for all, a page that nobody has used for half an hour costs so many.
IDLE_SECONDS, IDLE_COSTS = 1800, 4
# A pool that fills up gets so much of what it takes, and so much besides, before it is full.
WANTS = 0.9  # of its limit
AHEAD, AHEAD_BYTES = 0.25, 64 * MIB


@dataclass(frozen=True)
class Share:
    """What an operator says of one instance; bytes."""

    weight: int = 100
    floor: int = LEAST
    cap: int | None = None


@dataclass(frozen=True)
class Pool:
    """What one instance says of its pool; bytes."""

    used: int
    idle: int = 0  # of that, what nobody has used for half an hour
    pool_limit: int = 1 << 62  # the operator's
    governed: int | None = None  # the governor's, as it is now
    wants: bool = False  # it is nearly at its limit, and its guest goes on to swap out
    # What it keeps is elsewhere too: it gets what the others leave.  (A cache of disk images.)
    yields: bool = False
    cached: int = 0  # of what it takes, pages of images, which are dropped before others move

    @property
    def limit(self) -> int:
        return self.pool_limit if self.governed is None else min(self.pool_limit, self.governed)

    @property
    def excess(self) -> int:
        """What is still to go, to disk but for what is dropped."""
        return max(0, self.used - self.limit)

    @property
    def dropped(self) -> int:
        """Of that, what goes nowhere, as it only caches images."""
        return self.excess if self.yields else min(self.excess, self.cached)


def bounds(share: Share, pool: Pool) -> tuple[int, int]:
    """The floor and the cap in force: what the operator set for the pool counts everywhere."""
    cap = pool.pool_limit if share.cap is None else min(share.cap, pool.pool_limit)
    cap = max(cap, LEAST)
    return min(max(share.floor, LEAST), cap), cap


def divide(total: int, shares: Mapping[str, Share], pools: Mapping[str, Pool]) -> dict[str, int]:
    """Each one's limit, from its floor to its cap.  Where the floors alone are more than there is,
    all get their floor."""
    between = {name: bounds(shares[name], pool) for name, pool in pools.items()}
    limits = {name: floor for name, (floor, _) in between.items()}
    for turn in turns(shares, pools):
        ends = {name: min(part.end, between[name][1]) for name, part in turn.items()}
        give(total, limits, ends, {name: part.weight for name, part in turn.items()})
    # Numbers that people read; a floor is kept to the byte.
    return {name: max(between[name][0], at // MIB * MIB) for name, at in limits.items()}


class Part(NamedTuple):
    """Up to what one is given, and which part of what there is it gets on the way."""

    end: float
    weight: float


def turns(shares: Mapping[str, Share], pools: Mapping[str, Pool]) -> Iterable[Mapping[str, Part]]:
    """One after the other as long as there is any: what is needed, by whoever yields after the
    others; then room ahead for all; at last up to the caps."""
    for yields in (False, True):
        yield {
            name: Part(needed(pool), taxed(shares[name].weight, pool))
            for name, pool in pools.items()
            if pool.yields is yields
        }
    yield {name: Part(ahead(pool.used), shares[name].weight) for name, pool in pools.items()}
    yield {name: Part(float("inf"), shares[name].weight) for name in pools}


def taxed(weight: int, pool: Pool) -> float:
    """An idle page costs what four others cost: a pool of idle pages gets a quarter of its part.

    By the weight and not by the pages: what is idle of a pool that has shrunk for it would be
    taxed again, until nothing is left.
    """
    idle = min(1.0, pool.idle / pool.used) if pool.used else 0.0
    return weight / (1 + (IDLE_COSTS - 1) * idle)


def needed(pool: Pool) -> float:
    """What it takes, and somewhat more where it is short of it: what is given so and not taken is
    not taken away again, or it would come and go."""
    if pool.wants:
        return ahead(pool.used)
    return min(ahead(pool.used), max(pool.used, pool.governed or 0))


def ahead(used: float) -> float:
    return used * (1 + AHEAD) + AHEAD_BYTES


def give(
    total: int, limits: dict[str, int], ends: Mapping[str, float], weights: Mapping[str, float]
) -> None:
    """Raises the limits towards their ends: of what is left of the total, each gets what its weight
    says, and what one cannot use the others get."""
    open_ends = {name for name in ends if limits[name] < ends[name]}
    left = total - sum(limits.values())
    while open_ends and left > 0:
        whole = sum(weights[name] for name in open_ends)
        # Whoever reaches its end first leaves the rest to the others.
        full = {
            name for name in open_ends if ends[name] - limits[name] <= left * weights[name] / whole
        }
        for name in full or open_ends:
            end = ends[name] if full else limits[name] + left * weights[name] / whole
            step = min(int(end) - limits[name], left)
            limits[name] += max(0, step)
        if not full:
            return
        open_ends -= full
        left = total - sum(limits.values())
